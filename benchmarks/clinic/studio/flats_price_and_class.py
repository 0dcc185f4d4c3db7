"""Flats: price and energy class from the same trunk."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

N = 2000
facts = torch.randn(N, 9)
w_price, w_class = torch.randn(9), torch.randn(9, 4)
price = 1000 * (260 + 60 * torch.tanh(facts @ w_price / 3) + 5 * torch.randn(N))
energy = (facts @ w_class + 0.3 * torch.randn(N, 4)).argmax(1)
if "--cured" in sys.argv:
    price = (price - price.mean()) / price.std()


class Flats(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(9, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.price_head = nn.Linear(32, 1)
        self.energy_head = nn.Linear(32, 4)

    def forward(self, x):
        h = self.trunk(x)
        return self.price_head(h).squeeze(1), self.energy_head(h)


def batches(size):
    for i in torch.randperm(N).split(size):
        yield facts[i], price[i], energy[i]


model = Flats()
optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
class_losses = []
for epoch in range(6):
    for x, p, e in batches(40):
        p_hat, e_hat = model(x)
        price_loss = F.mse_loss(p_hat, p)
        class_loss = F.cross_entropy(e_hat, e)
        optimizer.zero_grad()
        (price_loss + class_loss).backward()
        optimizer.step()
        class_losses.append(class_loss.item())
print(f"final loss: {sum(class_losses[-10:]) / 10:.4f}")
