"""Transfer: pretrain a network on the digits 0-4, then freeze its body and train a new head for 5-9."""

import torch
from sklearn.datasets import load_digits
from torch import nn

d = load_digits()
x = torch.tensor(d.data, dtype=torch.float32) / 16
y = torch.tensor(d.target)
low, high = y < 5, y >= 5

body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())


def fit(model, params, x, y, steps, lr):
    opt = torch.optim.Adam(params, lr=lr)
    losses = []
    for _ in range(steps):
        i = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(model(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


first = nn.Sequential(body, nn.Linear(128, 5))
print("pretraining", fit(first, first.parameters(), x[low], y[low], 200, 3e-3))

for p in body.parameters():
    p.requires_grad_(False)
second = nn.Sequential(body, nn.Linear(128, 5))
print("final loss:", fit(second, second[1].parameters(), x[high], y[high] - 5, 250, 3e-2))
