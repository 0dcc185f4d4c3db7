"""Predicted against measured gain, layer by layer: twelve architectures, three initialisations each.

    python benchmarks/agreement.py [--seeds N] [--all]

A layer agrees when its measured gain lies within the band of one net around theory's, exp(+- 2 sqrt(5 / n)). The bar:
95 % of the layers that theory has a say on. Exit code 1 below it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.precheck.layers import Gain, band_of, gains_of
from unvanish.precheck.measure import measure
from unvanish.schema.call import Batch

BAR = 0.95
Init = Callable[[nn.Module], None]


class Functional(nn.Module):
    """Activations called as functions, layers of changing width."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (48, 96, 96, 64, 128, 128, 96, 64, 10)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Batch to outputs."""
        for layer in self.layers[:-1]:
            x = F.gelu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class Block(nn.Module):
    """x + phi(W x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Batch to outputs."""
        return x + torch.tanh(self.layer(x))


class Transformer(nn.Module):
    """Two encoder layers of torch's own over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 64)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.head = nn.Linear(64, 50)

    def forward(self, x: Tensor) -> Tensor:
        """Batch to outputs."""
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(h)
        return out


class Unrolled(nn.Module):
    """One cell, eight time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.across, self.head = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Batch to outputs."""
        h = torch.zeros(len(x), 64)
        for step in range(8):
            h = torch.tanh(self.inward(x[:, step]) + self.across(h))
        out: Tensor = self.head(h)
        return out


def chain(
    activation: Callable[[], nn.Module], depth: int, width: int, norm: type[nn.Module] | None = None
) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers.append(nn.Linear(width, width))
        if norm is not None:
            layers.append(norm(width))
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(width, 10))


def convolutions(norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    channels = (3, 32, 32, 48, 64, 64)
    for at, (a, b) in enumerate(pairwise(channels)):
        layers.append(nn.Conv2d(a, b, 3, padding=1, stride=2 if at == 2 else 1))
        if norm:
            layers.append(nn.BatchNorm2d(b))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 64, 10))


def torch_default(_: nn.Module) -> None:
    """As the layers come."""


def _drawn(draw: Callable[[Tensor], object]) -> Init:
    def init(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                draw(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    return init


INITS: dict[str, Init] = {
    "torch": torch_default,
    "he": _drawn(lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
    "orthogonal": _drawn(nn.init.orthogonal_),
}


@dataclass(frozen=True)
class Architecture:
    """A net and the shape of its inputs."""

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], Tensor]


def _rows(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda g: torch.randn(*shape, generator=g)


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("sigmoid, 12 x 64", lambda: chain(nn.Sigmoid, 12, 64), _rows(64, 64)),
    Architecture("tanh, 10 x 100", lambda: chain(nn.Tanh, 10, 100), _rows(64, 100)),
    Architecture("ReLU, 20 x 128", lambda: chain(nn.ReLU, 20, 128), _rows(64, 128)),
    Architecture("leaky ReLU, 10 x 64", lambda: chain(lambda: nn.LeakyReLU(0.1), 10, 64), _rows(64, 64)),
    Architecture("SiLU, 8 x 128", lambda: chain(nn.SiLU, 8, 128), _rows(64, 128)),
    Architecture("GELU, functional, widths that change", Functional, _rows(64, 48)),
    Architecture(
        "batch norm, ReLU, 10 x 100", lambda: chain(nn.ReLU, 10, 100, nn.BatchNorm1d), _rows(128, 100)
    ),
    Architecture("layer norm, tanh, 10 x 128", lambda: chain(nn.Tanh, 10, 128, nn.LayerNorm), _rows(64, 128)),
    Architecture(
        "skips, tanh, 10 x 96",
        lambda: nn.Sequential(nn.Linear(96, 96), *(Block(96) for _ in range(10)), nn.Linear(96, 10)),
        _rows(64, 96),
    ),
    Architecture("convolutions, ReLU, a stride", lambda: convolutions(norm=False), _rows(8, 3, 16, 16)),
    Architecture("transformer, 2 blocks", Transformer, lambda g: torch.randint(0, 50, (8, 12), generator=g)),
    Architecture("recurrence, 8 time steps", Unrolled, _rows(32, 8, 8)),
)


def cases(seeds: Iterable[int]) -> Iterator[tuple[Architecture, str, int, tuple[Gain, ...]]]:
    """Every architecture under every initialisation."""
    for seed in seeds:
        for architecture in ARCHITECTURES:
            for name, init in INITS.items():
                torch.manual_seed(seed)
                model = architecture.build()
                init(model)
                batch = architecture.batch(torch.Generator().manual_seed(seed + 1))
                yield architecture, name, seed, gains_of(measure(model, Batch(args=(batch,)), seed=seed))


def compare(gains: Iterable[Gain]) -> tuple[int, int, int]:
    """(layers within the band, layers with a prediction, all layers that hand a signal on)."""
    within = predicted = layers = 0
    for gain in gains:
        band = band_of(gain)
        layers += gain.before is not None
        if band is not None and gain.measured is not None:
            predicted += 1
            within += band[0] <= gain.measured <= band[1]
    return within, predicted, layers


def _line(gain: Gain) -> str:
    if gain.predicted is None or not gain.measured:
        return f"{gain.measured!s:.6} no prediction: {gain.why}"
    return f"{gain.predicted:.4f} {gain.measured:.4f} {math.log(gain.measured / gain.predicted):+.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="print each layer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[tuple[str, str], list[int]] = {}
    known: list[Gain] = []
    for architecture, init, _, gains in cases(range(options.seeds)):
        row = rows.setdefault((architecture.name, init), [0, 0, 0])
        for i, n in enumerate(compare(gains)):
            row[i] += n
        known += gains
        if options.all:
            for gain in gains:
                print(f"  {architecture.name:38} {init:10} {gain.spec.name:20} {_line(gain)}")
    print(f"{'architecture':40}{'init':12}{'within':>8}{'predicted':>11}{'layers':>8}")
    for (name, init), (within, predicted, layers) in rows.items():
        print(f"{name:40}{init:12}{within:8}{predicted:11}{layers:8}")
    within, predicted, layers = (sum(row[i] for row in rows.values()) for i in range(3))
    rate = within / predicted
    print(f"{within} of {predicted} predicted gains lie within the band: {rate:.1%};", end=" ")
    print(f"{layers - predicted} of {layers} layers say 'no prediction'")
    off = sorted(abs(math.log(g.measured / g.predicted)) for g in known if g.measured and g.predicted)
    print(
        f"measured over predicted: off by {math.expm1(off[len(off) // 2]):.1%} at the median layer,", end=" "
    )
    print(f"{math.expm1(off[int(0.95 * len(off))]):.1%} at the 95th percentile")
    return 0 if rate >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
