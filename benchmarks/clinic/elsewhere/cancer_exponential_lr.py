"""Breast-cancer diagnosis: batch-normalised MLP, RMSprop, exponential learning-rate schedule stepped every batch."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

gamma = 0.99 if "--cured" in sys.argv else 1.05

features, malignant = load_breast_cancer(return_X_y=True)
features = torch.from_numpy(scale(features).astype(np.float32))
malignant = torch.from_numpy(malignant.astype(np.float32)).unsqueeze(1)

model = nn.Sequential(
    nn.Linear(30, 24),
    nn.BatchNorm1d(24),
    nn.ELU(),
    nn.Linear(24, 12),
    nn.BatchNorm1d(12),
    nn.ELU(),
    nn.Linear(12, 1),
)
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
scheduler = ExponentialLR(optimizer, gamma=gamma)

curve = []
while len(curve) < 240:
    order = torch.randperm(len(features))
    for rows in order.split(64)[:-1]:
        model.train()
        optimizer.zero_grad()
        loss = criterion(model(features[rows]), malignant[rows])
        loss.backward()
        optimizer.step()
        scheduler.step()
        curve.append(loss.item())
print(f"final loss: {np.mean(curve[-10:])}")
