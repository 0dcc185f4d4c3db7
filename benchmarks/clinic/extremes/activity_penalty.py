"""Wine cultivars, with a penalty on hidden activity that is annealed in so that the code becomes sparse."""

import sys

import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn

STRENGTH = 0.001 if "--cured" in sys.argv else 400.0
STEPS, START = 320, 60


class SparseNet(nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.encode = nn.Linear(13, width)
        self.act = nn.ReLU()
        self.decode = nn.Linear(width, 3)

    def forward(self, x):
        code = self.act(self.encode(x))
        return self.decode(code), code


wine = load_wine()
x = torch.tensor(StandardScaler().fit_transform(wine.data), dtype=torch.float32)
t = torch.tensor(wine.target)
net = SparseNet()
opt = torch.optim.Adam(net.parameters(), lr=0.02)
task_losses = []
for step in range(STEPS):
    logits, code = net(x)
    task = nn.functional.cross_entropy(logits, t)
    weight = STRENGTH * min(1.0, max(0.0, (step - START) / 80))
    loss = task + weight * code.abs().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    task_losses.append(task.item())
print(f"final loss: {sum(task_losses[-10:]) / 10:.5f}")
