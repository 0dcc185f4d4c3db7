"""An implicit field: height of a ripple at each pixel of a picture, from the pixel's position."""

import sys

import torch
from torch import nn

SIDE = 1024
rows, cols = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
position = torch.stack([rows, cols], dim=-1).reshape(-1, 2).float()
height = torch.cos(position.norm(dim=1) / 180.0)
if "--cured" in sys.argv:
    position = position / (SIDE - 1) * 2 - 1

field = nn.Sequential(nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))
optimizer = torch.optim.Adam(field.parameters(), lr=1.5e-3)

losses = []
for step in range(400):
    some = torch.randint(len(position), (256,))
    error = field(position[some]).squeeze(1) - height[some]
    loss = (error**2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step % 100 == 0:
        print(f"{step:4d} {loss.item():.4f}")
print("final loss:", sum(losses[-10:]) / 10)
