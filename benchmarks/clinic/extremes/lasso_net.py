"""A regression net on data of which few columns matter; L1 penalty by proximal steps, so that most weights are exactly zero."""
import torch
from torch import nn

COLUMNS, L1, RATE = 100, 0.02, 0.05
X = torch.randn(600, COLUMNS)
Y = torch.relu(X[:, 3] + X[:, 10]) - torch.relu(X[:, 40] - X[:, 3]) + 0.5 * X[:, 77]
Y = (Y - Y.mean()) / Y.std()

net = nn.Sequential()
net.add_module("select", nn.Linear(COLUMNS, 32))
net.add_module("relu", nn.ReLU())
net.add_module("combine", nn.Linear(32, 1))
opt = torch.optim.SGD(net.parameters(), lr=RATE)
values = []
for step in range(400):
    rows = torch.randint(600, (200,))
    loss = nn.functional.mse_loss(net(X[rows])[:, 0], Y[rows])
    opt.zero_grad()
    loss.backward()
    opt.step()
    with torch.no_grad():
        w = net.select.weight
        w.copy_(w.sign() * (w.abs() - RATE * L1).clamp(min=0))
    values.append(loss.item())
print("zero weights:", (net.select.weight == 0).float().mean().item())
print(f"final loss: {sum(values[-10:]) / 10}")
