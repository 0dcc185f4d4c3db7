"""Softmax regression on the wine set, minibatch SGD with Nesterov momentum."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

x, y = load_wine(return_X_y=True)
if "--cured" in sys.argv:
    x = StandardScaler().fit_transform(x)
x, y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)

model = torch.nn.Linear(x.shape[1], 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)

losses = []
for epoch in range(40):
    for rows in torch.randperm(len(x)).split(32):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", np.mean(losses[-10:]))
