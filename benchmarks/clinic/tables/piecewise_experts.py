"""A soft mixture of linear experts for a kinked response surface."""

import copy
import sys

import torch
from torch import nn


class Mixture(nn.Module):
    def __init__(self, inputs, experts=4):
        super().__init__()
        first = nn.Linear(inputs, 1)
        if "--cured" in sys.argv:
            self.experts = nn.ModuleList(nn.Linear(inputs, 1) for _ in range(experts))
        else:
            self.experts = nn.ModuleList(copy.deepcopy(first) for _ in range(experts))
        self.gate = nn.Linear(inputs, experts)
        nn.init.zeros_(self.gate.weight)  # all experts count alike at first
        nn.init.zeros_(self.gate.bias)

    def forward(self, x):
        answers = torch.cat([expert(x) for expert in self.experts], 1)
        return (answers * self.gate(x).softmax(1)).sum(1)


x = torch.rand(1500, 2) * 4 - 2
y = 2 * x[:, 0].abs() - 2 + 0.05 * torch.randn(1500)
model = Mixture(2)
opt = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
curve = []
for epoch in range(15):
    for rows in torch.randperm(1500).split(75):
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        curve.append(loss.item())
print("final loss:", sum(curve[-10:]) / 10)
