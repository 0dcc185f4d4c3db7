"""Energy use of a compressor from ten settings (friedman-like)."""

import sys

import torch
from sklearn.datasets import make_friedman1
from torch import nn

settings, energy = make_friedman1(n_samples=1500, n_features=10, noise=0.5)
settings = torch.as_tensor(settings * 2 - 1, dtype=torch.float32)
energy = torch.as_tensor(energy, dtype=torch.float32).unsqueeze(1)

config = dict(
    lr=0.002 if "--cured" in sys.argv else 0.05,
    batch=50,
    steps=300,
    width=48,
)

regressor = nn.Sequential(
    nn.Linear(10, config["width"]),
    nn.ReLU(),
    nn.Linear(config["width"], config["width"]),
    nn.ReLU(),
    nn.Linear(config["width"], config["width"]),
    nn.ReLU(),
    nn.Linear(config["width"], 1),
)
opt = torch.optim.SGD(regressor.parameters(), lr=config["lr"], momentum=0.9)
curve = []
step = 0
while step < config["steps"]:
    order = torch.randperm(len(settings))
    for start in range(0, len(order), config["batch"]):
        rows = order[start : start + config["batch"]]
        opt.zero_grad()
        error = (regressor(settings[rows]) - energy[rows]).pow(2).mean()
        error.backward()
        opt.step()
        curve.append(error.item())
        step += 1
print(f"final loss: {sum(curve[-20:]) / 20:.4f}")
