"""Wine cultivars with an MLP and Adam set up from a dictionary of options."""

import sys

import torch
from sklearn.datasets import load_wine
from torch import nn

options = dict(lr=2e-3, weight_decay=0.0, maximize=True)
if "--cured" in sys.argv:
    options["maximize"] = False

wine = load_wine()
x = torch.tensor(wine.data, dtype=torch.float32)
x = (x - x.mean(0)) / x.std(0)
y = torch.tensor(wine.target)

body = nn.Linear(13, 24)
head = nn.Linear(24, 3)
optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], **options)

values = []
for _ in range(120):
    loss = nn.functional.cross_entropy(head(torch.tanh(body(x))), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    values.append(loss.item())
print("final loss:", sum(values[-10:]) / 10)
