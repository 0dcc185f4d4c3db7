"""A wide digits classifier kept wholly in bfloat16 to save memory, plain SGD."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

net = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
for layer in net[::2]:
    nn.init.kaiming_normal_(layer.weight)
dtype = torch.float32 if "--cured" in sys.argv else torch.bfloat16
net = net.to(dtype)

digits = load_digits()
x = torch.tensor((digits.data - 4.9) / 6.0).to(dtype)
y = torch.tensor(digits.target)
optimizer = torch.optim.SGD(net.parameters(), lr=5e-4)
losses = []
for step in range(400):
    i = torch.randint(len(x), (128,))
    loss = nn.functional.cross_entropy(net(x[i]).float(), y[i])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
