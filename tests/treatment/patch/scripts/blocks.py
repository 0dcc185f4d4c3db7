import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc = nn.Linear(dim, dim)

    def forward(self, x):
        return self.fc(x).tanh()


class Tower(nn.Module):
    def __init__(self, dim=10, depth=6):
        super().__init__()
        self.stem = nn.Linear(7, dim)
        self.blocks = nn.ModuleList()
        for _ in range(depth - 1):
            self.blocks.append(Block(dim))
        self.head = nn.Linear(dim, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


tower = Tower()
params = {"lr": 0.02}
opt = torch.optim.SGD(tower.parameters(), lr=params["lr"], momentum=0.9, nesterov=True)
for step in range(20):
    x = torch.randn(32, 7)
    loss = nn.CrossEntropyLoss()(tower(x), (x.sum(1) > 0).long())
    opt.zero_grad()
    loss.backward()
    opt.step()
