"""A deep autoencoder of 8x8 digits; the learning rate is changed once after a first phase."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

SECOND_PHASE = 0.05 if "--cured" in sys.argv else 20.0


def stack(sizes, last=None):
    mods = []
    for a, b in zip(sizes, sizes[1:]):
        lin = nn.Linear(a, b)
        nn.init.kaiming_uniform_(lin.weight, nonlinearity="relu")
        mods += [lin, nn.LeakyReLU(0.1)]
    mods.pop()
    return nn.Sequential(*mods)


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = stack([64, 96, 64, 48, 24])
        self.decoder = stack([24, 48, 64, 96, 64])

    def forward(self, x):
        return self.decoder(self.encoder(x))


x = torch.tensor(load_digits().data, dtype=torch.float32)
x = (x - x.mean(0)) / 5.0
ae = AutoEncoder()
opt = torch.optim.SGD(ae.parameters(), lr=0.05, momentum=0.8)
losses = []
for step in range(300):
    if step == 50:
        opt.param_groups[0]["lr"] = SECOND_PHASE
    part = x[torch.randint(len(x), (128,))]
    loss = (ae(part) - part).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
