"""A siamese embedding of iris flowers, trained with the contrastive loss on pairs."""

import sys

import torch
from sklearn.datasets import load_iris
from torch import nn

EPS = 1e-8 if "--cured" in sys.argv else 0.0


class Embed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 8))

    def forward(self, a, b):
        diff = self.body(a) - self.body(b)
        return torch.sqrt((diff * diff).sum(dim=1) + EPS)


def contrastive(distance, same, margin=2.0):
    pull = same * distance**2
    push = (1 - same) * torch.clamp(margin - distance, min=0) ** 2
    return (pull + push).mean()


iris = load_iris()
flowers = torch.tensor((iris.data - iris.data.mean(0)) / iris.data.std(0), dtype=torch.float32)
species = torch.tensor(iris.target)
# every flower against the one `gap` places on, over and over: all pairs come in turn
gaps = [7, 55, 101, 23, 67, 88, 13, 120, 39, 71]
model = Embed()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
losses = []
for step in range(240):
    gap = gaps[step % len(gaps)] + step // len(gaps)
    order = torch.randperm(150)
    left, right = order, (order + gap) % 150
    same = (species[left] == species[right]).float()
    loss = contrastive(model(flowers[left], flowers[right]), same)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
