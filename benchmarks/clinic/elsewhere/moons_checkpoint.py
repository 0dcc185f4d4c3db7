"""Two moons: a model is built, its start is kept as a checkpoint, and training begins from the checkpoint."""

import sys

import torch
from sklearn.datasets import make_moons
from torch import nn


def build():
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))


def optimizer_for(model):
    return torch.optim.Adam(model.parameters(), lr=0.01)


points, moon = make_moons(600, noise=0.1)
points = torch.tensor(points, dtype=torch.float32)
moon = torch.tensor(moon, dtype=torch.float32).reshape(-1, 1)

model = build()
optimizer = optimizer_for(model)
checkpoint = {k: v.clone() for k, v in model.state_dict().items()}

model = build()
model.load_state_dict(checkpoint)
if "--cured" in sys.argv:
    optimizer = optimizer_for(model)

record = []
for step in range(200):
    model.zero_grad()
    rows = torch.randint(len(points), (64,))
    loss = nn.functional.binary_cross_entropy_with_logits(model(points[rows]), moon[rows])
    loss.backward()
    optimizer.step()
    record.append(loss.item())
print(f"final loss: {sum(record[-10:]) / 10}")
