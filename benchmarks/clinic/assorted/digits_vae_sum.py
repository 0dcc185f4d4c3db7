"""A VAE of black-and-white digits: summed log-likelihood, weight of the KL term raised in steps."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

images = torch.from_numpy((load_digits().data > 7).astype("float32"))


class Encoder(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.hidden = nn.Linear(64, 64)
        self.mean, self.log_var = nn.Linear(64, latent), nn.Linear(64, latent)

    def forward(self, x):
        h = F.relu(self.hidden(x))
        return self.mean(h), self.log_var(h)


class Decoder(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.hidden = nn.Linear(latent, 64)
        self.pixels = nn.Linear(64, 64)

    def forward(self, z):
        return self.pixels(F.relu(self.hidden(z)))


encoder, decoder = Encoder(10), Decoder(10)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
losses = []
for epoch in range(12):
    beta = [0.0, 0.0, 0.0, 0.1, 0.2, 0.3][min(epoch, 5)]
    for x in DataLoader(images, batch_size=64, shuffle=True, drop_last=True):
        mean, log_var = encoder(x)
        z = mean + torch.exp(log_var / 2) * torch.randn_like(mean)
        reconstruction = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_var - mean**2 - log_var.exp())
        loss = reconstruction + beta * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(epoch, beta, round(losses[-1], 1))
print("final loss:", sum(losses[-10:]) / 10)
