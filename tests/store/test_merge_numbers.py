"""Whatever way a tensor is cut and copied over ranks: merged, it has the numbers of the whole."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_cases import Floats, Spread, Whole, model_run, operation, parameter, run_of, signal_stats
from test_round_trip import same

from unvanish.schema.graph import Graph, ThroughTime, Trace
from unvanish.schema.run import PARAMETER_STATISTICS, Run, Shard, Snapshot
from unvanish.store import merge_ranks

few = settings(max_examples=60, deadline=None)
EXACT = 1e-12


@st.composite
def spreads(draw: Any) -> tuple[Spread, Whole]:
    """Up to three tensors (some smaller than there are pieces), cut and copied at random; NaN, Inf and zeros inside."""
    parts, replicas = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    steps = draw(st.integers(1, 3))
    cuts, tables = {}, ({}, {}, {})
    for name in ["a.weight", "a.bias", "b"][: draw(st.integers(1, 3))]:
        size = draw(st.integers(1, 120))
        inner = sorted(draw(st.lists(st.integers(0, size), min_size=parts - 1, max_size=parts - 1)))
        cuts[name] = [0, *inner, size]
        for table in tables:
            values = generator.standard_normal((steps, size)) * 10.0 ** draw(st.integers(-30, 30))
            values[generator.random((steps, size)) < 0.1] = 0
            table[name] = values
        for bad in draw(st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), max_size=2)):
            tables[0][name][generator.integers(steps), generator.integers(size)] = bad
    return Spread(cuts, replicas), Whole(*tables)


def truth(whole: Whole) -> dict[str, list[float]]:
    everything = {name: slice(None) for name in whole.gradients}
    rows = whole.rows(everything, range(len(next(iter(whole.gradients.values())))))
    return {s: [values[i] for row in rows for values in row] for i, s in enumerate(PARAMETER_STATISTICS)}


def close(found: float, true: float, size: float = 0.0) -> bool:
    """`size`: of the summands, where they may cancel."""
    if math.isnan(true) or math.isinf(true):
        return same(found, true)
    return abs(found - true) <= EXACT * max(abs(true), size)


@few
@given(spreads(), st.randoms())
def test_statistics_of_the_pieces_are_those_of_the_whole(
    case: tuple[Spread, Whole], order: random.Random
) -> None:
    spread, whole = case
    runs = spread.runs(whole)
    order.shuffle(runs)
    merged = merge_ranks(runs)
    (model,) = merged.models
    assert [p.sampled for p in model.info.parameters] == [b[-1] for b in spread.cuts.values()]
    assert spread.ranks == 1 or all(p.shard is None for p in model.info.parameters)
    for name, true in truth(whole).items():
        for i, (found, expected) in enumerate(zip(model.parameter_stats[name], true, strict=True)):
            step, p = divmod(i, len(spread.cuts))
            size = 0.0
            if name == "first_order":
                g, u = (list(t.values())[p][step] for t in (whole.gradients, whole.updates))
                with np.errstate(all="ignore"):
                    size = float(np.abs(g * u).sum())
            assert close(found, expected, size), (name, step, p, found, expected)
    assert not merged.incidents


@few
@given(spreads(), st.randoms())
def test_the_order_of_the_ranks_does_not_matter(case: tuple[Spread, Whole], order: random.Random) -> None:
    runs = case[0].runs(case[1])
    shuffled = list(runs)
    order.shuffle(shuffled)
    assert same(merge_ranks(runs), merge_ranks(shuffled))


def test_a_ranks_own_numbers_would_be_wrong() -> None:
    """What the tests above compare with is not what any rank has."""
    rng = np.random.default_rng(0)
    tables = [{"w": rng.standard_normal((1, 40)) * np.linspace(1, 9, 40)} for _ in range(3)]
    runs = Spread({"w": [0, 13, 40]}, 2).runs(Whole(*tables))
    true = truth(Whole(*tables))["gradient_rms"][0]
    own = [r.models[0].parameter_stats["gradient_rms"][0] for r in runs]
    assert all(abs(x - true) > 0.1 * true for x in own)
    assert merge_ranks(runs).models[0].parameter_stats["gradient_rms"][0] == pytest.approx(true, rel=EXACT)


# --- traces --------------------------------------------------------------------------------------------------

NET = Graph(
    key="k",
    operations=(
        operation(0, "Addmm", parameters=("b", "w")),
        operation(1, "Relu", [0]),
        operation(2, "MseLoss", [1]),
    ),
)


def traced(
    rank_signal: Floats, output: Floats, gate: tuple[Floats, Floats], loss: float, step: int = 0
) -> Trace:
    own = signal_stats(0, rank_signal, output=output, parameters=[1.0, 1.0])
    relu = signal_stats(1, gate[0], gate=gate, edges=[float(np.linalg.norm(rank_signal))])
    return Trace(
        model=0, step=step, backward=0, graph="k", loss=loss, output=1, chance=1.0,
        stats=(own, relu, signal_stats(2, np.ones(1), edges=[None])),
    )  # fmt: skip


def replicated(ranks: int) -> list[Any]:
    shard = {
        r: Shard(part=0, parts=1, replica=r, replicas=ranks, numel=6, samples=True, ranks=f"0-{ranks - 1}")
        for r in range(ranks)
    }
    return [[parameter(0, "w", 6, shard[r]), parameter(1, "b", 6, shard[r])] for r in range(ranks)]


@few
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 19), st.integers(0, 2**32))
def test_signals_of_the_ranks_are_those_of_one_big_batch(
    ranks: int, rows: int, units: int, seed: int
) -> None:
    """Every rank's loss is the mean over its rows; the big batch's is the mean over all of them."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((ranks * rows, units)) * (rng.random((ranks * rows, units)) < 0.3)
    output = rng.standard_normal((ranks * rows, units)) + rng.standard_normal(units)
    arriving = rng.standard_normal((ranks * rows, units)) * (rng.random((ranks * rows, units)) < 0.7)
    losses = rng.random(ranks)
    row = [[0.5] * len(PARAMETER_STATISTICS)] * 2
    runs = []
    for r, infos in enumerate(replicated(ranks)):
        mine = slice(r * rows, (r + 1) * rows)
        gate = (ranks * arriving[mine], ranks * signal[mine])
        trace = traced(ranks * signal[mine], output[mine], gate, losses[r])
        runs.append(
            run_of(
                r, ranks, [model_run("net", infos, [row], traces=[trace], graphs=[NET], losses=[losses[r]])]
            )
        )
    (model,) = merge_ranks(runs).models
    (trace,) = model.traces
    whole = traced(signal, output, (arriving, signal), float(losses.mean()))
    assert model.losses[0] == pytest.approx(losses.mean(), rel=EXACT)
    assert trace.loss == pytest.approx(losses.mean(), rel=EXACT)
    for found, true in zip(trace.stats[:2], whole.stats[:2], strict=True):
        for name in ("norm", "absmax", "total", "output_std", "output_rms", "output_mean"):
            value, expected = getattr(found, name), getattr(true, name)
            assert (
                value == pytest.approx(expected, rel=1e-9, abs=1e-12)
                if expected is not None
                else value is None
            )
        for name in (
            "count",
            "zeros",
            "nonfinite",
            "units",
            "closed_units",
            "unit_bits",
            "output_count",
            "sampled",
        ):
            assert getattr(found, name) == getattr(true, name), name
    assert trace.stats[1].edge_norms[0] == pytest.approx(float(np.linalg.norm(signal)), rel=1e-9, abs=1e-12)
    # what the weight got is in the gradient that the optimizer saw, not in the norms of the ranks' own
    assert trace.stats[0].parameter_norms == pytest.approx((0.5 * math.sqrt(6),) * 2)


def test_passes_that_only_some_ranks_traced_stand_for_all() -> None:
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((4, 5, 6))
    row = [[0.5] * len(PARAMETER_STATISTICS)] * 2
    runs = []
    for r, infos in enumerate(replicated(4)):
        traces = [traced(4 * signal[r], signal[r], (signal[r], signal[r]), 1.0)] if r in (1, 3) else []
        runs.append(
            run_of(r, 4, [model_run("net", infos, [row], traces=traces, graphs=[NET] if traces else [])])
        )
    (trace,) = merge_ranks(runs).models[0].traces
    stats = trace.stats[0]
    assert stats.count == signal.size and stats.sampled == signal.size // 2
    expected = math.sqrt(2 * float((signal[[1, 3]] ** 2).sum()))
    assert stats.norm == pytest.approx(expected, rel=EXACT)


def test_signals_through_time_are_those_of_the_mean_loss_over_all_ranks() -> None:
    rng = np.random.default_rng(2)
    signal = rng.standard_normal((3, 7, 4, 5))  # rank, step, sample, unit
    one = np.ones((1, 3))
    row = [[0.5] * len(PARAMETER_STATISTICS)] * 2
    runs = []
    for r, infos in enumerate(replicated(3)):
        own = [float(np.linalg.norm(3 * step)) for step in signal[r]]
        through_time = (
            ThroughTime(module="rnn", layer=0, reverse=False, norms=tuple(own), samples=None if r else 4),
            ThroughTime(module="rnn", layer=0, reverse=True, norms=tuple(own[: 7 - (r == 2)])),
        )
        trace = replace(traced(one, one, (one, one), 1.0), through_time=through_time)
        runs.append(run_of(r, 3, [model_run("net", infos, [row], traces=[trace], graphs=[NET])]))
    (trace,) = merge_ranks(runs).models[0].traces
    forwards, backwards = trace.through_time
    assert (forwards.reverse, forwards.samples, backwards.reverse, backwards.samples) == (
        False,
        4,
        True,
        None,
    )
    assert forwards.norms == pytest.approx([float(np.linalg.norm(signal[:, t])) for t in range(7)], rel=EXACT)
    known = [math.sqrt(1.5) * float(np.linalg.norm(signal[:2, t])) for t in range(7)]
    assert backwards.norms == pytest.approx(known, rel=EXACT)  # of the ranks whose sequences are as long


def test_a_unit_is_closed_where_it_is_on_all_ranks() -> None:
    gates = [np.array([[1.0, 0, 0, 2]]), np.array([[0.0, 3, 0, 2]])]
    came = np.ones((1, 4))
    row = [[0.5] * len(PARAMETER_STATISTICS)] * 2
    runs = [
        run_of(
            r,
            2,
            [
                model_run(
                    "net", infos, [row], traces=[traced(came, came, (came, gates[r]), 1.0)], graphs=[NET]
                )
            ],
        )
        for r, infos in enumerate(replicated(2))
    ]
    assert [r.models[0].traces[0].stats[1].closed_units for r in runs] == [2, 2]
    assert merge_ranks(runs).models[0].traces[0].stats[1].closed_units == 1


def test_other_graphs_on_other_ranks_stay_apart() -> None:
    other = replace(
        NET,
        key="other",
        operations=(*NET.operations[:1], replace(NET.operations[1], name="Tanh"), NET.operations[2]),
    )
    row = [[0.5] * len(PARAMETER_STATISTICS)] * 2
    signal = np.ones((2, 3))
    runs = []
    for r, infos in enumerate(replicated(2)):
        graph = NET if r == 0 else other
        trace = replace(traced(2 * signal, signal, (signal, signal), 1.0), graph=graph.key)
        runs.append(run_of(r, 2, [model_run("net", infos, [row], traces=[trace], graphs=[graph])]))
    (model,) = merge_ranks(runs).models
    assert sorted(model.graphs) == ["k", "other"] == sorted(t.graph for t in model.traces)
    assert [t.stats[0].norm for t in model.traces] == pytest.approx([math.sqrt(6)] * 2)


# --- snapshots -----------------------------------------------------------------------------------------------


@few
@given(st.integers(1, 4), st.integers(0, 2**32))
def test_snapshots_of_the_pieces_are_those_of_the_whole(parts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(400 * parts)
    pieces = np.split(values, parts)
    levels = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    spread = Spread({"w": [400 * i for i in range(parts + 1)]}, 1)
    tables = [{"w": rng.standard_normal((1, len(values)))} for _ in range(3)]
    runs: list[Run] = []
    for run, piece in zip(spread.runs(Whole(*tables)), pieces, strict=True):
        shot = Snapshot(
            model=0,
            step=0,
            parameter=0,
            norm=float(np.linalg.norm(piece)),
            quantiles=tuple(np.quantile(piece, levels)),
        )
        runs.append(replace(run, models=(replace(run.models[0], snapshots=(shot,)),)))
    (shot,) = merge_ranks(runs).models[0].snapshots
    assert shot.norm == pytest.approx(float(np.linalg.norm(values)), rel=EXACT)
    assert shot.quantiles[0] == values.min() and shot.quantiles[-1] == values.max()
    assert shot.quantiles == pytest.approx(np.quantile(values, levels), abs=0.25)
