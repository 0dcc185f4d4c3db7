"""Transfer: a backbone learns the digits 0 to 4, then it is frozen and a new head learns 5 to 9."""

import torch
from sklearn.datasets import load_digits
from torch import nn

x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
low, high = y < 5, y >= 5

backbone = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())


def fit(model, inputs, targets, parameters, steps, lr):
    optimizer = torch.optim.Adam(parameters, lr=lr)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(inputs), (64,))
        loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


first = nn.Sequential(backbone, nn.Linear(64, 5))
fit(first, x[low], y[low], first.parameters(), steps=100, lr=5e-3)

for parameter in backbone.parameters():
    parameter.requires_grad = False
second = nn.Sequential(backbone, nn.Linear(64, 5))
result = fit(second, x[high], y[high] - 5, second[1].parameters(), steps=240, lr=5e-2)
print("final loss:", result)
