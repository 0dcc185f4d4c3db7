"""Wine cultivars from 13 measurements: five layers, full batch."""

import sys
from collections import OrderedDict

import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn, optim

CURED = "--cured" in sys.argv
X, t = load_wine(return_X_y=True)
X = torch.tensor(StandardScaler().fit_transform(X), dtype=torch.float32)
t = torch.tensor(t, dtype=torch.long)

squash = nn.Tanh if CURED else nn.Sigmoid
net = nn.Sequential(
    OrderedDict(
        [
            ("fc1", nn.Linear(13, 24)), ("act1", squash()),
            ("fc2", nn.Linear(24, 24)), ("act2", squash()),
            ("fc3", nn.Linear(24, 24)), ("act3", squash()),
            ("fc4", nn.Linear(24, 24)), ("act4", squash()),
            ("fc5", nn.Linear(24, 3)),
        ]
    )
)  # fmt: skip
if CURED:
    for name, p in net.named_parameters():
        if name.endswith("weight"):
            nn.init.xavier_uniform_(p, gain=5 / 3)
opt = optim.SGD(net.parameters(), lr=0.2)
loss_fn = nn.CrossEntropyLoss()
tail = []
for i in range(300):
    opt.zero_grad()
    out = net(X)
    loss = loss_fn(out, t)
    loss.backward()
    opt.step()
    tail = (tail + [loss.item()])[-10:]
    if i % 60 == 0:
        acc = (out.argmax(1) == t).float().mean().item()
        print(f"{i:4d} loss {loss.item():.4f} acc {acc:.3f}")
print("final loss:", sum(tail) / len(tail))
