"""Compress the digits to twelve numbers and back with a deep autoencoder."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

cured = "--cured" in sys.argv
SIZES = [64, 48, 36, 24, 12]


def mlp(sizes, last_linear):
    mods = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        mods.append(nn.Linear(a, b))
        if not (last_linear and i == len(sizes) - 2):
            mods.append(nn.ELU() if cured else nn.Sigmoid())
    return nn.Sequential(*mods)


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = mlp(SIZES, last_linear=False)
        self.decoder = mlp(SIZES[::-1], last_linear=True)

    def forward(self, x):
        return self.decoder(self.encoder(x))


model = AutoEncoder()
if cured:
    for p in model.parameters():
        if p.dim() == 2:
            nn.init.xavier_normal_(p, gain=1.2)
pixels = torch.tensor(load_digits().data, dtype=torch.float32) / 16
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
losses = []
for epoch in range(28):
    for x in DataLoader(pixels, batch_size=128, shuffle=True):
        loss = (model(x) - x).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-15:]) / 15:.5f}")
