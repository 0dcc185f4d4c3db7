"""A diffusion model that is trained to recover the clean picture (the x0 parametrisation), on bars and gradients."""

import sys

import torch
from torch import nn

T = 50
betas = torch.linspace(1e-4, 0.05, T)
if "--cured" in sys.argv:
    alpha_bar = torch.cumprod(1.0 - betas, dim=0)
else:
    alpha_bar = torch.cumprod(betas, dim=0)


def pictures(n, side=8):
    ramp = torch.linspace(-1, 1, side)
    a, b = torch.randn(2, n, 1, 1)
    picture = a * ramp[None, :, None] + b * ramp[None, None, :]
    bar = torch.randint(0, side, (n,))
    picture[torch.arange(n), bar] += 2 * torch.randn(n, 1)
    return picture.flatten(1)


class Denoiser(nn.Module):
    def __init__(self, pixels=64, hidden=128):
        super().__init__()
        self.time = nn.Embedding(T, hidden)
        self.enter = nn.Linear(pixels, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.leave = nn.Linear(hidden, pixels)
        self.act = nn.SiLU()

    def forward(self, x, t):
        h = self.act(self.enter(x) + self.time(t))
        h = h + self.act(self.middle(h))
        return self.leave(h)


model = Denoiser()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01)
errors = []
for iteration in range(350):
    x0 = pictures(64)
    t = torch.randint(0, T, (64,))
    keep = alpha_bar[t, None]
    xt = keep.sqrt() * x0 + (1 - keep).sqrt() * torch.randn_like(x0)
    loss = nn.functional.mse_loss(model(xt, t), x0)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    errors.append(loss.item())
print("final loss:", sum(errors[-10:]) / 10)
