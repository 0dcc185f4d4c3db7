"""Random convolution kernels (as in ROCKET) and a linear classifier on the features they give."""

import torch
from torch import nn

LENGTH = 80


def series(n):
    y = torch.randint(0, 3, (n,))
    t = torch.linspace(0, 1, LENGTH)
    freq = torch.tensor([3.0, 5.0, 8.0])[y, None] + 0.3 * torch.randn(n, 1)
    x = torch.sin(2 * torch.pi * (freq * t + torch.rand(n, 1))) + 0.3 * torch.randn(n, LENGTH)
    return x[:, None], y


class Rocket(nn.Module):
    def __init__(self, kernels=60):
        super().__init__()
        self.banks = nn.ModuleList(
            nn.Conv1d(1, kernels, 9, dilation=d, padding=4 * d) for d in (1, 2, 4)
        )
        for bank in self.banks:
            nn.init.normal_(bank.weight)
            nn.init.uniform_(bank.bias, -1, 1)
            bank.requires_grad_(False)
        self.norm = nn.BatchNorm1d(6 * kernels, affine=False)
        self.linear = nn.Linear(6 * kernels, 3)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        features = []
        for bank in self.banks:
            z = bank(x)
            features += [z.amax(-1), (z > 0).float().mean(-1)]
        return self.linear(self.norm(torch.cat(features, dim=1)))


model = Rocket()
optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
losses = []
for step in range(150):
    x, y = series(32)
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
