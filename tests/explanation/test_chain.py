"""The product of factors along the dominant path equals autograd's gradient."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent / "probe"))
from watching import norm, watched

from unvanish.explanation.chain import chain_for, most_starved_parameter
from unvanish.explanation.gains import measured_gain_per_layer, predicted_gain_per_layer


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.last(x)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.ParameterList([nn.Parameter(torch.randn(6, 6) * 0.4) for _ in range(3)])
        self.out = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        for w in self.w:
            x = torch.sigmoid(F.linear(x, w))
        return x @ self.out.T


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, 5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x[:, None].repeat(1, 7, 1))[0][:, -1])


NETS: dict[str, Callable[[], nn.Module]] = {
    "sequential": lambda: nn.Sequential(
        nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)
    ),
    "functional": Functional,
    "residual": Residual,
    "normalised": lambda: nn.Sequential(
        nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 3)
    ),
    "recurrent": Recurrent,
    "attention": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.TransformerEncoderLayer(8, 2, 16, 0.0), nn.Linear(8, 3)
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_the_factors_multiply_to_the_gradient(name: str) -> None:
    torch.manual_seed(1)
    net = NETS[name]().double()
    x, y = torch.randn(9, 6, dtype=torch.float64), torch.randint(3, (9,))
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    gradients: dict[str, float] = {}

    def step() -> None:
        F.cross_entropy(net(x), y).backward()
        gradients.update({n: norm(p.grad) for n, p in net.named_parameters()})
        optimizer.step()

    run = watched(step).model
    followed = 0
    for parameter, expected in gradients.items():
        chain = chain_for(run, parameter)
        assert chain is not None, parameter
        product = chain.output_norm * math.prod(f.gain for f in chain.factors)
        assert product == pytest.approx(chain.signal_norm, rel=1e-10)
        assert sum(max(-300.0, f.decades) for f in chain.factors) == pytest.approx(
            chain.attribution.total, abs=1e-9
        )
        json.dumps(chain.to_dict(), allow_nan=False)
        if math.isnan(chain.gradient_norm):
            continue
        assert chain.signal_norm * chain.last_factor == pytest.approx(chain.gradient_norm, rel=1e-10)
        used = sum(parameter in o.parameters for o in run.graphs[run.traces[0].graph].operations)
        if used == 1:  # a weight that is used more often gets the sum of its uses
            assert chain.gradient_norm == pytest.approx(expected, rel=1e-10)
            followed += 1
    assert followed >= 2


def test_theory_stands_beside_the_measured_factors() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(9):
        layers += [nn.Linear(64, 64), nn.Sigmoid()]
    net = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer = torch.optim.SGD(net.parameters(), 0.0)

    def step() -> None:
        F.cross_entropy(net(torch.randn(64, 64)), torch.randint(10, (64,))).backward()
        optimizer.step()

    run = watched(step).model
    assert most_starved_parameter(run) == "0.weight"
    chain = chain_for(run, "0.weight")
    assert chain is not None and chain.depth == 10
    inner = [f for f in chain.factors if f.predicted is not None]
    assert len(inner) >= 17
    for factor in inner[1:]:
        assert factor.gain == pytest.approx(factor.predicted, rel=0.2)
        assert factor.bound is None or factor.gain <= factor.bound
    assert measured_gain_per_layer(run) == pytest.approx(0.02, rel=0.15)
    assert predicted_gain_per_layer(run) == pytest.approx(0.02, rel=0.05)


def test_a_parameter_that_no_loss_reached_has_no_chain() -> None:
    net = nn.ModuleDict({"used": nn.Linear(4, 2), "idle": nn.Linear(4, 2)})
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def step() -> None:
        net["used"](torch.randn(3, 4)).pow(2).mean().backward()
        optimizer.step()

    run = watched(step).model
    assert chain_for(run, "idle.weight") is None
    assert chain_for(run, None) is None
    assert chain_for(run, "used.weight") is not None
