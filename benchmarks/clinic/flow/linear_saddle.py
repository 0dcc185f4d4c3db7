"""Matrix recovery with a three-factor linear network from a small start (Saxe et al.)."""

import torch
from torch import nn


class Product(nn.Module):
    def __init__(self, dim=12, rank=12):
        super().__init__()
        self.u = nn.Linear(dim, rank, bias=False)
        self.v = nn.Linear(rank, rank, bias=False)
        self.w = nn.Linear(rank, dim, bias=False)
        for m in (self.u, self.v, self.w):
            nn.init.normal_(m.weight, std=0.04)

    def forward(self, x):
        return self.w(self.v(self.u(x)))


a = torch.linalg.qr(torch.randn(12, 3))[0]
b = torch.linalg.qr(torch.randn(12, 3))[0]
teacher = 2.0 * a @ b.T
x = torch.randn(400, 12)
y = x @ teacher.T
net = Product()
opt = torch.optim.SGD(net.parameters(), lr=0.16)
history = []
for step in range(400):
    loss = ((net(x) - y) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    history.append(loss.item())
    if step % 40 == 0:
        print(step, f"{loss.item():.4f}")
print(f"final loss: {sum(history[-10:]) / 10:.5f}")
