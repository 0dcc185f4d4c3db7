"""Control flow on the data: no symbolic trace."""

import torch
from torch import nn


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.b = nn.Linear(5, 5)
        self.c = nn.Linear(5, 2)

    def forward(self, x):
        x = torch.sigmoid(self.a(x))
        if x.mean() > -1:
            x = torch.sigmoid(self.b(x))
        return self.c(x)


model = Branching()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(20):
    x = torch.randn(10, 5)
    loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
