"""Samples and their moments against slow, obvious twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unvanish.probe.samples import TRACE_SAMPLE, moments, take, view
from unvanish.schema.graph import EXPONENT_BINS, EXPONENT_FLOOR
from unvanish.schema.moments import Moments, combined

shapes = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def one(tensor: Tensor, *, exponents: bool = True) -> Moments:
    (found,) = moments([take(tensor)], exponents=exponents)
    assert found is not None
    return found


def test_every_unit_is_looked_at() -> None:
    values = torch.arange(64).repeat(4096).view(4096, 64)  # each column a unit of its own
    assert set(view(values).unique().tolist()) == set(range(64))


@pytest.mark.parametrize("layout", ["plain", "transposed", "matrix", "channels_last", "expanded", "sliced"])
def test_a_sample_gives_the_rms_to_a_few_percent(layout: str) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(32, 48, 16, 16) * torch.rand(48, 1, 1)
    if layout == "transposed":
        tensor = tensor.transpose(0, 3)
    elif layout == "matrix":
        tensor = tensor.flatten(1).t()
    elif layout == "channels_last":
        tensor = tensor.to(memory_format=torch.channels_last)
    elif layout == "expanded":
        tensor = tensor[:, :1].expand(32, 48, 16, 16)
    elif layout == "sliced":
        tensor = tensor[:, :, ::2]
    before = tensor.clone()
    found = one(tensor)
    assert found.sampled <= 2 * TRACE_SAMPLE and found.count == tensor.numel()
    exact = tensor.double()
    assert found.norm == pytest.approx(float(torch.linalg.vector_norm(exact)), rel=0.05)
    assert found.std == pytest.approx(float(exact.std(unbiased=False)), rel=0.05)
    assert torch.equal(tensor, before)


def test_a_sample_is_a_copy() -> None:
    for tensor in (torch.ones(10), torch.ones(300, 300), torch.ones(300, 300).t()):
        sample = take(tensor)
        tensor.zero_()
        assert bool((sample.part == 1).all())


@given(shapes, st.sampled_from([1e-30, 1e-38, 1.0, 1e30]), st.sampled_from([torch.float32, torch.float64]))
def test_no_overflow_and_no_underflow(shape: list[int], scale: float, dtype: torch.dtype) -> None:
    tensor = torch.full(shape, scale, dtype=dtype)
    found = one(tensor)
    assert found.norm == pytest.approx(math.sqrt(tensor.numel()) * float(tensor.view(-1)[0]), rel=1e-12)
    assert (found.absmax, found.zeros, found.nonfinite) == (pytest.approx(scale, rel=1e-6), 0, 0)
    assert found.std == pytest.approx(0.0, abs=1e-12 * scale)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_the_far_ends_of_float64(scale: float) -> None:
    found = one(torch.tensor([3.0, -4.0], dtype=torch.float64) * scale)
    assert found.norm == pytest.approx(5 * scale, rel=1e-12)


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]),
)
def test_moments_against_a_twin(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values).to(dtype)
    sizes = (tensor.abs() if tensor.is_complex() else tensor).double().numpy()
    found = one(tensor)
    assert found.count == found.sampled == len(values)
    assert found.norm == pytest.approx(math.sqrt(math.fsum(v * v for v in sizes)), rel=1e-9, abs=1e-40)
    assert found.absmax == np.abs(sizes).max()
    assert found.total == pytest.approx(math.fsum(sizes), rel=1e-9, abs=1e-6)
    assert found.zeros == sum(v == 0 for v in sizes)
    assert found.std == pytest.approx(float(sizes.std()), rel=1e-6, abs=1e-6)
    expected = [0] * EXPONENT_BINS
    for v in sizes:
        if v:
            expected[min(max((math.frexp(abs(v))[1] - 1 - EXPONENT_FLOOR) // 2, 0), EXPONENT_BINS - 1)] += 1
    assert list(found.exponents) == expected


def test_what_is_not_finite_and_what_is_zero_is_counted() -> None:
    found = one(torch.tensor([0.0, math.nan, math.inf, -math.inf, 2.0, 0.0]))
    assert not math.isfinite(found.norm)
    assert (found.zeros, found.nonfinite, sum(found.exponents)) == (2, 3, 1)
    assert one(torch.tensor([math.inf, 1.0])).absmax == math.inf


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20), min_size=1, max_size=5))
def test_moments_of_parts_merge_to_those_of_the_whole(parts: list[list[float]]) -> None:
    """Micro-batches, ranks and shards give what one big batch would."""
    merged = combined([one(torch.tensor(p, dtype=torch.float64)) for p in parts])
    whole = one(torch.tensor([v for p in parts for v in p], dtype=torch.float64))
    assert merged is not None
    assert merged.norm == pytest.approx(whole.norm, rel=1e-12)
    assert merged.std == pytest.approx(whole.std, rel=1e-9, abs=1e-9)
    for name in ("count", "sampled", "absmax", "zeros", "nonfinite", "exponents"):
        assert getattr(merged, name) == getattr(whole, name)
    assert merged.total == pytest.approx(whole.total, rel=1e-12, abs=1e-9)
    assert combined([]) is None


def test_samples_of_many_lengths_keep_their_places() -> None:
    tensors = [torch.full((n,), float(n)) for n in (3, 1, 4, 1, 5)]
    found = moments([take(t) if i != 2 else None for i, t in enumerate(tensors)])
    assert [m.absmax if m else None for m in found] == [3.0, 1.0, None, 1.0, 5.0]
