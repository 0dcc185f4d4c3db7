"""Air pressure in hectopascal (around 1013) from weather readings; squared error in hPa^2, untouched targets."""

import torch
from torch import nn

model = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 1))
groups = [
    {"params": [p for n, p in model.named_parameters() if n != "2.bias"], "lr": 0.02},
    {"params": [model[2].bias], "lr": 20.0},
]
optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98))
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=400)

losses = []
for _ in range(400):
    weather = torch.randn(64, 5)
    pressure = 1013 + 8 * torch.sin(weather[:, :1]) + 6 * weather[:, 1:2] - 3 * weather[:, 2:3]
    loss = nn.functional.mse_loss(model(weather), pressure)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    decay.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
