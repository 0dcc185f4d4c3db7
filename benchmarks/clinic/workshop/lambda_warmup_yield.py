"""Crop yield from weather and soil: ELU network, momentum SGD, linear warm-up by LambdaLR."""
import sys

import torch
from sklearn.datasets import make_friedman1
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

WARMUP = 25
x, y = make_friedman1(n_samples=1000, n_features=8, noise=0.3)
x = torch.as_tensor(x, dtype=torch.float32) * 2 - 1
y = torch.as_tensor(y, dtype=torch.float32)
y = ((y - y.mean()) / y.std()).view(-1, 1)


def warm(step):
    if "--cured" in sys.argv:
        return min(1.0, (step + 1) / WARMUP)
    return (step + 1) / WARMUP


model = nn.Sequential(nn.Linear(8, 48), nn.ELU(), nn.Linear(48, 48), nn.ELU(), nn.Linear(48, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = LambdaLR(optimizer, warm)
criterion = nn.MSELoss()

losses = []
step = 0
while step < 350:
    for idx in torch.randperm(1000).split(40):
        prediction = model(x[idx])
        loss = criterion(prediction, y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        step += 1
        if step % 50 == 0:
            print(step, scheduler.get_last_lr()[0], losses[-1])
print("final loss:", sum(losses[-10:]) / 10)
