"""A little GAN: points on a ring. The critic gets a head start."""

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

BATCH, NOISE = 64, 4


def real_points():
    angle = 2 * math.pi * torch.rand(BATCH)
    return torch.stack([4 + angle.cos(), 4 + angle.sin()], dim=1) + 0.05 * torch.randn(BATCH, 2)


generator = nn.Sequential(nn.Linear(NOISE, 32), nn.ReLU(), nn.Linear(32, 2))
critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
g_opt = torch.optim.SGD(generator.parameters(), lr=0.02)
d_opt = torch.optim.Adam(critic.parameters(), lr=2e-3)


def train_critic():
    fake = generator(torch.randn(BATCH, NOISE)).detach()
    d_loss = -(F.logsigmoid(critic(real_points())) + F.logsigmoid(-critic(fake))).mean()
    d_opt.zero_grad()
    d_loss.backward()
    d_opt.step()


def train_generator():
    fake = generator(torch.randn(BATCH, NOISE))
    verdict = critic(fake)
    if "--cured" in sys.argv:
        g_loss = -F.logsigmoid(verdict).mean()
    else:
        g_loss = F.logsigmoid(-verdict).mean()
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
    real = real_points()
    return ((fake.mean(0) - real.mean(0)) ** 2).sum().item()


for _ in range(150):
    train_critic()
gap = []
for step in range(250):
    train_critic()
    gap.append(train_generator())
    if step % 50 == 0:
        print(step, gap[-1])
print("final loss:", sum(gap[-10:]) / 10)
