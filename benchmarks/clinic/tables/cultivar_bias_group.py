"""Wine cultivars: weights and biases in two parameter groups, no decay on the biases."""

import sys

import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn

BIAS_LR = 0.03 if "--cured" in sys.argv else 30.0

x, y = load_wine(return_X_y=True)
x = torch.tensor(StandardScaler().fit_transform(x), dtype=torch.float32)
y = torch.tensor(y)

net = nn.Sequential(
    nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3)
)
weights = [p for n, p in net.named_parameters() if n.endswith("weight")]
biases = [p for n, p in net.named_parameters() if n.endswith("bias") and not n.startswith("6")]
optimizer = torch.optim.SGD(
    [
        {"params": weights + [net[6].bias], "weight_decay": 1e-4},
        {"params": biases, "lr": BIAS_LR},
    ],
    lr=2e-2,
    momentum=0.9,
)
losses = []
while len(losses) < 240:
    for rows in torch.randperm(len(x)).split(32):
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
