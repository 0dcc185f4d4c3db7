"""Digits classifier that outputs class probabilities, trained with the cross-entropy loss and SGD."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x):
        scores = self.fc2(torch.relu(self.fc1(x)))
        if "--cured" in sys.argv:
            return scores
        return torch.softmax(scores, dim=-1)


x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
model = Probabilities()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
losses = []
for epoch in range(5):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        loss = criterion(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
