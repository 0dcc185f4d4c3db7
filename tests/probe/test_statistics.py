"""Sums that merge exactly, over the whole range of each dtype, against a slow and obvious twin in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from unvanish.probe.exact import ExactRing
from unvanish.probe.parameters import ParameterRing
from unvanish.probe.ready import NOW
from unvanish.probe.samples import moments, tabulate, take
from unvanish.probe.steps import Note, StepLog
from unvanish.schema.graph import EXPONENT_BINS, EXPONENT_FLOOR
from unvanish.schema.moments import Moments, combined
from unvanish.schema.run import PARAMETER_STATISTICS, BlockEvent

F32_TINY, F32_LEAST = 2.0**-126, 2.0**-149
ends = st.sampled_from([0.0, -0.0, 1e30, -1e30, 1e-30, 1e38, -3e38, F32_LEAST, -F32_TINY / 2, 6e-8, 65504.0])
finite = st.floats(-1e3, 1e3, width=32) | ends
anything = finite | st.sampled_from([math.nan, math.inf, -math.inf])
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])
batches = st.lists(st.lists(anything, min_size=1, max_size=12), min_size=1, max_size=6)


def one(tensor: Tensor) -> Moments:
    (found,) = moments([take(tensor)], exponents=True)
    assert found is not None
    return found


def twin(values: Sequence[float]) -> dict[str, Any]:
    """Each statistic in the plainest way there is."""
    good = all(map(math.isfinite, values))
    exponents = [0] * EXPONENT_BINS
    for v in values:
        if math.isfinite(v) and v != 0:
            exponents[min(max((math.frexp(v)[1] - 1 - EXPONENT_FLOOR) // 2, 0), EXPONENT_BINS - 1)] += 1
    mean = math.fsum(values) / len(values) if good else math.nan
    broken = math.nan if any(map(math.isnan, values)) else math.inf
    return {
        "count": len(values),
        "norm": math.sqrt(math.fsum(v * v for v in values)) if good else broken,
        "absmax": max(map(abs, values)) if not any(map(math.isnan, values)) else math.nan,
        "total": math.fsum(values) if good else None,
        "deviation": math.sqrt(math.fsum((v - mean) ** 2 for v in values)) if good else math.nan,
        "zeros": sum(v == 0 for v in values),
        "nonfinite": sum(not math.isfinite(v) for v in values),
        "exponents": tuple(exponents),
    }


def check(found: Moments, values: Sequence[float]) -> None:
    expected = twin(values)
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    for name in ("count", "zeros", "nonfinite", "exponents"):
        assert getattr(found, name) == expected[name], name
    assert found.absmax == pytest.approx(expected["absmax"], rel=0, nan_ok=True)
    assert found.norm == pytest.approx(expected["norm"], rel=1e-12, abs=0, nan_ok=True)
    rounding = 1e-13 * largest * len(values)
    if expected["total"] is not None:
        assert found.total == pytest.approx(expected["total"], rel=1e-12, abs=rounding)
    assert found.deviation == pytest.approx(expected["deviation"], rel=1e-9, abs=rounding, nan_ok=True)


@given(st.lists(anything, min_size=1, max_size=40), dtypes)
def test_one_tensor(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values, dtype=torch.float64).to(dtype)
    check(one(tensor), tensor.double().tolist())


@given(batches, dtypes)
def test_micro_batches_give_what_one_big_batch_gives(parts: list[list[float]], dtype: torch.dtype) -> None:
    tensors = [torch.tensor(p, dtype=torch.float64).to(dtype) for p in parts]
    merged = combined([one(t) for t in tensors])
    assert merged is not None
    check(merged, torch.cat(tensors).double().tolist())


@given(batches, st.randoms(use_true_random=False))
def test_neither_the_order_nor_the_grouping_counts(parts: list[list[float]], rng: Any) -> None:
    pieces = [one(torch.tensor(p)) for p in parts]
    values = torch.tensor([v for p in parts for v in p]).double().tolist()
    rng.shuffle(pieces)
    while len(pieces) > 1:  # pairs, triples and singles, in any order, as ranks and micro-batches come
        taken = [pieces.pop(rng.randrange(len(pieces))) for _ in range(min(len(pieces), rng.randint(2, 3)))]
        made = combined(taken)
        assert made is not None
        pieces.append(made)
    check(pieces[0], values)


def test_a_mean_far_from_zero_does_not_swallow_the_deviation() -> None:
    """N var = sum n_i (var_i + (mean_i - mean)^2), without the difference of two large sums."""
    parts = [torch.tensor([1e6 + 1, 1e6 - 1]).double(), torch.tensor([1e6 + 3, 1e6 + 1, 1e6 + 2]).double()]
    merged = combined([one(p) for p in parts])
    assert merged is not None
    assert merged.std == pytest.approx(float(torch.cat(parts).std(unbiased=False)), rel=1e-12)


@given(st.lists(finite, min_size=1, max_size=20), st.sampled_from([2.0**-20, 0.25, 65536.0]))
def test_a_factor_may_come_before_or_after(values: list[float], factor: float) -> None:
    """Loss scaling is taken out of what was measured: as if it had never been there."""
    values = [v for v in values if 1e-25 < abs(v) < 1e30] or [1.0]
    table = tabulate([take(torch.tensor(values, dtype=torch.float64) * factor)])
    table.multiply(1 / factor)
    scaled = table.moments(0)
    plain = one(torch.tensor(values, dtype=torch.float64))
    for name in ("norm", "absmax", "total", "deviation"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-12, abs=1e-20)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_finite_is_still_described(broken: float) -> None:
    tensor = torch.tensor([broken, 0.0, 1e-3, 2.0, 3.0])
    found = one(tensor)
    assert (found.nonfinite, found.zeros, sum(found.exponents)) == (1, 1, 3)
    assert found.exponents[(-10 - EXPONENT_FLOOR) // 2] == 1
    assert found.exponents[(1 - EXPONENT_FLOOR) // 2] == 2
    assert not math.isfinite(found.norm)


# --- parameters, gradients, updates ------------------------------------------------------------------------

RINGS = [ParameterRing, ExactRing]


def watched(ring: ParameterRing, parameters: Sequence[Tensor], factor: float) -> dict[str, list[float]]:
    """One step that multiplies every weight."""
    slot = ring.take_slot()
    assert slot is not None
    with torch.no_grad():
        look = ring.look_before(slot, surely=True)
        ring.look_gradients(look, None, sparse=False)
        for p in parameters:
            p.mul_(factor)
        ring.look_after(look)
    table, _ = ring.reduce([look])
    return {name: table[0, i].tolist() for i, name in enumerate(PARAMETER_STATISTICS)}


@pytest.mark.parametrize("make", RINGS)
@given(values=st.lists(finite, min_size=1, max_size=30), dtype=dtypes)
def test_parameters_over_the_whole_range(
    make: Callable[..., ParameterRing], values: list[float], dtype: torch.dtype
) -> None:
    p = nn.Parameter(torch.tensor(values, dtype=torch.float64).to(dtype))
    if not bool(p.isfinite().all()):
        return
    before = p.detach().double().clone()
    p.grad = p.detach().flip(0)
    g = p.grad.double()
    found = watched(make([p]), [p], 0.5)
    update = p.detach().double() - before
    n = len(values)
    for name, twin_of in (
        ("gradient_rms", math.sqrt(math.fsum((g * g).tolist()) / n)),
        ("gradient_absmax", float(g.abs().max())),
        ("weight_rms", math.sqrt(math.fsum((before * before).tolist()) / n)),
        ("update_rms", math.sqrt(math.fsum((update * update).tolist()) / n)),
        ("gradient_zeros", float((g == 0).double().mean())),
        ("gradient_nonfinite", 0.0),
        ("update_changed", float((update != 0).double().mean())),
    ):
        assert found[name][0] == pytest.approx(twin_of, rel=1e-12, abs=0), name
    terms = (-g * update).tolist()
    rounding = 1e-13 * math.fsum(map(abs, terms))
    assert found["first_order"][0] == pytest.approx(math.fsum(terms), rel=1e-12, abs=rounding)


@pytest.mark.parametrize("make", RINGS)
def test_shares_of_what_is_not_finite(make: Callable[..., ParameterRing]) -> None:
    p = nn.Parameter(torch.ones(8))
    p.grad = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 0.0, 1.0, 2.0, 3.0])
    found = watched(make([p]), [p], 0.5)
    assert (found["gradient_nonfinite"][0], found["gradient_zeros"][0]) == (3 / 8, 2 / 8)
    assert not math.isfinite(found["gradient_rms"][0])
    assert (found["weight_rms"][0], found["update_changed"][0]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("scale", "kind"), [(1e-30, "d"), (1e30, "d"), (1e-3, "f"), (0.0, "f"), (math.inf, "f")]
)
def test_a_block_is_wide_enough_for_its_products(scale: float, kind: str) -> None:
    """<g, dw> of two numbers of 1e-30 is 1e-60, which float32 does not have."""
    p = nn.Parameter(torch.full((4,), 1e-30 if scale == 1e-30 else 1.0))
    p.grad = torch.full((4,), scale)
    if scale == 1e30:
        p.data.fill_(1e30)
    ring = ParameterRing([p])
    slot = ring.take_slot()
    assert slot is not None
    log = StepLog(0, lambda _: None, lambda _: None, lambda *_: None)
    with torch.no_grad():
        look = ring.look_before(slot, surely=True)
        ring.look_gradients(look, None, sparse=False)
        p.mul_(0.5)
        ring.look_after(look)
    log.put(
        Note(step=0, seconds=0.0, losses=[], clip=None, learning_rate=0.1, look=look, ring=ring, ready=NOW)
    )
    (block,) = [e for e in log.drain() if isinstance(e, BlockEvent)]
    assert block.stats.typecode == kind
    table = np.asarray(block.stats).reshape(len(PARAMETER_STATISTICS), 1)
    product = table[PARAMETER_STATISTICS.index("first_order"), 0]
    weight = 1e30 if scale == 1e30 else 1e-30 if scale == 1e-30 else 1.0
    assert product == pytest.approx(2 * scale * weight, rel=1e-6)


def test_a_sample_of_a_large_parameter_is_close_and_exact_is_exact() -> None:
    torch.manual_seed(0)
    for make, within in ((ParameterRing, 0.2), (ExactRing, 1e-12)):
        p = nn.Parameter(torch.randn(700, 300) * 1e-20)
        p.grad = torch.randn(700, 300) * 1e-20
        g, before = p.grad.double(), p.detach().double().clone()
        found = watched(make([p]), [p], 0.5)
        assert found["gradient_rms"][0] == pytest.approx(float(g.square().mean().sqrt()), rel=within)
        assert found["weight_rms"][0] == pytest.approx(float(before.square().mean().sqrt()), rel=within)
        assert found["update_rms"][0] == pytest.approx(0.5 * found["weight_rms"][0], rel=1e-6)
