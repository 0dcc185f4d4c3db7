"""How deep can an MLP be? Twenty ReLU layers on the digits."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


def build(depth, width):
    dims = [64] + [width] * (depth - 1)
    body = []
    for a, b in zip(dims[:-1], dims[1:]):
        body.append(nn.Linear(a, b))
        body.append(nn.ReLU(inplace=True))
    return nn.Sequential(*body, nn.Linear(width, 10))


X, y = load_digits(return_X_y=True)
Xtr, Xte, ytr, yte = train_test_split(X.astype(np.float32) / 8 - 1, y, test_size=0.2)
Xtr, ytr, Xte, yte = (torch.as_tensor(a) for a in (Xtr, ytr, Xte, yte))
mlp = build(20, 64)
if "--cured" in sys.argv:
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
sgd = torch.optim.SGD(mlp.parameters(), lr=0.01, momentum=0.9)
log = []
for it in range(300):
    pick = np.random.choice(len(Xtr), 64, replace=False)
    loss = nn.functional.cross_entropy(mlp(Xtr[pick]), ytr[pick])
    sgd.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(mlp.parameters(), 5.0)
    sgd.step()
    log.append(loss.item())
with torch.no_grad():
    print("test accuracy", (mlp(Xte).argmax(1) == yte).float().mean().item())
print(f"final loss: {np.mean(log[-10:])}")
