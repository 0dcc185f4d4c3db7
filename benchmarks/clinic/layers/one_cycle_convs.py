"""Super-convergence on the digits: a plain conv net, Nesterov momentum and one cycle of the learning rate."""

import sys
from statistics import fmean

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

BATCH, EPOCHS = 64, 8
PEAK = 0.06 if "--cured" in sys.argv else 3.0

data = load_digits()
x = torch.as_tensor(data.images[:, None] / 16.0, dtype=torch.float32)
y = torch.as_tensor(data.target)


def block(inp, out):
    return [nn.Conv2d(inp, out, 3, padding=1), nn.ReLU(inplace=True)]


model = nn.Sequential(
    *block(1, 10), *block(10, 20), nn.MaxPool2d(2), *block(20, 20), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(80, 40), nn.ReLU(), nn.Linear(40, 10),
)
for layer in model:
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(layer.weight)
steps = EPOCHS * ((len(x) + BATCH - 1) // BATCH)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
scheduler = OneCycleLR(optimizer, max_lr=PEAK, total_steps=steps, pct_start=0.3)

losses = []
for epoch in range(EPOCHS):
    for rows in torch.randperm(len(x)).split(BATCH):
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
print("final loss:", fmean(losses[-10:]))
