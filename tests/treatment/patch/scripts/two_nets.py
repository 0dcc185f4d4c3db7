"""A generator and a discriminator from one helper, two optimizers."""

import torch
import torch.nn.functional as F
from torch import nn


def mlp(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, n_out))


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 12)
        self.two = nn.Linear(12, 12)
        self.three = nn.Linear(12, 1)

    def forward(self, x):
        x = F.leaky_relu(self.one(x), 0.2)
        x = F.leaky_relu(self.two(x), 0.2)
        return self.three(x)


D, G, E = Discriminator(), mlp(3, 2), mlp(2, 3)
d_opt = torch.optim.Adam(D.parameters(), lr=1e-3)
g_opt = torch.optim.Adam(list(G.parameters()) + list(E.parameters()), lr=1e-3)
for step in range(20):
    real, fake = torch.randn(32, 2) + 2, G(torch.randn(32, 3))
    d_loss = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
    d_opt.zero_grad()
    d_loss.backward()
    d_opt.step()
    g_loss = F.softplus(-D(fake)).mean() + (E(fake) ** 2).mean() * 1e-3
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
