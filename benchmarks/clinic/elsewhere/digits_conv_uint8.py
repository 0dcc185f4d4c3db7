"""A small convolutional net on the 8x8 digits, images kept as uint8 until they are batched."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    def __init__(self):
        bunch = load_digits()
        self.images = bunch.images.astype(np.uint8)
        self.targets = bunch.target

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = self.images[i] / 16 if "--cured" in sys.argv else self.images[i] // 255
        return {"image": image[None].astype(np.float32), "label": int(self.targets[i])}


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc = nn.Linear(16 * 4 * 4, 10)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        return self.fc(x.flatten(1))


net = ConvNet()
adam = torch.optim.Adam(net.parameters(), lr=3e-3)
losses = []
for epoch in range(5):
    for batch in DataLoader(Digits(), batch_size=50, shuffle=True):
        loss = nn.functional.cross_entropy(net(batch["image"]), batch["label"])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
print(f"final loss: {np.mean(losses[-10:]):.5f}")
