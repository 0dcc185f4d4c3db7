"""Compress 8x8 scans to sixteen numbers with a stacked autoencoder."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

SIZES = [64, 56, 48, 32, 16]
unit = nn.ELU if "--cured" in sys.argv else nn.Sigmoid


def stack(sizes):
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), unit()]
    return layers


class StackedCoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(*stack(SIZES))
        self.decoder = nn.Sequential(*stack(SIZES[::-1])[:-1], nn.Sigmoid())

    def forward(self, x):
        code = self.encoder(x)
        return self.decoder(code), code


scans = torch.tensor(load_digits().data, dtype=torch.float32) / 16
loader = DataLoader(scans, batch_size=64, shuffle=True, drop_last=True)
coder = StackedCoder()
optimizer = torch.optim.RMSprop(coder.parameters(), lr=2e-3)
history = []
for epoch in range(10):
    for batch in loader:
        restored, _ = coder(batch)
        loss = nn.functional.mse_loss(restored, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    print(f"epoch {epoch}: {sum(history[-20:]) / 20:.5f}")
print(f"final loss: {sum(history[-10:]) / 10:.5f}")
