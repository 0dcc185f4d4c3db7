"""A variational autoencoder of the breast cancer table."""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn.functional import softplus

table = torch.from_numpy(load_breast_cancer().data).float()
table = (table - table.mean(0)) / table.std(0)


class VAE(nn.Module):
    def __init__(self, n_in=30, n_hidden=48, n_latent=5):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU())
        self.to_mean = nn.Linear(n_hidden, n_latent)
        self.to_var = nn.Linear(n_hidden, n_latent)
        nn.init.ones_(self.to_var.bias)
        self.decoder = nn.Sequential(nn.Linear(n_latent, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_in))

    def forward(self, x):
        h = self.encoder(x)
        mean, var = self.to_mean(h), self.to_var(h)
        if "--cured" in sys.argv:
            var = softplus(var)
        std = var.sqrt()
        z = mean + std * torch.randn_like(std)
        kl = 0.5 * (mean**2 + var - 1 - torch.log(var)).sum(1)
        reconstruction = ((self.decoder(z) - x) ** 2).sum(1)
        return (reconstruction + 0.5 * kl).mean()


vae = VAE()
opt = torch.optim.Adamax(vae.parameters(), lr=1.5e-3)
elbo = []
for epoch in range(24):
    order = torch.randperm(len(table))
    for start in range(0, len(table), 48):
        loss = vae(table[order[start : start + 48]])
        opt.zero_grad()
        loss.backward()
        opt.step()
        elbo.append(loss.item())
    print(epoch, elbo[-1])
print("final loss:", sum(elbo[-10:]) / 10)
