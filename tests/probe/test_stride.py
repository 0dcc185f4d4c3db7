"""Samples by a fixed stride are not fooled by what repeats in a tensor."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from unvanish.probe.parameters import ParameterRing
from unvanish.probe.samples import TRACE_SAMPLE, take
from unvanish.probe.stride import _crowd, stride_for

sides = st.lists(st.integers(1, 64), min_size=1, max_size=4)


@given(sides, st.integers(16, 5000))
def test_a_stride_is_odd_and_meets_every_unit(shape: list[int], target: int) -> None:
    stride, numel = stride_for(tuple(shape), target), math.prod(shape)
    if numel <= target:
        assert stride == 1
        return
    there = [side for side in shape if side > 1]
    assert stride % 2 == 1
    assert all(math.gcd(stride, side) == 1 for side in there[1:])
    assert -(-numel // stride) <= target


@given(st.integers(1, 10**7), st.integers(3, 4000), st.integers(2, 4096))
def test_the_widest_gap_against_a_twin(stride: int, period: int, samples: int) -> None:
    places = sorted({k * stride % period for k in range(min(samples, period))})
    gaps = [b - a for a, b in itertools.pairwise([*places, places[0] + period])]
    widest = max(gaps) * min(samples, period) / period
    assert _crowd(stride, period, samples) <= 2 * widest + 1
    assert widest <= 2 * _crowd(stride, period, samples) + 1


WIDE = [(512, 512), (1000, 1000), (1024, 4096), (4096, 4096), (50257, 768)]


@pytest.mark.parametrize("shape", WIDE, ids=str)
@pytest.mark.parametrize("target", [256, TRACE_SAMPLE])
def test_rows_columns_and_chequers_keep_their_share(shape: tuple[int, int], target: int) -> None:
    """A pattern that fills half of a matrix fills about half of the sample, whichever way it lies."""
    stride = stride_for(shape, target)
    at = torch.arange(0, math.prod(shape), stride)
    rows, columns = at // shape[1], at % shape[1]
    patterns = {
        "every second row": rows % 2,
        "every second column": columns % 2,
        "a chequer": (rows + columns) % 2,
        "pairs of rows": rows // 2 % 2,
        "below the diagonal": (columns * shape[0] < rows * shape[1]).int(),
        "the left half": (columns < shape[1] // 2).int(),
        "the upper half": (rows < shape[0] // 2).int(),
        "blocks of 64 columns": columns // 64 % 2,
    }
    for name, pattern in patterns.items():
        assert 0.38 < float(pattern.double().mean()) < 0.62, name
    for offset in (-1, 0, 1):  # a diagonal, of one element in a row, is not walked along
        on = int(((columns - rows - offset) % shape[1] == 0).sum())
        assert on <= 4 + 4 * len(at) / shape[1]
    assert len(columns.unique()) >= min(shape[1], len(at)) * 0.9


LAYOUTS: list[Callable[[Tensor], Tensor]] = [
    lambda t: t,
    lambda t: t.to(memory_format=torch.channels_last),
    lambda t: t.transpose(0, 1),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["plain", "channels_last", "transposed"])
def test_every_channel_of_an_activation_counts(layout: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    sizes = torch.logspace(-2, 2, 32)[torch.randperm(32)].view(1, 32, 1, 1)
    tensor = layout(torch.randn(64, 32, 32, 32) * sizes)
    sample = take(tensor).part.double()
    assert float(sample.square().mean().sqrt()) == pytest.approx(
        float(tensor.double().square().mean().sqrt()), rel=0.1
    )
    every_second = layout(torch.ones(64, 32, 32, 32) * (torch.arange(32) % 2).view(1, 32, 1, 1))
    assert float(take(every_second).part.mean()) == pytest.approx(0.5, abs=0.05)


def test_an_embedding_of_which_few_rows_are_used() -> None:
    gradient = torch.zeros(20_000, 128)
    gradient[torch.arange(0, 20_000, 20)] = 1.0
    assert float(take(gradient).part.mean()) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_4096_elements_give_the_rms_of_gaussians_to_a_percent(seed: int) -> None:
    """Standard error 1/sqrt(2 * 4096) = 1.1 %; four of them are allowed."""
    torch.manual_seed(seed)
    normal = torch.randn(1024, 1024)
    assert float(take(normal).part.square().mean().sqrt()) == pytest.approx(
        float(normal.square().mean().sqrt()), rel=0.045
    )
    heavy = torch.distributions.StudentT(5.0).sample((1024, 1024))  # type: ignore[no-untyped-call]
    assert float(take(heavy).part.square().mean().sqrt()) == pytest.approx(
        float(heavy.square().mean().sqrt()), rel=0.12
    )


@pytest.mark.parametrize("numel", [257, 300, 384, 511, 513, 700])
def test_the_end_of_a_vector_is_looked_at_too(numel: int) -> None:
    p = nn.Parameter(torch.zeros(numel))
    p.data[numel // 2 :] = 1.0
    ring = ParameterRing([p])
    seen = ring._groups[0]._plans[0].see(p.detach())
    assert len(seen) == ring.counts[0] <= 256
    assert float(seen.mean()) == pytest.approx(0.5, abs=0.1)
