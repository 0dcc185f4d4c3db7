"""Sampling and statistics against slow, obvious twins."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unvanish.probe.reduce import (
    TRACE_SAMPLE,
    ParameterSampler,
    l2_norm,
    quantiles,
    sample,
    spread,
    stride_for,
    summary,
)
from unvanish.probe.schedule import MAX_GAP, Schedule, measure_every
from unvanish.schema.run import PARAMETER_STATISTICS, SNAPSHOT_QUANTILES

shapes = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(shapes, st.integers(1, 5000))
def test_a_stride_shares_no_factor_with_a_side(shape: list[int], target: int) -> None:
    stride = stride_for(shape, target)
    assert stride == 1 or all(math.gcd(stride, side) == 1 for side in shape if side > 1)
    assert stride >= math.prod(shape) // target or stride == 1


def test_every_unit_is_looked_at() -> None:
    values = torch.arange(64).repeat(4096).view(4096, 64)  # each column a unit of its own
    assert set(sample(values).unique().tolist()) == set(range(64))


@pytest.mark.parametrize("layout", ["plain", "transposed", "channels_last", "expanded"])
def test_a_sample_gives_the_rms_to_a_few_percent(layout: str) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(32, 48, 16, 16) * torch.rand(48, 1, 1)
    if layout == "transposed":
        tensor = tensor.transpose(0, 3)
    elif layout == "channels_last":
        tensor = tensor.to(memory_format=torch.channels_last)
    elif layout == "expanded":
        tensor = tensor[:, :1].expand(32, 48, 16, 16)
    assert sample(tensor).numel() <= 2 * TRACE_SAMPLE
    exact = float(torch.linalg.vector_norm(tensor.double()))
    assert float(l2_norm(tensor)) == pytest.approx(exact, rel=0.05)
    assert float(summary(tensor)[0]) == pytest.approx(exact, rel=0.05)


@given(shapes, st.sampled_from([1e-30, 1.0, 1e30]))
def test_no_overflow_and_no_underflow(shape: list[int], scale: float) -> None:
    tensor = torch.full(shape, scale)
    if tensor.numel() <= TRACE_SAMPLE:
        norm, absmax, zeros, nonfinite = summary(tensor).tolist()
        assert norm == pytest.approx(math.sqrt(tensor.numel()) * float(tensor.view(-1)[0]), rel=1e-6)
        assert (absmax, zeros, nonfinite) == (pytest.approx(scale, rel=1e-6), 0, 0)


def test_what_is_not_finite_and_what_is_zero_is_counted() -> None:
    tensor = torch.tensor([0.0, math.nan, math.inf, -math.inf, 2.0, 0.0])
    norm, _, zeros, nonfinite = summary(tensor).tolist()
    assert not math.isfinite(norm)
    assert (zeros, nonfinite) == (2, 3)


def test_spread_is_over_all_elements() -> None:
    tensor = torch.randn(7, 5) + 3
    std, rms, mean = spread(tensor).tolist()
    assert std == pytest.approx(float(tensor.double().std(unbiased=False)), rel=1e-9)
    assert rms == pytest.approx(float(tensor.double().square().mean().sqrt()), rel=1e-9)


@given(
    st.lists(st.lists(st.integers(1, 6), max_size=3), min_size=1, max_size=6),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.integers(0, 2**20),
)
def test_parameters_against_a_twin(sides: list[list[int]], dtype: torch.dtype, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(side, generator=rng).to(dtype)) for side in sides]
    for i, p in enumerate(parameters):
        if i % 3 != 2:
            p.grad = torch.randn(p.shape, generator=rng).to(dtype)
            if i % 3 == 1:
                p.grad[p.grad < 0] = 0
    sampler = ParameterSampler(parameters)
    sampler.before()
    sampler.gradients()
    old = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p.mul_(0.5)
    table = sampler.after()
    assert table is not None and table.shape == (len(parameters), len(PARAMETER_STATISTICS))
    for p, before, row in zip(parameters, old, table.tolist(), strict=True):
        rms, absmax, zeros, nonfinite, weight, update, changed, first_order, _ = row
        if p.grad is None:
            assert all(math.isnan(v) for v in row[:4])
        else:
            g = p.grad.float().double()
            assert rms == pytest.approx(float(g.square().mean().sqrt()), rel=1e-5, abs=1e-12)
            assert absmax == pytest.approx(float(g.abs().max()), rel=1e-6)
            assert zeros == pytest.approx(float((g == 0).double().mean()), abs=1e-9)
            assert nonfinite == 0
        b, a = before.float().double(), p.detach().float().double()
        assert weight == pytest.approx(float(b.square().mean().sqrt()), rel=1e-5, abs=1e-12)
        assert update == pytest.approx(float((a - b).square().mean().sqrt()), rel=1e-4, abs=1e-7)
        assert changed == pytest.approx(float((a != b).double().mean()), abs=1e-9)
        if p.grad is not None:
            assert first_order == pytest.approx(float(-(g * (a - b)).sum()), rel=1e-4, abs=1e-5)


def test_what_cannot_be_read_is_not_a_number() -> None:
    parameters = [
        nn.Parameter(torch.ones(3, dtype=torch.complex64)),
        nn.Parameter(torch.ones(4)),
        nn.Parameter(torch.empty(2, 2, device="meta")),
    ]
    parameters[1].grad = torch.full((4,), math.nan)
    sampler = ParameterSampler(parameters)
    sampler.before()
    sampler.gradients()
    table = sampler.after()
    assert table is not None
    assert table[[0, 2]].isnan().all()
    assert table[1, 3] == 1.0
    assert ParameterSampler([parameters[0]]).after() is None


def test_a_parameter_that_gets_new_storage_is_followed() -> None:
    parameter = nn.Parameter(torch.ones(4))
    sampler = ParameterSampler([parameter])
    for value in (1.0, 5.0):
        parameter.data = torch.full((4,), value)
        parameter.grad = torch.ones(4)
        sampler.before()
        sampler.gradients()
        table = sampler.after()
        assert table is not None and table[0, 4] == value


def test_quantiles_against_a_twin() -> None:
    torch.manual_seed(0)
    rows = torch.zeros(3, 8)
    rows[0] = torch.randn(8)
    rows[1, :3] = torch.tensor([3.0, 1.0, 2.0])
    found = quantiles(rows, [8, 3, 0], [800, 3, 0])
    assert found[0][0] == pytest.approx(float(rows[0].double().norm()) * 10)
    assert found[1][1] == pytest.approx(tuple(1 + 2 * q for q in SNAPSHOT_QUANTILES))
    assert all(math.isnan(v) for v in found[2][1])


def test_broken_weights_warn_nobody(recwarn: pytest.WarningsRecorder) -> None:
    rows = torch.tensor([[math.nan, 1.0, 2.0], [math.inf, -math.inf, 0.0]])
    found = quantiles(rows, [3, 3], [3, 3])
    assert math.isnan(found[0][1][3])
    assert not recwarn.list


def test_the_schedule_is_dense_first_and_then_log_spaced() -> None:
    schedule = Schedule(ratio=1.4)
    due = []
    for step in range(5000):
        if schedule.due(step):
            due.append(step)
            schedule.done(step)
    assert due[:5] == [0, 1, 2, 3, 4]
    assert len(due) < 35
    assert max(b - a for a, b in pairwise(due)) <= MAX_GAP
    schedule.ask()
    assert schedule.due(due[-1] + 1)


def test_every_overrules() -> None:
    schedule = Schedule(ratio=1.4, every=7)
    assert [s for s in range(30) if schedule.due(s)] == [0, 7, 14, 21, 28]


def test_parameters_are_measured_less_often_as_the_run_goes_on() -> None:
    gaps = [measure_every(step) for step in range(5000)]
    assert gaps[:32] == [1] * 32
    assert gaps == sorted(gaps) and gaps[-1] == 16
