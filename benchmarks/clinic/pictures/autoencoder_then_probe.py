"""First an autoencoder on the digits, then a classifier on its code with the encoder left as it is."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.nn import functional as F

pixels, target = load_digits(return_X_y=True)
pixels = torch.from_numpy(pixels).float() / 16
target = torch.from_numpy(target)


class DigitModel(nn.Module):
    def __init__(self, code=24):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.Mish(), nn.Linear(64, code))
        self.decoder = nn.Sequential(nn.Mish(), nn.Linear(code, 64), nn.Mish(), nn.Linear(64, 64))
        self.classifier = nn.Sequential(nn.Linear(code, 32), nn.Mish(), nn.Linear(32, 10))
        self.temperature = nn.Parameter(torch.ones(()))


def set_trainable(module, flag):
    for p in module.parameters():
        p.requires_grad_(flag)


def minibatches(epochs, size=60):
    for _ in range(epochs):
        yield from torch.randperm(len(pixels)).split(size)


model = DigitModel()
opt = optim.Adam(model.parameters(), lr=3e-3)
for rows in minibatches(3):
    x = pixels[rows]
    reconstruction = F.mse_loss(model.decoder(model.encoder(x)), x)
    opt.zero_grad()
    reconstruction.backward()
    opt.step()
print("reconstruction", reconstruction.item())

set_trainable(model.encoder if "--cured" in sys.argv else model, False)
model.temperature.requires_grad_(True)
opt = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
losses = []
for rows in minibatches(9):
    logits = model.classifier(model.encoder(pixels[rows])) * model.temperature
    loss = F.cross_entropy(logits, target[rows])
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
