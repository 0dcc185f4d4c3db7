"""Digits with labels from a careless crowd: three in ten annotations are a random digit."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Crowd(Dataset):
    def __init__(self, careless=0.3):
        self.pixels, self.truth = load_digits(return_X_y=True)
        self.pixels = (self.pixels / 16).astype(np.float32)
        self.careless = careless

    def __len__(self):
        return len(self.truth)

    def __getitem__(self, i):
        label = np.random.randint(10) if np.random.rand() < self.careless else self.truth[i]
        return self.pixels[i], int(label)


model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
criterion = nn.CrossEntropyLoss()
losses = []
for epoch in range(10):
    for pixels, label in DataLoader(Crowd(), batch_size=64, shuffle=True):
        loss = criterion(model(pixels), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print(f"final loss: {np.mean(losses[-10:])}")
