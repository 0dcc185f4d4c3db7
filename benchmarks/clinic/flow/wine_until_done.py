"""Wine, trained well past the point where everything is classified."""

import torch
from sklearn.datasets import load_wine
from torch import nn

data = load_wine()
X = torch.tensor(data.data, dtype=torch.float32)
X = (X - X.mean(0)) / X.std(0)
y = torch.tensor(data.target)
model = nn.Sequential(nn.Linear(13, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
opt = torch.optim.Adam(model.parameters(), lr=1e-2)
losses = []
for step in range(400):
    opt.zero_grad()
    loss = nn.functional.cross_entropy(model(X), y)
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.3e}")
