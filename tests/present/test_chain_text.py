"""What a person reads of a product: the table, who is to blame, what to change."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish
from unvanish.present.blame import blame_sentence, mend_sentence
from unvanish.present.chain_text import print_explanation
from unvanish.schema.chain import Chain


def deep(
    activation: type[nn.Module], depth: int = 10, *, norm: float | None = None, gain: float | None = None
) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers.append(nn.Linear(32, 32))
        if gain is not None:
            nn.init.normal_(layers[-1].weight, std=gain / 32**0.5)
        if norm is not None:
            layers.append(nn.LayerNorm(32))
            nn.init.constant_(layers[-1].weight, norm)
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(32, 3))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.RNN(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x[:, :4, None].repeat(1, 5, 4))[0][:, -1])


class ByHand(nn.Module):
    """A sigmoid that is written out, far out on its flat side."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 3)
        nn.init.constant_(self.a.bias, 20.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(1 / (1 + torch.exp(-self.a(x))))


def dead() -> nn.Module:
    net = deep(nn.ReLU, 2)
    assert isinstance(net, nn.Sequential)
    nn.init.constant_(net[2].bias, -100)
    return net


def silent() -> nn.Module:
    net = deep(nn.Tanh, 2)
    assert isinstance(net, nn.Sequential)
    nn.init.zeros_(net[-1].weight)
    return net


CASES: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "sigmoid": (
        lambda: deep(nn.Sigmoid),
        "saturating activations: 10 Sigmoid derivatives take 6.*none can pass more than 0.25",
        "batch norm",
    ),
    "small weights": (
        lambda: deep(nn.Tanh, gain=0.1),
        "weights that start too small: 1[01] weights take .*; theory expects 0.12",
        "[Ss]tart the weights at the scale",
    ),
    "large weights": (
        lambda: deep(nn.ReLU, gain=4.0),
        "weights that start too large: 1[01] weights give",
        "[Ss]tart the weights",
    ),
    "small norms": (
        lambda: deep(nn.Tanh, norm=1e-2),
        "normalisation: 10 norms take .* own weights, which are small",
        "skips",
    ),
    "recurrence": (
        Recurrent,
        r"recurrence over many steps: each time step back through rnn multiplies the signal by 0\.\d+, and 20 of them lose",
        "GRU or an LSTM",
    ),
    "written by hand": (ByHand, "none of the usual kinds: one Exp takes", "Look at Exp first"),
    "dead": (dead, r"3 Relu: no unit .* It is dead", "LeakyReLU"),
    "zero weight": (silent, "4 Linear: its weight is zero", "Nothing, if it starts at zero on purpose"),
    "healthy": (lambda: deep(nn.ReLU, 3), "none of the factors", "Nothing on this way"),
}


def chain_of(name: str) -> Chain:
    torch.manual_seed(0)
    batch = torch.randn(16, 32), torch.randint(3, (16,))
    return unvanish.explain(CASES[name][0](), batch, F.cross_entropy).chain


@pytest.mark.parametrize("name", CASES)
def test_the_one_to_blame_is_named_and_the_mend_fits(name: str) -> None:
    chain = chain_of(name)
    _, blame, mend = CASES[name]
    assert re.search(blame, blame_sentence(chain)), blame_sentence(chain)
    assert re.search(mend, mend_sentence(chain)), mend_sentence(chain)


def test_the_table_multiplies_and_adds_up() -> None:
    torch.manual_seed(0)
    explanation = unvanish.explain(
        deep(nn.Sigmoid), (torch.randn(16, 32), torch.randint(3, (16,))), F.cross_entropy
    )
    lines = str(explanation).splitlines()
    rows = [line for line in lines if line.split()[:1] and line.split()[0].isdigit()]
    assert len(rows) == 20
    gains = [float(row.split()[2]) for row in rows]
    level = sum(math.log10(g) for g in gains)
    assert float(rows[-1].split()[-1].replace("\N{MINUS SIGN}", "-")) == pytest.approx(level, abs=0.1)
    assert all(float(row.split()[4]) >= float(row.split()[2]) for row in rows)


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_it_is_drawn_within_its_width(width: int) -> None:
    torch.manual_seed(0)
    batch = torch.randn(4, 32), torch.randint(3, (4,))
    explanation = unvanish.explain(
        Recurrent(), batch, F.cross_entropy, parameter="rnn.weight_hh_l0", index=(0, 1)
    )
    stream = io.StringIO()
    print_explanation(explanation, Console(file=stream, force_terminal=True, width=width, color_system=None))
    assert max(map(len, stream.getvalue().splitlines())) <= width
    assert "Back through the 20 time steps of rnn" in stream.getvalue()


def test_names_from_the_user_steer_no_terminal() -> None:
    net = nn.ModuleDict({"a\x1b[31m": nn.Linear(2, 2)})
    net.forward = net["a\x1b[31m"].forward  # type: ignore[method-assign]
    text = str(unvanish.explain(net, torch.randn(2, 2), index=(0, 0)))
    assert "\x1b" not in text


def test_very_deep_nets_are_told_in_sixty_rows() -> None:
    torch.manual_seed(0)
    explanation = unvanish.explain(
        deep(nn.Tanh, 60), (torch.randn(4, 32), torch.randint(3, (4,))), F.cross_entropy, parameter="0.weight"
    )
    assert "factors between" in str(explanation) and len(str(explanation).splitlines()) < 80
