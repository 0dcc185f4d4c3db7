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


class Functional(nn.Module):
    """All activations called as functions, in the three ways there are; the output is made by one, too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
        h = F.dropout(torch.sigmoid(self.fc1(x)), 0.2, training=self.training)
        h = self.fc2(h).tanh()
        h = F.relu(self.fc3(h), inplace=True)
        return F.softmax(self.out(h) / temperature, dim=1)


class Strict(nn.Module):
    """Assertions, branches on shapes and data, a loop over time steps: no symbolic trace."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.state, self.head = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 2
        if x.isnan().any():
            raise ValueError("NaN")
        self.seen += 1
        x = x.view(len(x), -1, 2)
        h = x.new_zeros(len(x), 8)
        for t in range(x.size(1)):
            h = torch.tanh(self.inner(x[:, t]) + self.state(h))
        return self.head(h)


class Elman(nn.Module):
    """Tokens, an nn.RNN and its last state."""

    def __init__(self, kind: type[nn.RNNBase] = nn.RNN, **options: object) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.rnn = kind(4, 6, batch_first=True, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(6 * (2 if self.rnn.bidirectional else 1), 3)

    def forward(self, tokens: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
        output, _ = self.rnn(self.embed(tokens), state)
        return self.head(output[:, -1])


class Stepwise(nn.Module):
    """An nn.RNNCell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.RNNCell(2, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(x.size(0), 4, 2)
        h = torch.zeros(x.size(0), 6, dtype=x.dtype)
        for t in range(4):
            h = self.cell(x[:, t], h)
        return self.head(h)


class Attentive(nn.Module):
    """Single-head attention by hand, and a feed-forward part with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.up, self.down, self.norm, self.head = (
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(1).expand(-1, 4, -1)
        x = self.norm(x + torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1) @ self.v(x))
        return self.head((x + self.down(F.gelu(self.up(x))))[:, 0])


class Bare(nn.Module):
    """No modules at all: weights as parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(8, 8) * 0.3) for _ in range(3)])
        self.last = nn.Parameter(torch.randn(8, 3) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = F.elu(F.linear(x, weight))
        return x @ self.last


class Structured(nn.Module):
    """Returns a dict; a frozen part beside."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.value = nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 1)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        h = torch.tanh(self.body(x) + self.frozen(x))
        return {"mean": self.mean(h), "value": self.value(h), "rows": len(x)}
