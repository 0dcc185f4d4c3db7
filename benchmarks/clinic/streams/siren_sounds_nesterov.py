"""Tell four kinds of emergency sirens apart with a small 1-d convolutional network."""
import math
import sys

import torch
import torch.nn as nn

lr = 0.02 if "--cured" in sys.argv else 0.6

t = torch.linspace(0, 1, 64)
labels = torch.randint(0, 4, (512,))
base = torch.tensor([3.0, 6.0, 10.0, 15.0])[labels].unsqueeze(1)
waves = torch.sin(2 * math.pi * (base * t + torch.rand(512, 1))) + 0.3 * torch.randn(512, 64)
waves = waves.unsqueeze(1)

model = nn.Sequential(
    nn.Conv1d(1, 12, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2),
    nn.Conv1d(12, 16, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
    nn.Conv1d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1),
    nn.Flatten(), nn.Linear(16, 4),
)
opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
criterion = nn.CrossEntropyLoss()
losses = []
for epoch in range(25):
    order = torch.randperm(512)
    for i in range(0, 512, 32):
        b = order[i : i + 32]
        opt.zero_grad()
        loss = criterion(model(waves[b]), labels[b])
        loss.backward()
        opt.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
