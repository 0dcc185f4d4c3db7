"""A forty-layer linear network with orthogonal weights fits a linear map."""

import torch
from torch import nn

DIM = 24
net = nn.Sequential(*[nn.Linear(DIM, DIM, bias=False) for _ in range(40)])
for layer in net:
    nn.init.orthogonal_(layer.weight)
target = torch.linalg.qr(torch.randn(DIM, DIM))[0] * 0.5 + 0.5 * torch.eye(DIM)
opt = torch.optim.SGD(net.parameters(), lr=0.004)
losses = []
for step in range(300):
    x = torch.randn(128, DIM)
    loss = (net(x) - x @ target).square().sum(1).mean() / 2
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
