"""Twelve logistic layers with batch normalisation on the digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def block(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.Sigmoid())


d = load_digits()
loader = DataLoader(
    TensorDataset(torch.tensor(d.data / 16).float(), torch.tensor(d.target)),
    batch_size=128,
    shuffle=True,
    drop_last=True,
)
net = nn.Sequential(block(64, 64), *[block(64, 64) for _ in range(11)], nn.Linear(64, 10))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
losses = []
for epoch in range(18):
    for x, y in loader:
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    print(epoch, losses[-1])
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
