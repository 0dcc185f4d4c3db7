"""Predator counts a year ahead: a hand-written Elman recurrence with bare parameters in double precision."""

import sys

import torch

H, WINDOW = 20, 15


def new_parameters():
    return {
        "w_in": torch.randn(1, H) * 0.5,
        "w_rec": torch.randn(H, H) / H**0.5,
        "b": torch.zeros(H),
        "w_out": torch.randn(H, 1) / H**0.5,
        "b_out": torch.zeros(1),
    }


def forecast(p, x):
    h = x.new_zeros(len(x), H)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t : t + 1] @ p["w_in"] + h @ p["w_rec"] + p["b"])
    return (h @ p["w_out"] + p["b_out"])[:, 0]


params = {name: value.requires_grad_() for name, value in new_parameters().items()}
if "--cured" in sys.argv:
    params = {name: value.detach().double().requires_grad_() for name, value in params.items()}
    optimizer = torch.optim.NAdam(params.values(), lr=3e-3)
else:
    optimizer = torch.optim.NAdam(params.values(), lr=3e-3)
    params = {name: value.detach().double().requires_grad_() for name, value in params.items()}

year = torch.arange(400, dtype=torch.float64)
counts = torch.sin(2 * torch.pi * year / 9.6) + 0.5 * torch.sin(2 * torch.pi * year / 4.1)
counts = (counts + 0.05 * torch.randn(400, dtype=torch.float64)) / counts.std()
windows = counts.unfold(0, WINDOW + 1, 1)

losses = []
for step in range(250):
    rows = windows[torch.randint(0, len(windows), (32,))]
    loss = (forecast(params, rows[:, :-1]) - rows[:, -1]).pow(2).mean()
    for value in params.values():
        value.grad = None
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
