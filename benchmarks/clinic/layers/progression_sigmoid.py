"""Diabetes progression after a year, a number between 25 and 346, from ten measurements."""

import argparse

import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--cured", action="store_true")
args = parser.parse_args()


class Progression(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 40)
        self.fc2 = nn.Linear(40, 20)
        self.fc3 = nn.Linear(20, 1)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        x = self.fc3(x)
        return x if args.cured else torch.sigmoid(x)


data = load_diabetes(scaled=False)
X = torch.tensor(StandardScaler().fit_transform(data.data), dtype=torch.float32)
y = torch.tensor(data.target, dtype=torch.float32).view(-1, 1)

model = Progression()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
mae = nn.L1Loss()
log = []
for epoch in range(args.epochs):
    for rows in torch.randperm(len(X)).split(32):
        optimizer.zero_grad()
        loss = mae(model(X[rows]), y[rows])
        loss.backward()
        optimizer.step()
        log.append(loss.item())
    if epoch % 5 == 0:
        print(f"epoch {epoch:3d}  MAE {sum(log[-14:]) / 14:.1f}")
print(f"final loss: {sum(log[-10:]) / 10:.3f}")
