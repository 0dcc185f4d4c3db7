"""ReZero: thirty residual blocks that all start switched off, on the wine data."""

import torch
from sklearn.datasets import load_wine
from torch import nn


class ReZero(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.inner = nn.Linear(dim, dim)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.alpha * torch.tanh(self.inner(x))


class Net(nn.Module):
    def __init__(self, dim=24, depth=30):
        super().__init__()
        self.first = nn.Linear(13, dim)
        self.blocks = nn.ModuleList(ReZero(dim) for _ in range(depth))
        self.last = nn.Linear(dim, 3)
        nn.init.zeros_(self.last.weight)

    def forward(self, x):
        x = self.first(x)
        for b in self.blocks:
            x = b(x)
        return self.last(x)


X, y = load_wine(return_X_y=True)
X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
y = torch.tensor(y)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
losses = []
for epoch in range(40):
    for idx in torch.randperm(len(X)).split(45):
        loss = nn.functional.cross_entropy(net(X[idx]), y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
