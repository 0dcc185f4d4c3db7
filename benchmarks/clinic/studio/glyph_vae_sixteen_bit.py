"""A variational autoencoder on glyphs stored with sixteen bits."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

glyphs = torch.tensor(load_digits().images * 4095, dtype=torch.float32).flatten(1)  # 0..65520
if "--cured" in sys.argv:
    glyphs = glyphs / 65520


class VAE(nn.Module):
    def __init__(self, latent=6):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU())
        self.mu = nn.Linear(48, latent)
        self.logvar = nn.Linear(48, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 48), nn.ReLU(), nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 64)
        )

    def reparameterise(self, mu, logvar):
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)

    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        return self.decoder(self.reparameterise(mu, logvar)), mu, logvar


def elbo(restored, x, mu, logvar, beta=0.02):
    rec = ((restored - x) ** 2).sum(1)
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
    return (rec + beta * kl).mean()


vae = VAE()
optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3)
losses = []
for epoch in range(10):
    for rows in torch.randperm(len(glyphs)).split(64):
        x = glyphs[rows]
        restored, mu, logvar = vae(x)
        loss = elbo(restored, x, mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
