"""Nets whose fate before training is known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sigmoids(depth: int = 12, width: int = 64, classes: int = 10) -> nn.Sequential:
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def he(depth: int = 8, width: int = 64, classes: int = 10, gain: float = 1.0) -> nn.Sequential:
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(width, classes))
    for module in net:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            with torch.no_grad():
                module.weight.mul_(gain)
            nn.init.zeros_(module.bias)
    return net


def dead() -> nn.Sequential:
    net = he(depth=4)
    with torch.no_grad():
        net[2].bias.fill_(-100.0)
    return net


def zeros() -> nn.Sequential:
    net = sigmoids(depth=2)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net


class Gated(nn.Module):
    """Residual branches that are switched off at the start, and a last layer of zeros: healthy."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.inner = nn.ModuleList(nn.Linear(64, 64) for _ in range(6))
        self.gates = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in range(6))
        self.last = nn.Linear(64, 10)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer, gate in zip(self.inner, self.gates, strict=True):
            x = x + gate * torch.tanh(layer(x))
        out: Tensor = self.last(x)
        return out


class Functional(nn.Module):
    """Activations that are no modules."""

    def __init__(self, depth: int = 12) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(depth))
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        out: Tensor = self.last(x)
        return out


class Restless(nn.Module):
    """Everything that a forward pass may change: buffers, attributes, containers, random states, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.drop, self.two = (
            nn.Linear(64, 64),
            nn.BatchNorm1d(64),
            nn.Dropout(0.5),
            nn.Linear(64, 10),
        )
        self.calls = 0
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(len(x))
        self.last = x
        out: Tensor = self.two(self.drop(F.relu(self.norm(self.one(x)))))
        return out


class Recalls(nn.Module):
    """A plain recurrence of 60 steps whose first symbol is to be recalled."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.RNN(4, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.rnn(x)[0][:, -1])
        return out


def batch(seed: int = 0, rows: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 64, generator=generator), torch.randint(0, 10, (rows,), generator=generator)


CASES: tuple[tuple[str, Callable[[], nn.Module], str, str, str], ...] = (
    ("a deep sigmoid net", sigmoids, "sick", "vanishing_gradients", "saturating_activation"),
    ("functional sigmoids", Functional, "sick", "vanishing_gradients", "saturating_activation"),
    ("He", he, "healthy", "", ""),
    ("weights four times too large", lambda: he(gain=4.0), "sick", "exploding_gradients", "init_too_large"),
    ("weights four times too small", lambda: he(gain=0.25), "sick", "vanishing_gradients", "init_too_small"),
    ("a dead layer", dead, "sick", "dead_units", "too_deep"),
    ("zeros", zeros, "not_learning", "plateau", "symmetry"),
    ("gates and a last layer that start at zero", Gated, "healthy", "", ""),
)
