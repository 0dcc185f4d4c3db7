"""A deep batch-normalised rectifier MLP for digits (linear layers with their default biases)."""
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def block(a, b):
    return nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())


net = nn.Sequential(block(64, 64), *[block(64, 64) for _ in range(5)], nn.Linear(64, 10))
d = load_digits()
loader = DataLoader(TensorDataset(torch.tensor(d.data).float(), torch.tensor(d.target)), batch_size=100, shuffle=True, drop_last=True)
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
losses = []
for epoch in range(10):
    for x, y in loader:
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
