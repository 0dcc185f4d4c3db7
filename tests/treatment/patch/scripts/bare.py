import math

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, n=10, depth=4):
        super().__init__()
        self.w = nn.ParameterList([nn.Parameter(torch.randn(n, n) / math.sqrt(n)) for _ in range(depth)])
        self.out = nn.Parameter(torch.zeros(n, 2).normal_(std=0.1))
        self.shift = nn.Parameter(torch.zeros(n))

    def forward(self, x):
        for w in self.w:
            x = torch.tanh(x @ w + self.shift)
        return x @ self.out


net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(20):
    x = torch.randn(16, 10)
    loss = nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long())
    opt.zero_grad()
    loss.backward()
    opt.step()
