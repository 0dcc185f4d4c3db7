"""A bound is never crossed, whatever the signal; for a weight it is reached."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unvanish.probe import bounds
from unvanish.probe.backward import Node, Walker


def measured(layer: nn.Module, x: Tensor) -> tuple[float, Tensor]:
    """The bound of the operation of a layer, and its output."""
    out = layer(x)
    tracing = Walker().walk(out.sum(), [], lambda _, error: pytest.fail(str(error)))
    assert tracing is not None
    bounds.measure_bounds(tracing.nodes)
    found = [n for n in tracing.nodes if n.bound is not None]
    assert len(found) == 1 and isinstance(found[0], Node) and found[0].bound is not None
    return found[0].bound, out


def gains(out: Tensor, x: Tensor, tries: int) -> list[float]:
    """Of random signals, and of ones that were driven towards the largest gain there is."""
    found = []
    for _ in range(tries):
        signal = torch.randn_like(out)
        for _ in range(4):  # power iteration needs the adjoint of the adjoint, by a second derivative
            signal.requires_grad_()
            (back,) = torch.autograd.grad(out, x, signal, create_graph=True)
            found.append(float((back.norm() / signal.norm()).detach()))
            (signal,) = torch.autograd.grad(back.square().sum(), signal)
            signal = signal.detach()
    return found


CONVS = [
    (nn.Conv1d, dict(zip(("kernel_size", "stride", "padding", "dilation", "groups"), v, strict=True)))
    for v in itertools.product((1, 3), (1, 2), (0, 1), (1, 2), (1, 2))
]


@pytest.mark.parametrize(("kind", "options"), CONVS, ids=str)
def test_convolutions(kind: type[nn.Conv1d], options: dict[str, int]) -> None:
    torch.manual_seed(0)
    for made in (kind, nn.ConvTranspose1d):
        layer = made(4, 6, **options).double()  # type: ignore[arg-type]
        x = torch.randn(3, 4, 9, dtype=torch.float64, requires_grad=True)
        bound, out = measured(layer, x * 1.0)
        x2 = torch.randn(3, 4, 9, dtype=torch.float64, requires_grad=True)
        worst = max(gains(layer(x2), x2, 3))
        assert worst <= bound * (1 + 1e-12)
        assert worst > bound / 6 and out.shape[0] == 3


def test_a_stack_of_pictures() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1).double()
    x = torch.randn(2, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    bound, _ = measured(layer, x * 1.0)
    assert max(gains(layer(x), x, 4)) <= bound * (1 + 1e-12)


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_a_matrix_reaches_its_bound(n: int, m: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(n, m).double()
    x = torch.randn(3, n, dtype=torch.float64, requires_grad=True)
    bound, _ = measured(layer, x * 1.0)
    singular = torch.linalg.svdvals(layer.weight.detach())
    assert bound == pytest.approx(float(singular[0]), rel=1e-12)
    assert max(gains(layer(x), x, 2)) <= bound * (1 + 1e-12)


NORMS = {
    "layer": lambda: nn.LayerNorm(6),
    "group": lambda: nn.GroupNorm(2, 6),
    "batch": lambda: nn.BatchNorm1d(6),
    "batch, not training": lambda: nn.BatchNorm1d(6).eval(),
    "instance": lambda: nn.InstanceNorm1d(6, affine=True),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str) -> None:
    torch.manual_seed(0)
    layer = NORMS[name]().double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn_like(p))
        for b in layer.buffers():
            if b.is_floating_point():
                b.copy_(torch.rand_like(b) + 0.1)
    shape = (5, 6, 4) if name == "instance" else (5, 6)
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    bound, _ = measured(layer, x * 1.0)
    worst = max(gains(layer(x), x, 4))
    assert worst <= bound * (1 + 1e-12) and worst > bound / 10


def test_what_is_too_large_for_singular_values_is_bounded_from_above(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(20, 30).double()
    x = torch.randn(3, 20, dtype=torch.float64) * torch.ones(1, dtype=torch.float64, requires_grad=True)
    exact, _ = measured(layer, x)
    monkeypatch.setattr(bounds, "MOST_ROWS", 5)
    rough, _ = measured(layer, x)
    assert exact < rough < 4 * exact


def test_a_weight_that_is_not_finite_has_none() -> None:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, torch.nan)
    tracing = Walker().walk(layer(torch.randn(3, 2)).sum(), [], lambda *_: None)
    assert tracing is not None
    bounds.measure_bounds(tracing.nodes)
    assert all(n.bound is None for n in tracing.nodes)
