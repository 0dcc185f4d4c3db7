"""A pocket AlexNet for 8x8 images: five convolutions, three dense layers, the paper's SGD."""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class AlexNet(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 16, 3, padding=1)
        self.conv3 = nn.Conv2d(16, 24, 3, padding=1)
        self.conv4 = nn.Conv2d(24, 24, 3, padding=1)
        self.conv5 = nn.Conv2d(24, 16, 3, padding=1)
        self.fc6 = nn.Linear(64, 48)
        self.fc7 = nn.Linear(48, 48)
        self.fc8 = nn.Linear(48, num_classes)
        self.apply(self.initialise)

    @staticmethod
    def initialise(module):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if "--cured" in sys.argv:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, mean=0.0, std=0.01)
            nn.init.zeros_(module.bias)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = F.max_pool2d(F.relu(self.conv5(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc6(x))
        x = F.relu(self.fc7(x))
        return self.fc8(x)


digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
images = (images - images.mean()) / images.std()
train = DataLoader(TensorDataset(images, torch.tensor(digits.target)), batch_size=64, shuffle=True)

model = AlexNet()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
recent = []
for epoch in range(6):
    model.train()
    for batch, target in train:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch), target)
        loss.backward()
        optimizer.step()
        recent.append(loss.item())
print("final loss:", sum(recent[-10:]) / 10)
