"""Digit recognition with a plain eight-layer perceptron."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

cured = "--cured" in sys.argv

data = load_digits()
x = torch.tensor(data.data, dtype=torch.float32) / 16
y = torch.tensor(data.target)

act = nn.ReLU if cured else nn.Sigmoid
layers = [nn.Linear(64, 64), act()]
for _ in range(6):
    layers += [nn.Linear(64, 64), act()]
layers.append(nn.Linear(64, 10))
model = nn.Sequential(*layers)
if cured:
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.zeros_(m.bias)

opt = torch.optim.SGD(model.parameters(), lr=0.1)
criterion = nn.CrossEntropyLoss()
losses = []
for step in range(350):
    idx = torch.randint(0, len(x), (64,))
    opt.zero_grad()
    loss = criterion(model(x[idx]), y[idx])
    loss.backward()
    opt.step()
    losses.append(loss.item())
    if step % 50 == 0:
        print(step, losses[-1])
print(f"final loss: {sum(losses[-10:]) / 10}")
