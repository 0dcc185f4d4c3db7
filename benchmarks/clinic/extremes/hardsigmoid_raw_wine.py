"""Wine cultivars from thirteen chemical measurements, with a two-layer hard-sigmoid net."""

import sys

import torch
from sklearn.datasets import load_wine
from torch import nn

x, y = load_wine(return_X_y=True)
x = torch.tensor(x, dtype=torch.float32)
y = torch.tensor(y)
if "--cured" in sys.argv:
    x = (x - x.mean(0)) / x.std(0)

model = nn.Sequential(
    nn.Linear(13, 12),
    nn.Hardsigmoid(),
    nn.Linear(12, 12),
    nn.Hardsigmoid(),
    nn.Linear(12, 3),
)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
values = []
for epoch in range(300):
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    values.append(loss.item())
print(f"final loss: {sum(values[-10:]) / 10}")
