"""Find the item of the wanted kind in a set and report its price: score the items, pick one, regress."""

import sys

import torch
from torch import nn

KINDS, ITEMS = 12, 8


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.sub_(group["lr"] * (b1 * m + (1 - b1) * p.grad).sign())
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


def shopping(n=64):
    kinds = torch.rand(n, KINDS).argsort(1)[:, :ITEMS]
    prices = torch.randn(n, ITEMS)
    which = torch.randint(ITEMS, (n, 1))
    items = torch.cat([nn.functional.one_hot(kinds, KINDS).float(), prices[..., None]], -1)
    return items, kinds.gather(1, which).squeeze(1), prices.gather(1, which)


class Picker(nn.Module):
    def __init__(self):
        super().__init__()
        self.wanted = nn.Embedding(KINDS, 24)
        self.offer = nn.Linear(KINDS + 1, 24)
        self.price = nn.Sequential(nn.Linear(KINDS + 1, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, items, wanted):
        scores = (self.offer(items) @ self.wanted(wanted).unsqueeze(-1)).squeeze(-1)
        if "--cured" in sys.argv:
            picked = (scores.softmax(-1)[..., None] * items).sum(1)
        else:
            picked = items[torch.arange(len(items)), scores.argmax(-1)]
        return self.price(picked)


net = Picker()
opt = Lion(net.parameters(), lr=3e-3)
losses = []
for _ in range(300):
    items, wanted, target = shopping()
    loss = nn.functional.mse_loss(net(items, wanted), target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
