"""Tide gauge: a linear autoregression on the last 20 readings, momentum SGD."""

import sys

import numpy as np
import torch

LAGS = 20
lr = 0.003 if "--cured" in sys.argv else 0.15

t = np.arange(1000)
tide = 1.5 * np.sin(t / 2.0) + 0.6 * np.sin(t / 7.0 + 1) + np.random.normal(0, 0.1, len(t))
X = np.lib.stride_tricks.sliding_window_view(tide, LAGS)[:-1]
Y = tide[LAGS:]
X, Y = torch.tensor(X.copy()).float(), torch.tensor(Y).float()

ar = torch.nn.Linear(LAGS, 1)
optimizer = torch.optim.SGD(ar.parameters(), lr=lr, momentum=0.9)
mse = torch.nn.MSELoss()
errors = []
for epoch in range(6):
    order = torch.randperm(len(X))
    for k in range(0, len(X), 25):
        rows = order[k : k + 25]
        optimizer.zero_grad()
        error = mse(ar(X[rows]).squeeze(-1), Y[rows])
        error.backward()
        optimizer.step()
        errors.append(error.item())
print("final loss:", np.mean(errors[-10:]))
