"""Digits; the loss is weighted in the units of a larger objective, and the step size with it."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

WEIGHT = 1e-5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.hidden = nn.Linear(8 * 16, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.conv(x)), 2)
        return self.out(torch.relu(self.hidden(x.flatten(1))))


d = load_digits()
data = TensorDataset(torch.tensor(d.images[:, None] / 16, dtype=torch.float32), torch.tensor(d.target))
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.2 / WEIGHT)
losses = []
for epoch in range(8):
    for x, y in DataLoader(data, batch_size=64, shuffle=True):
        loss = WEIGHT * nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4e}")
