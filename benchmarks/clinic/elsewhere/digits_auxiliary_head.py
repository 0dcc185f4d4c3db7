"""Digits with an auxiliary parity head that is trained during the first part of the training only."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.digit = nn.Linear(64, 10)
        self.parity = nn.Linear(64, 2)

    def forward(self, x):
        features = self.shared(x)
        return {"digit": self.digit(features), "parity": self.parity(features)}


data = load_digits()
x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
net = TwoHeads()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
cross_entropy = nn.CrossEntropyLoss()
main_losses = []
for step in range(240):
    rows = torch.randint(len(x), (64,))
    out = net(x[rows])
    loss = main = cross_entropy(out["digit"], y[rows])
    if step < 80:
        loss = main + 0.3 * cross_entropy(out["parity"], y[rows] % 2)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    main_losses.append(main.item())
print("final loss:", sum(main_losses[-10:]) / 10)
