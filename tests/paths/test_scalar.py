"""A weight's gradient as a sum over paths: every path, by brute force and by autograd, in float64."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish
from unvanish.explanation.toy import INPUTS, WEIGHTS, explain_toy
from unvanish.schema.explanation import ScalarPaths

sys.path.insert(0, str(Path(__file__).parent.parent / "explanation"))
from test_chain import NETS

PLACES = {"w1": ("0.weight", (0, 0)), "w2": ("0.weight", (0, 1)), "w3": ("0.weight", (1, 0))}
PLACES |= {"w4": ("0.weight", (1, 1)), "w5": ("2.weight", (0, 0)), "w6": ("2.weight", (0, 1))}


def followed(
    net: nn.Module, batch: object, loss_fn: object, parameter: str, index: tuple[int, ...]
) -> ScalarPaths:
    scalar = unvanish.explain(net, batch, loss_fn, parameter=parameter, index=index).scalar  # type: ignore[arg-type]
    assert scalar is not None
    json.dumps(scalar.to_dict(), allow_nan=False)
    return scalar


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("weight", PLACES)
def test_the_toy_is_exact_for_every_weight(activation: str, weight: str) -> None:
    phi = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[activation]
    net = nn.Sequential(nn.Linear(2, 2, bias=False), phi(), nn.Linear(2, 1, bias=False), phi()).double()
    w = {k: torch.tensor(v, dtype=torch.float64) for k, v in WEIGHTS.items()}
    with torch.no_grad():
        net[0].weight.copy_(torch.stack([w["w1"], w["w2"], w["w3"], w["w4"]]).view(2, 2))
        net[2].weight.copy_(torch.stack([w["w5"], w["w6"]]).view(1, 2))
    x = torch.tensor([[INPUTS["i1"], INPUTS["i2"]]], dtype=torch.float64)
    (chain,) = [c for c in explain_toy(activation).chains if c.weight == weight]  # type: ignore[arg-type]
    found = followed(net, x, lambda out: out.sum(), *PLACES[weight])
    assert found.total == pytest.approx(chain.gradient, rel=1e-12, abs=0)
    assert found.gradient == pytest.approx(chain.gradient, rel=1e-12, abs=0)
    assert found.count == (1 if chain.gradient else 0)
    if chain.gradient:
        (path,) = found.paths
        assert path.product == pytest.approx(chain.gradient, rel=1e-12)
        assert math.prod(s.value for s in path.steps) == pytest.approx(chain.gradient, rel=1e-12)
        parts = [v for f in chain.factors for _, v in f.parts if v != 1.0]
        assert sorted(s.value for s in path.steps if s.value != 1.0) == pytest.approx(
            sorted(parts), rel=1e-12
        )


@pytest.mark.parametrize("name", NETS)
def test_all_paths_add_up_to_autograds_gradient(name: str) -> None:
    torch.manual_seed(2)
    net = NETS[name]().double()
    x, y = torch.randn(3, 6, dtype=torch.float64), torch.randint(3, (3,))
    F.cross_entropy(net(x), y).backward()
    for parameter, tensor in net.named_parameters():
        index = tuple(n // 2 for n in tensor.shape)
        found = followed(net, (x, y), F.cross_entropy, parameter, index)
        assert tensor.grad is not None
        expected = float(tensor.grad[index])
        assert found.gradient == pytest.approx(expected, rel=1e-10, abs=1e-15)
        assert found.total == pytest.approx(expected, rel=1e-10, abs=1e-13 * found.absolute)
        assert found.covered + found.remainder == pytest.approx(found.total, rel=1e-12, abs=1e-15)
        assert found.covered == pytest.approx(sum(p.product for p in found.paths), rel=1e-12)
        sizes = [abs(p.product) for p in found.paths]
        assert sizes == sorted(sizes, reverse=True) and 0 <= found.share <= 1 + 1e-12


class Net(nn.Module):
    def __init__(self, sizes: list[int], activations: list[str], skips: list[bool]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.activations, self.skips = activations, skips

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.layers
        for layer, name, skip in zip(inner, self.activations, self.skips, strict=False):
            z = getattr(torch, name)(layer(x))
            x = x + z if skip and z.shape == x.shape else z
        return last(x)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.lists(st.sampled_from(["tanh", "sigmoid", "relu", "sin"]), min_size=5, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.integers(1, 4),
    st.integers(0, 10_000),
)
def test_random_nets_with_skips(
    sizes: list[int], activations: list[str], skips: list[bool], samples: int, seed: int
) -> None:
    torch.manual_seed(seed)
    net = Net(sizes, activations, skips).double()
    x, y = torch.randn(samples, sizes[0]).double(), torch.randn(samples, sizes[-1]).double()
    F.mse_loss(net(x), y).backward()
    for parameter, tensor in net.named_parameters():
        index = tuple(seed % n for n in tensor.shape)
        found = followed(net, (x, y), F.mse_loss, parameter, index)
        assert tensor.grad is not None and found.total is not None
        assert abs(found.total - float(tensor.grad[index])) <= 1e-10 * max(abs(found.total), found.absolute)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=5), st.integers(1, 3), st.integers(0, 10_000))
def test_the_strongest_paths_are_those_that_brute_force_finds(
    sizes: list[int], samples: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    net = nn.Sequential(*[m for layer in layers for m in (layer, nn.Tanh())][:-1]).double()
    x, y = torch.randn(samples, sizes[0]).double(), torch.randn(samples, sizes[-1]).double()
    index = (seed % sizes[1], seed % sizes[0])
    slopes, h = [], x
    for layer in layers:
        z = layer(h)
        h = torch.tanh(z)
        slopes.append((1 - h**2).detach())
    ends = (2 * (net(x) - y) / y.numel()).detach()
    products = {}
    for units in itertools.product(*(range(n) for n in sizes[2:])):
        value, at = x[:, index[1]].clone(), index[0]
        for depth, unit in enumerate(units, 1):
            value *= slopes[depth - 1][:, at] * layers[depth].weight[unit, at].detach()
            at = unit
        products[units] = float((value * ends[:, at]).sum())
    found = followed(net, (x, y), F.mse_loss, "0.weight", index)
    assert found.count == len(products)
    assert found.total == pytest.approx(math.fsum(products.values()), rel=1e-10, abs=1e-15)
    best = sorted(products.values(), key=abs, reverse=True)[: len(found.paths)]
    assert found.surely
    assert [abs(p.product) for p in found.paths] == pytest.approx([abs(b) for b in best], rel=1e-9)
    for path in found.paths:
        units = tuple(int(s.split("[")[1].rstrip("]")) for s in reversed(path.route))
        assert units[0] == index[0]
        assert path.product == pytest.approx(products[units[1:]], rel=1e-9)


def test_a_convolution_and_its_pooling_are_followed_place_by_place() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 2, 2),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).double()
    x, y = torch.randn(2, 2, 6, 6).double(), torch.randint(2, (2,))
    F.cross_entropy(net(x), y).backward()
    found = followed(net, (x, y), F.cross_entropy, "0.weight", (1, 0, 2, 1))
    assert found.samples == 2 and not found.mixed
    assert found.total == pytest.approx(float(net[0].weight.grad[1, 0, 2, 1]), rel=1e-10)


def test_of_one_sample_the_steps_multiply_to_the_product() -> None:
    torch.manual_seed(0)
    net = NETS["attention"]().double()
    found = followed(net, torch.randn(1, 6).double(), None, "0.weight", (1, 2))
    for path in found.paths:
        assert math.prod(s.value for s in path.steps) == pytest.approx(path.product, rel=1e-10)


def test_a_matrix_that_stands_on_the_right_has_its_own_order() -> None:
    class Right(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x @ self.a) @ self.b

    torch.manual_seed(0)
    net, x = Right().double(), torch.randn(1, 3).double()
    found = followed(net, x, None, "a", (2, 1))
    (path, *_) = found.paths
    values = {s.label: s.value for s in path.steps}
    assert values["input[2] of a"] == pytest.approx(float(x[0, 2]))
    (label,) = [k for k in values if k.startswith("weight b[1,")]
    unit = int(label[:-1].split(",")[1])
    assert values[label] == pytest.approx(net.b[1, unit].item())


def test_a_shared_weight_is_the_sum_over_its_uses() -> None:
    torch.manual_seed(0)
    cell = nn.Linear(3, 3)

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(4):
                x = torch.tanh(self.cell(x))
            return x

    net, x = Loop().double(), torch.randn(2, 3).double()
    found = followed(net, x, lambda out: out.square().sum(), "cell.weight", (0, 1))
    net(x).square().sum().backward()
    assert cell.weight.grad is not None
    assert found.total == pytest.approx(float(cell.weight.grad[0, 1]), rel=1e-10)
    assert any("cell@4[" in station for p in found.paths for station in p.route)


def test_a_model_in_float32_is_followed_in_float64() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    x, y = torch.randn(4, 6), torch.randint(3, (4,))
    found = followed(
        net, (x, y), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])), "0.weight", (0, 0)
    )
    assert found.total == pytest.approx(found.gradient, rel=1e-11)
    assert net[0].weight.dtype == torch.float32


def test_what_is_too_large_is_said_and_told_layer_by_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6000), nn.LayerNorm(6000), nn.Linear(6000, 2))
    found = followed(net, (torch.randn(8, 4), torch.randint(2, (8,))), F.cross_entropy, "0.weight", (5, 1))
    assert found.total is None and "too large" in found.note and not found.paths
    assert math.prod(s.value for s in found.steps) == pytest.approx(found.gradient, rel=1e-9)


def test_an_operation_that_is_nobodys_is_said_by_name() -> None:
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            return 2 * gradients[0].abs()  # not linear: no derivative of anything

    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(Odd.apply(self.a(x)))

    found = followed(Strange().double(), torch.randn(2, 3).double(), None, "a.weight", (0, 0))
    assert found.total is None and "Odd" in found.note


def test_a_custom_function_is_followed_like_any_other() -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
            return 3 * x**2 * gradients[0]

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(Cube.apply(self.a(x)))

    torch.manual_seed(0)
    found = followed(Custom().double(), torch.randn(2, 3).double(), None, "a.weight", (0, 0))
    assert found.total == pytest.approx(found.gradient, rel=1e-10)
