"""A physics-informed net for a damped oscillator, u'' + 0.4 u' + 2 u = 0, fitted by L-BFGS."""

import torch
from torch import nn

net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1))
t = torch.linspace(0, 5, 60)[:, None].requires_grad_()


def derivative(u, t):
    return torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]


def residuals():
    u = net(t / 2.5 - 1)
    du = derivative(u, t)
    ddu = derivative(du, t)
    equation = (ddu + 0.4 * du + 2 * u).pow(2).mean()
    start = (u[0] - 1).pow(2).sum() + du[0].pow(2).sum()
    return equation + 5 * start


optimizer = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=5, history_size=20, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    loss = residuals()
    loss.backward()
    return loss


losses = []
for outer in range(85):
    losses.append(optimizer.step(closure).item())
    if outer % 20 == 0:
        print(outer, losses[-1])
print(f"final loss: {sum(losses[-10:]) / 10:.8f}")
