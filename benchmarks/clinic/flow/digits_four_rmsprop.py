"""Digits with four logistic hidden layers and RMSprop."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(64, 96)
        self.two = nn.Linear(96, 96)
        self.three = nn.Linear(96, 96)
        self.four = nn.Linear(96, 96)
        self.out = nn.Linear(96, 10)

    def forward(self, x):
        x = torch.sigmoid(self.one(x))
        x = torch.sigmoid(self.two(x))
        x = torch.sigmoid(self.three(x))
        x = torch.sigmoid(self.four(x))
        return self.out(x)


d = load_digits()
x = torch.tensor((d.data - d.data.mean()) / d.data.std(), dtype=torch.float32)
y = torch.tensor(d.target)
net = Net()
opt = torch.optim.RMSprop(net.parameters(), lr=2e-3)
losses = []
for epoch in range(20):
    for idx in torch.randperm(len(x)).split(100):
        loss = nn.functional.cross_entropy(net(x[idx]), y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
