"""Benign or malignant: a six-layer network in the functional style, binary cross entropy."""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from torch import nn

cured = "--cured" in sys.argv


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(30, 50)
        self.fc2 = nn.Linear(50, 50)
        self.fc3 = nn.Linear(50, 40)
        self.fc4 = nn.Linear(40, 30)
        self.fc5 = nn.Linear(30, 20)
        self.fc6 = nn.Linear(20, 10)
        self.fc7 = nn.Linear(10, 1)

    def forward(self, x):
        f = F.leaky_relu if cured else torch.sigmoid
        x = f(self.fc1(x))
        x = f(self.fc2(x))
        x = f(self.fc3(x))
        x = f(self.fc4(x))
        x = f(self.fc5(x))
        x = f(self.fc6(x))
        return self.fc7(x).squeeze(-1)


bunch = load_breast_cancer()
features = torch.tensor(bunch.data, dtype=torch.float)
features = (features - features.mean(0)) / features.std(0)
labels = torch.tensor(bunch.target, dtype=torch.float)

model = Net()
if cured:
    for m in model.children():
        nn.init.kaiming_uniform_(m.weight, nonlinearity="leaky_relu")
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
running = []
for epoch in range(16):
    order = torch.randperm(len(features))
    for chunk in order.split(32):
        optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(model(features[chunk]), labels[chunk])
        loss.backward()
        optimizer.step()
        running.append(loss.detach())
final = torch.stack(running[-17:]).mean().item()
print(f"final loss: {final:.6f}")
