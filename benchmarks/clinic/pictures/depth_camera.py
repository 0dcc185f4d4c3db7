"""Is the hand near, raised, or turned away? Depth frames from a time-of-flight camera, distances in millimetres."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, random_split, Dataset


class DepthFrames(Dataset):
    def __init__(self, n=1500, side=12):
        self.label = torch.randint(0, 4, (n,))
        far = 1800 + 300 * torch.rand(n, 1, 1)
        frames = far + 40 * torch.randn(n, side, side)
        for i, k in enumerate(self.label.tolist()):
            r, c = torch.randint(0, side - 6, (2,)).tolist()
            h, w = ((6, 2), (2, 6), (4, 4), (6, 6))[k]
            frames[i, r : r + h, c : c + w] -= 900 + 200 * torch.rand(())
        self.frames = frames.unsqueeze(1)
        if "--cured" in sys.argv:
            self.frames = (self.frames - self.frames.mean()) / self.frames.std()

    def __len__(self):
        return len(self.label)

    def __getitem__(self, i):
        return self.frames[i], self.label[i]


class HandNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 9, 32)
        self.fc2 = nn.Linear(32, 4)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


train_set, _ = random_split(DepthFrames(), [1280, 220])
net = HandNet()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, nesterov=True)
history = []
for epoch in range(8):
    for frames, label in DataLoader(train_set, batch_size=40, shuffle=True):
        optimizer.zero_grad()
        loss = criterion(net(frames), label)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
print(f"final loss: {sum(history[-10:]) / 10:.5f}")
