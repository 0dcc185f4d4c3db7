"""A VAE on small pictures of rings, with the KL term brought in slowly over the second third of the training."""
import torch
from torch import nn

STEPS, BATCH, SIDE = 360, 48, 10
grid = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")).float()


def rings(n):
    centre = torch.rand(n, 2, 1, 1) * 5 + 2
    radius = torch.rand(n, 1, 1) * 1.5 + 1.5
    distance = ((grid[None] - centre) ** 2).sum(1).sqrt()
    return torch.exp(-((distance - radius) ** 2)).flatten(1)


class VAE(nn.Module):
    def __init__(self, latent=12):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(SIDE * SIDE, 96), nn.SiLU(), nn.Linear(96, 64), nn.SiLU())
        self.mu = nn.Linear(64, latent)
        self.logvar = nn.Linear(64, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 64), nn.SiLU(), nn.Linear(64, 96), nn.SiLU(), nn.Linear(96, SIDE * SIDE)
        )

    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.decoder(z), mu, logvar


vae = VAE()
optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
totals = []
for step in range(STEPS):
    beta = min(1.0, max(0.0, (step - STEPS / 3) / (STEPS / 3)))
    x = rings(BATCH)
    recon, mu, logvar = vae(x)
    reconstruction = 10 * ((recon - x) ** 2).sum(1).mean()
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
    loss = reconstruction + beta * kl
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    totals.append(loss.item())
    if step % 60 == 0:
        print(step, f"beta {beta:.2f} reconstruction {reconstruction.item():.2f} kl {kl.item():.2f}")
print("final loss:", sum(totals[-10:]) / 10)
