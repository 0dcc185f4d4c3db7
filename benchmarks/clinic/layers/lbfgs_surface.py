"""Fit a smooth surface to the last digit: a small tanh net in double precision with L-BFGS on the whole data set."""

import torch
from torch import nn

torch.set_default_dtype(torch.float64)
grid = torch.linspace(-1, 1, 16)
xy = torch.cartesian_prod(grid, grid)
z = torch.sin(2 * xy[:, :1]) * torch.cos(1.5 * xy[:, 1:]) + 0.3 * xy[:, :1] * xy[:, 1:]

surface = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1))
optimizer = torch.optim.LBFGS(
    surface.parameters(), lr=1.0, max_iter=5, history_size=20, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
)


def closure():
    optimizer.zero_grad()
    misfit = (surface(xy) - z).pow(2).mean()
    misfit.backward()
    return misfit


trace = []
for iteration in range(120):
    trace.append(optimizer.step(closure).item())
    if iteration % 30 == 0:
        print(f"{iteration:4d} {trace[-1]:.3e}")
print(f"final loss: {sum(trace[-10:]) / 10:.3e}")
