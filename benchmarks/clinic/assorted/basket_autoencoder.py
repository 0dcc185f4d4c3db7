"""Shopping baskets (few of many goods) through a bottleneck; the output starts at each good's base rate."""

import sys

import numpy as np
import torch
from torch import nn

GOODS, RECIPES, CODE = 90, 12, 10
recipes = np.array([np.random.choice(GOODS, 5, replace=False) for _ in range(RECIPES)])


def baskets(n):
    rows = np.zeros((n, GOODS), dtype=np.float32)
    for row, picks in zip(rows, recipes[np.random.randint(RECIPES, size=n)]):
        row[picks] = 1
    return torch.from_numpy(rows)


class BasketNet(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(GOODS, 48), nn.GELU(), nn.Linear(48, CODE))
        self.widen = nn.Sequential(nn.Linear(CODE, 48), nn.GELU())
        self.goods = nn.Linear(48, GOODS)
        self.out = nn.Sigmoid() if "--cured" in sys.argv else nn.ReLU()
        with torch.no_grad():
            rate = rate.clamp(0.02, 0.98)
            self.goods.bias.copy_(torch.log(rate / (1 - rate)))

    def forward(self, x):
        return self.out(self.goods(self.widen(self.encode(x))))


data = baskets(1500)
net = BasketNet(data.mean(0))
optimizer = torch.optim.NAdam(net.parameters(), lr=4e-3)
losses = []
for epoch in range(8):
    for batch in data[torch.randperm(len(data))].split(40):
        loss = ((net(batch) - batch) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", np.mean(losses[-10:]))
