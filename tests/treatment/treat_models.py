"""Models in the styles that users write, each small, for the tests of surgery."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def chain(depth: int = 5, width: int = 8, act: type[nn.Module] = nn.Sigmoid, out: int = 3) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, out))


class Attributes(nn.Module):
    """Layers as attributes, one shared activation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.fc1(x.view(x.size(0), -1)))
        return self.fc3(self.act(self.fc2(x)))


class FunctionalLoop(nn.Module):
    """A ModuleList of layers, the activation called as a function."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(depth)])
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        return self.head(x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.fc(x))


class BlockLoop(nn.Module):
    """A ModuleList of custom blocks; the last activation belongs to the output."""

    def __init__(self, depth: int = 4, *, by_index: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block() for _ in range(depth)])
        self.head, self.final = nn.Linear(8, 1), nn.Sigmoid()
        self.depth = depth if by_index else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = range(self.depth) if self.depth else range(len(self.blocks))
        for i in places:
            x = self.blocks[i](x)
        return self.final(self.head(x))


class Conv(nn.Module):
    """A small convolutional net with pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Tanh(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.features(x), 1))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.net = chain(4)
        self.net[2].weight = self.net[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Branches(nn.Module):
    """Control flow on data (no symbolic trace) around an nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.net = chain(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) if float(x.sum()) > -1e9 else F.relu(x)


class Gated(nn.Module):
    """A gate: its sigmoid must stay one."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act, self.sigmoid = nn.Tanh(), nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.value(x)) * self.sigmoid(self.gate(x)))
