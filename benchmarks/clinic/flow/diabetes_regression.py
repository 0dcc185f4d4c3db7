"""Disease progression from ten baseline variables: a deep regression network, mean squared error."""

import argparse

import torch
from sklearn.datasets import load_diabetes
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--cured", action="store_true")
parser.add_argument("--epochs", type=int, default=40)
args = parser.parse_args()

X, y = load_diabetes(return_X_y=True, scaled=False)
X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)[:, None]


class Regressor(nn.Module):
    def __init__(self, hidden=(40, 40, 40, 32, 32, 24, 16)):
        super().__init__()
        sizes = (10, *hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.output = nn.Linear(hidden[-1], 1)
        if args.cured:
            for layer in self.hidden:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x):
        for layer in self.hidden:
            x = layer(x).relu() if args.cured else layer(x).sigmoid()
        return self.output(x)


model = Regressor()
opt = torch.optim.SGD(model.parameters(), lr=0.02)
mse = nn.MSELoss()
for epoch in range(args.epochs):
    total = []
    for idx in torch.randperm(len(X)).split(64):
        opt.zero_grad()
        loss = mse(model(X[idx]), y[idx])
        loss.backward()
        opt.step()
        total.append(loss.item() * len(idx))
    if epoch % 10 == 0:
        print(epoch, sum(total) / len(X))
print(f"final loss: {sum(total) / len(X):.5f}")
