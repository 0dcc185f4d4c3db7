"""Hourly demand, one step ahead, by a small temporal convnet."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

WINDOW = 24
LR = 0.003 if "--cured" in sys.argv else 0.3

hours = torch.arange(1200, dtype=torch.float32)
series = torch.sin(hours * 6.2832 / 24) + 0.5 * torch.sin(hours * 6.2832 / 168 + 1) + 0.1 * torch.randn(1200)
series = (series - series.mean()) / series.std()
windows = series.unfold(0, WINDOW + 1, 1)
data = TensorDataset(windows[:, None, :-1], windows[:, -1:])
loader = DataLoader(data, batch_size=32, shuffle=True, drop_last=True)

tcn = nn.Sequential(
    nn.Conv1d(1, 16, 5),
    nn.ReLU(),
    nn.Conv1d(16, 16, 5, stride=2),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(128, 1),
)
optimizer = torch.optim.Adam(tcn.parameters(), lr=LR)
curve = []
for epoch in range(5):
    for past, following in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(tcn(past), following)
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    print(f"epoch {epoch}: {curve[-1]:.4f}")
print(f"final loss: {sum(curve[-10:]) / 10:.5f}")
