"""DDPM on tiny gratings: a U-Net with group norm, time embedding and a zero-initialised last convolution."""

import math

import torch
import torch.nn.functional as F
from torch import nn

STEPS = 100
alpha_bar = torch.cos(torch.linspace(0.02, 1.45, STEPS)) ** 2


def time_features(t, dim=16):
    freq = torch.exp(-math.log(1000.0) * torch.arange(dim // 2) / (dim // 2))
    angle = t[:, None].float() * freq
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ResBlock(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(4, cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.time = nn.Linear(16, cout)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x, t):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(t)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class UNet(nn.Module):
    def __init__(self, c=12):
        super().__init__()
        self.stem = nn.Conv2d(1, c, 3, padding=1)
        self.down = ResBlock(c, c)
        self.mid = ResBlock(c, 2 * c)
        self.up = ResBlock(3 * c, c)
        self.out = nn.Conv2d(c, 1, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, t):
        t = time_features(t)
        a = self.down(self.stem(x), t)
        b = self.mid(F.avg_pool2d(a, 2), t)
        return self.out(self.up(torch.cat([a, F.interpolate(b, scale_factor=2.0)], dim=1), t))


def gratings(n):
    grid = torch.arange(8.0) * 0.8
    phase, tilt = torch.rand(2, n, 1, 1) * 2 * math.pi
    return (1.4 * torch.sin(tilt.cos() * grid[None, :, None] + tilt.sin() * grid[None, None, :] + phase))[:, None]


model = UNet()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
losses = []
for _ in range(220):
    x0 = gratings(12)
    t = torch.randint(0, STEPS, (len(x0),))
    a = alpha_bar[t].view(-1, 1, 1, 1)
    eps = torch.randn_like(x0)
    loss = F.mse_loss(model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t), eps)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
