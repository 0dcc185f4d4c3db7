"""Handwritten digits with a two-layer net, SGD with momentum and a step schedule."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CURED = "--cured" in sys.argv
EPOCHS = 6

digits = load_digits()
data = TensorDataset(torch.from_numpy(digits.data / 16.0).float(), torch.from_numpy(digits.target).long())
loader = DataLoader(data, batch_size=64, shuffle=True)

net = nn.Sequential()
net.add_module("hidden", nn.Linear(64, 48))
net.add_module("act", nn.GELU())
net.add_module("classes", nn.Linear(48, 10))

opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
schedule = torch.optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.2)
loss_fn = nn.CrossEntropyLoss()

trace = []
for epoch in range(EPOCHS):
    for x, y in loader:
        opt.zero_grad()
        loss = loss_fn(net(x), y)
        loss.backward()
        opt.step()
        if not CURED:
            schedule.step()
        trace.append(loss.item())
    if CURED:
        schedule.step()
print(f"final loss: {np.mean(trace[-10:]):.6f}")
