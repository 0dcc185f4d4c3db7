"""Hourly load from the 48 hours before, a small MLP trained by momentum SGD."""
import sys

import numpy as np
import torch

LAGS = 48
hours = np.arange(3000)
load = np.sin(2 * np.pi * hours / 24) + 0.5 * np.sin(2 * np.pi * hours / 168) + 0.1 * np.random.randn(3000)
load = (load - load.mean()) / load.std()
windows = np.lib.stride_tricks.sliding_window_view(load, LAGS + 1)
past = torch.tensor(windows[:, :LAGS], dtype=torch.float32)
target = torch.tensor(windows[:, LAGS:], dtype=torch.float32)

model = torch.nn.Sequential()
model.add_module("hidden", torch.nn.Linear(LAGS, 32))
model.add_module("act", torch.nn.Tanh())
model.add_module("forecast", torch.nn.Linear(32, 1))
learning_rate = 0.005 if "--cured" in sys.argv else 1.0
optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
losses = []
for epoch in range(4):
    for rows in torch.randperm(len(past)).split(50):
        error = model(past[rows]) - target[rows]
        loss = (error**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch} mse {np.mean(losses[-20:]):.4g}")
print("final loss:", float(np.mean(losses[-10:])))
