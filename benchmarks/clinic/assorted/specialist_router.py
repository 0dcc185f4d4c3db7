"""Four ready specialists and a router that learns whom to ask, its softmax sharpened as training goes on."""

import sys

import torch
from torch import nn

N_SPECIALISTS, N_IN, N_OUT = 4, 12, 6
PER_EPOCH = "--cured" in sys.argv


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.specialists = nn.ModuleList(nn.Linear(N_IN, N_OUT) for _ in range(N_SPECIALISTS))
        for p in self.specialists.parameters():
            p.requires_grad_(False)  # trained elsewhere
        self.router = nn.Sequential(nn.Linear(N_IN, 32), nn.ReLU(), nn.Linear(32, N_SPECIALISTS))
        self.temperature = 1.0

    def sharpen(self):
        self.temperature = max(0.7 * self.temperature, 1e-5)

    def forward(self, x):
        share = torch.softmax(self.router(x) / self.temperature, dim=-1)
        answers = torch.stack([s(x) for s in self.specialists], dim=1)
        return (share.unsqueeze(-1) * answers).sum(dim=1)


model = Mixture()
centres = torch.randn(N_SPECIALISTS, N_IN)
kind = torch.randint(N_SPECIALISTS, (1600,))
x = centres[kind] + 0.5 * torch.randn(1600, N_IN)
with torch.no_grad():
    y = torch.stack([model.specialists[k](row) for k, row in zip(kind.tolist(), x)])
y, spread = y * 2, 2.0
for s in model.specialists:
    s.weight.data *= spread
    s.bias.data *= spread

optimizer = torch.optim.Adam(model.router.parameters(), lr=5e-4)
losses = []
for epoch in range(10):
    for batch in torch.randperm(len(x)).split(50):
        loss = nn.functional.mse_loss(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if not PER_EPOCH:
            model.sharpen()
    if PER_EPOCH:
        model.sharpen()
print("final loss:", sum(losses[-10:]) / 10)
