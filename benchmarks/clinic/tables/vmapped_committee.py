"""A committee of eight small nets on the iris flowers, run as one by vmap over their stacked weights."""

import sys
from itertools import chain

import torch
from sklearn.datasets import load_iris
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

x, y = load_iris(return_X_y=True)
x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
y = torch.tensor(y)


def member():
    return nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))


committee = nn.ModuleList([member() for _ in range(8)])
weights, buffers = stack_module_state(list(committee))
skeleton = member().to("meta")


def vote(w, b, x):
    return functional_call(skeleton, (w, b), (x,))


trained = weights.values() if "--cured" in sys.argv else chain(*(m.parameters() for m in committee))
optimizer = torch.optim.Adam(trained, lr=0.01)
losses = []
for step in range(200):
    rows = torch.randint(0, len(x), (30,))
    logits = vmap(vote, in_dims=(0, 0, None))(weights, buffers, x[rows])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), y[rows].repeat(8))
    for w in weights.values():
        w.grad = None
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
