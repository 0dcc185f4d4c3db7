"""The view: every number that the page draws, computed and finite; what is no number is marked as such."""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders as b
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unvanish.present.series import bucket_extremes, flat_stretches, number, spread
from unvanish.present.signal import colour_limits, relative_signal, signal_map, weighted_operations
from unvanish.present.trials import PATCH_SIGNS, patch_text, trials_view
from unvanish.present.view import build_view
from unvanish.present.waterfall import chain_rows, power
from unvanish.schema.chain import Factor, Fork, Recurrence, TimeStep, Way
from unvanish.schema.graph import Graph
from unvanish.schema.run import PARAMETER_STATISTICS
from unvanish.schema.treatment import Untried


@pytest.fixture(scope="module")
def view() -> dict[str, Any]:
    return build_view(b.run(), b.diagnosis(), (b.chain(),), b.treatment())


def test_the_whole_view_is_json_without_nan(view: dict[str, Any]) -> None:
    assert json.loads(json.dumps(view, allow_nan=False)) == view


def test_relative_signal_is_the_log_of_norm_times_spread_over_that_of_the_output_layer() -> None:
    names = b.layer_names()
    model = b.model_run()
    graph = model.graphs["g0"]
    cells = relative_signal(model.traces[0], graph)
    assert cells[names[-1]] == 0.0
    expected = math.log10(b.vanishing_norm(0, b.LAYERS, 0) / b.vanishing_norm(b.LAYERS - 1, b.LAYERS, 0))
    assert cells[names[0]] == pytest.approx(expected)


def test_relative_signal_does_not_change_when_a_layer_is_rescaled() -> None:
    """A ReLU pair scaled by 100 and 1/100 computes the same; norm alone would move by a factor of 100."""
    model = b.model_run()
    graph, trace = model.graphs["g0"], model.traces[0]
    stats = list(trace.stats)
    stats[3] = replace(stats[3], norm=stats[3].norm / 100, output_std=0.25 * 100)
    scaled = replace(trace, stats=tuple(stats))
    assert relative_signal(scaled, graph)["layers.3"] == pytest.approx(
        relative_signal(trace, graph)["layers.3"]
    )
    raw = relative_signal(scaled, graph, gauge_free=False)["layers.3"]
    assert isinstance(raw, float)
    assert relative_signal(trace, graph, gauge_free=False)["layers.3"] == pytest.approx(raw + 2)


def test_signal_falls_back_to_norms_for_all_layers_when_one_spread_is_unknown() -> None:
    model = b.model_run()
    trace = model.traces[0]
    stats = (replace(trace.stats[0], output_std=None), *trace.stats[1:])
    model = replace(model, traces=(replace(trace, stats=stats), *model.traces[1:]))
    assert signal_map(model)["gauge_free"] is False


def test_map_has_rows_in_execution_order_and_marks_what_is_no_number(view: dict[str, Any]) -> None:
    signal = view["models"][0]["signal"]
    assert signal["rows"] == b.layer_names()
    assert len(signal["steps"]) == b.TRACES
    assert signal["cells"][b.NAN_AT[0]][b.NAN_AT[1]] == "nan"
    assert signal["cells"][b.ZERO_AT[0]][b.ZERO_AT[1]] == "zero"
    assert signal["cells"][b.MISSING_AT[0]][b.MISSING_AT[1]] == "unmeasured"
    assert signal["counts"] == {"nan": 1, "zero": 1, "unmeasured": 1}
    assert "layers.0" in signal["summary"]


def test_an_early_spike_does_not_stretch_the_colours_but_the_most_starved_layer_is_not_clipped() -> None:
    signal = signal_map(b.model_run())
    spike = signal["cells"][b.LAYERS - 2][b.SPIKE]
    usual = [row[t] for row in signal["cells"] for t in range(2, b.TRACES) if isinstance(row[t], float)]
    assert spike > 4
    assert signal["high"] < 1.5
    assert signal["low"] <= min(usual)
    assert signal["clipped"] >= 1


def test_colours_of_a_healthy_net_are_not_made_dramatic() -> None:
    low, high = colour_limits([[-0.2, -0.1], [0.1, 0.0]])
    assert high - low >= 2
    assert low <= -0.2


def test_more_traces_than_columns_keep_every_nan_and_zero() -> None:
    model = b.model_run()
    many = [replace(model.traces[t % b.TRACES], step=t) for t in range(1700)]
    signal = signal_map(replace(model, traces=tuple(many)))
    assert len(signal["steps"]) == 400
    assert signal["traced"] == 1700
    assert signal["counts"]["nan"] > 0
    assert signal["counts"]["zero"] > 0


def test_a_layer_that_is_used_twice_has_a_row_for_each_use_and_new_graphs_add_rows_in_place() -> None:
    small = b.graph(["a", "c"])
    twice = replace(small.operations[0], index=9)
    assert list(weighted_operations(Graph(key="k", operations=(*small.operations, twice)))) == [
        "a",
        "c",
        "a #2",
    ]
    bigger = replace(b.graph(["a", "b", "c"]), key="g1")
    one = b.model_run(["a", "c"])
    traces = (*one.traces[:3], *(replace(t, graph="g1") for t in b.traces(["a", "b", "c"], bigger)[3:6]))
    model = replace(one, graphs={"g0": small, "g1": bigger}, traces=traces)
    assert signal_map(model)["rows"] == ["a", "b", "c"]


def test_waterfall_starts_at_zero_and_ends_at_the_sum_of_the_decades(view: dict[str, Any]) -> None:
    chain = view["models"][0]["chains"][0]
    assert len(chain["rows"]) == 22
    assert chain["rows"][0]["from"] == 0
    assert chain["rows"][-1]["to"] == pytest.approx(b.chain().decades, abs=1e-3)
    for before, after in zip(chain["rows"][:-1], chain["rows"][1:], strict=True):
        assert before["to"] == after["from"]
    assert chain["rows"][0]["predicted"] == pytest.approx(math.log10(0.5774), abs=1e-4)
    assert chain["sentence"].startswith(
        "Of the 9.9 decades lost between layers.11 and layers.0 at step 0, sigmoid derivatives took 7.3"
    )


def test_waterfall_stops_where_nothing_passes() -> None:
    chain = build_view(b.run(), b.diagnosis(), (b.dead_chain(),))["models"][0]["chains"][0]
    assert chain["rows"][5]["mark"] == "zero"
    assert chain["rows"][5]["to"] is None
    assert chain["rows"][6]["from"] is None
    assert "exactly zero" in chain["sentence"]
    assert chain["total"] is None


def test_a_long_product_is_grouped_and_still_adds_up() -> None:
    long = b.chain([f"l.{i}" for i in range(300)])
    rows = chain_rows(long)
    assert len(rows) <= 60
    assert sum(r.decades for r in rows) == pytest.approx(sum(f.decades for f in long.factors))
    assert sum(r.factors for r in rows) == len(long.factors)


def test_weights_show_first_starved_and_last_first(view: dict[str, Any]) -> None:
    weights = view["models"][0]["weights"]
    assert [weights["parameters"][i]["name"] for i in weights["default"]] == [
        "layers.0.weight",
        "layers.6.weight",
        "layers.11.weight",
    ]
    first = weights["parameters"][0]
    assert len(first["bands"]) == 7
    assert all(len(band) == len(first["steps"]) for band in first["bands"])


def test_the_most_starved_layer_is_among_the_weights_shown_first() -> None:
    told = b.diagnosis([f"layers.{i}" for i in (4, 5, 6)])
    weights = build_view(b.run(), told, ())["models"][0]["weights"]
    assert "layers.4.weight" in [weights["parameters"][i]["name"] for i in weights["default"]]


def test_a_weight_that_turned_nan_is_a_gap_and_is_counted() -> None:
    model = b.model_run()
    bad = replace(model.snapshots[3], norm=math.nan, quantiles=(math.nan,) * 7)
    model = replace(model, snapshots=(*model.snapshots[:3], bad, *model.snapshots[4:]))
    first = build_view(b.run(model), b.diagnosis(), ())["models"][0]["weights"]["parameters"][0]
    assert first["norm"][3] is None
    assert first["non_finite"] == 1


def test_loss_marks_nan_apart_from_a_loss_that_was_never_seen() -> None:
    model = b.model_run()
    losses = array("d", model.losses)
    losses[5] = losses[9] = math.nan
    losses[7] = math.inf
    model = replace(model, losses=losses, unseen_losses=frozenset({9}))
    loss = build_view(b.run(model), b.diagnosis(), ())["models"][0]["loss"]
    assert loss["non_finite_steps"] == [5, 7]
    assert loss["unseen"] == 1
    assert loss["finite"] == b.STEPS - 3
    assert "NaN or infinite at 2 steps" in loss["summary"]


def test_loss_over_a_wide_range_is_drawn_on_a_log_axis_and_long_ones_are_shortened() -> None:
    model = b.model_run()
    n = 50_000
    falling = np.exp(-np.linspace(0, 9, n))
    falling[31_111] = 77.0
    model = replace(model, steps=array("q", range(n)), losses=array("d", falling.tolist()))
    loss = build_view(b.run(model), b.diagnosis(), ())["models"][0]["loss"]
    assert loss["log"] is True
    assert len(loss["steps"]) <= 2000
    assert max(loss["values"]) == 77.0, "the spike is kept"
    assert build_view(b.run(), b.diagnosis(), ())["models"][0]["loss"]["log"] is False


def test_treatments_carry_predicted_and_measured_and_curves_with_their_range(view: dict[str, Any]) -> None:
    rows = view["treatment"]["rows"]
    assert rows[0]["role"] == "baseline"
    assert view["treatment"]["recipe"] == "recipe.json", "as it lies in the run's folder"
    relu = next(r for r in rows if r["name"] == "relu")
    assert (relu["predicted"], relu["measured"], relu["outcome"]) == (0.167, 0.175, "no_better")
    assert relu["loss_text"].startswith("2.28 [")
    curve = relu["curve"]
    assert all(lo <= m <= hi for lo, m, hi in zip(curve["low"], curve["mean"], curve["high"], strict=True))
    failed = next(r for r in rows if r["name"] == "hot")
    assert failed["measured"] is None
    assert failed["measured_text"] == "-"
    assert [r["name"] for r in rows if r["chosen"]] == ["residual"]


def test_a_cut_off_run_says_so_and_a_crash_tells_its_last_words() -> None:
    assert "cut off" in build_view(b.run(status="cut_off"), b.diagnosis(), ())["run"]["status_text"]
    crashed = replace(b.run(status="crashed"), message="Traceback\nValueError: no such thing")
    assert build_view(crashed, b.diagnosis(), ())["run"]["status_text"].endswith("ValueError: no such thing")


def test_a_run_without_models_or_traces_has_a_view() -> None:
    empty = replace(b.run(), models=())
    assert build_view(empty, replace(b.diagnosis(), models=()), ())["models"] == []
    bare = replace(b.model_run(), traces=(), graphs={}, snapshots=(), steps=array("q"), losses=array("d"))
    model = build_view(b.run(bare), replace(b.diagnosis(), models=()), ())["models"][0]
    assert model["signal"]["rows"] == []
    assert model["loss"]["steps"] == []
    assert model["verdict"] == "inconclusive"


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=3000), st.integers(2, 500))
def test_bucket_extremes_keep_both_ends_of_the_range(values: list[float], points: int) -> None:
    data = np.array(values)
    kept = bucket_extremes(data, points)
    assert len(kept) <= max(points, 2)
    assert data[kept].min() == data.min()
    assert data[kept].max() == data.max()
    assert list(kept) == sorted(set(kept.tolist()))


@given(st.integers(1, 5000), st.integers(2, 300))
def test_spread_keeps_first_and_last(count: int, limit: int) -> None:
    kept = spread(count, limit)
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert len(kept) <= limit or count <= limit


@given(st.floats())
def test_number_is_finite_or_none(value: float) -> None:
    rounded = number(value)
    assert rounded is None if not math.isfinite(value) else math.isclose(rounded or 0.0, value, rel_tol=1e-4)


def test_gains_beyond_what_a_float_holds_are_told_as_infinite() -> None:
    whole = b.chain()
    grown = replace(
        whole, factors=tuple(replace(f, gain=1e250) for f in whole.factors[:4]), signal_norm=1e300
    )
    rows = build_view(b.run(), b.diagnosis(), (grown,))["models"][0]["chains"][0]["rows"]
    assert rows[-1]["to"] == pytest.approx(1000)
    assert rows[0]["gain"] == "1.00e250"
    assert (power(400), power(-400), power(-math.inf)) == (math.inf, 0.0, 0.0)


def test_a_plateau_is_found_where_the_loss_stays_and_not_where_it_falls() -> None:
    rng = np.random.default_rng(0)
    course = np.concatenate([np.full(400, 2.3), np.linspace(2.3, 0.3, 300), np.linspace(0.3, 0.1, 300)])
    found = flat_stretches(np.arange(1000), course + 0.01 * rng.standard_normal(1000))
    assert len(found) == 1
    first, last = found[0]
    assert first == 0
    assert 370 <= last <= 430


def test_a_loss_at_chance_with_noise_is_one_plateau_and_a_falling_one_is_none() -> None:
    rng = np.random.default_rng(1)
    steps = np.arange(600)
    assert flat_stretches(steps, 2.3 + 0.02 * rng.standard_normal(600)) == [[0, 599]]
    assert flat_stretches(steps, 2.3 - 2.0 * steps / 600) == []
    assert flat_stretches(steps[:10], np.ones(10)) == []


def test_a_step_at_which_no_weight_changed_is_marked() -> None:
    model = b.model_run(["a", "b", "out"])
    width, steps = len(model.info.parameters), [t.step for t in model.traces]
    changed = np.ones((len(steps), width))
    changed[4] = 0.0
    changed[6, 1:] = 0.0  # one of them did change
    changed[8] = np.nan
    stats = {s: array("d", changed.ravel().tolist()) for s in PARAMETER_STATISTICS}
    assert signal_map(replace(model, parameter_steps=array("q", steps), parameter_stats=stats))[
        "skipped"
    ] == [4]
    assert signal_map(model)["skipped"] == []


def test_gains_add_up_to_what_the_most_starved_layer_lost(view: dict[str, Any]) -> None:
    signal = view["models"][0]["signal"]
    assert signal["gains"][-1] is None
    assert sum(signal["gains"][:-1]) == pytest.approx(signal["profile"][0], abs=0.06)


def test_evidence_and_layers_lead_to_their_row_of_the_map(view: dict[str, Any]) -> None:
    finding = view["models"][0]["findings"][0]
    rows = view["models"][0]["signal"]["rows"]
    assert [rows[r] for r in finding["layer_rows"]] == finding["layers"]
    assert [rows[e["row"]] for e in finding["evidence"]] == ["layers.0", "layers.0"]
    told = b.diagnosis(["layers.3.weight", "nowhere", "layers"])
    lost = build_view(b.run(), told, ())["models"][0]["findings"][0]
    assert [rows[r] if r is not None else None for r in lost["layer_rows"]] == ["layers.3", None, None]


def test_forks_and_time_steps_of_a_chain_are_told() -> None:
    ways = tuple(Way(label=f"w{i}", operation=i, norm=0.5, share=0.125, followed=i == 0) for i in range(8))
    fork = Fork(kind="sum", layer="block", operation=3, gain=1.5, ways=ways)
    times = tuple(TimeStep(step=t, signal_norm=10.0 ** (t - 4), gradient_norm=None) for t in range(5))
    chain = replace(
        b.chain(), forks=(fork,) * 20, recurrences=(Recurrence(layer="rnn", steps=times, fused=True),)
    )
    (told,) = build_view(b.run(), b.diagnosis(), (chain,))["models"][0]["chains"]
    assert len(told["forks"]) + told["more_forks"] == 20
    assert (len(told["forks"][0]["ways"]), told["forks"][0]["more"]) == (6, 2)
    assert told["forks"][0]["ways"][0] == {"label": "w0", "share": 0.125, "norm": "0.500", "followed": True}
    (recurrence,) = told["recurrences"]
    assert recurrence["signal"] == [-4, -3, -2, -1, 0]
    assert recurrence["gain_per_step"] == "0.100"
    dead = replace(times[0], signal_norm=0.0)
    chain = replace(chain, recurrences=(Recurrence(layer="rnn", steps=(dead, *times[1:]), fused=True),))
    (told,) = build_view(b.run(), b.diagnosis(), (chain,))["models"][0]["chains"]
    assert told["recurrences"][0]["signal"][0] is None


def test_the_patch_is_read_from_the_folder_of_the_run_and_from_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    folder.mkdir()
    (folder / "fix.diff").write_text("--- a\n+++ b\n+x\n", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (folder / "link.diff").symlink_to(tmp_path / "secret.txt")
    assert patch_text("fix.diff", str(folder)) == "--- a\n+++ b\n+x\n"
    assert patch_text(str(folder / "fix.diff"), str(folder)) == "--- a\n+++ b\n+x\n"
    for elsewhere in (
        "../secret.txt",
        str(tmp_path / "secret.txt"),
        "link.diff",
        "gone.diff",
        "\0",
        ".",
        None,
    ):
        assert patch_text(elsewhere, str(folder)) is None
    (folder / "long.diff").write_text("x" * (PATCH_SIGNS + 5), encoding="utf-8")
    long = patch_text("long.diff", str(folder))
    assert long is not None
    assert long.endswith("(the rest is in long.diff)\n")


def test_what_was_not_tried_is_told_with_its_reason() -> None:
    result = replace(
        b.treatment(),
        untried=(Untried(name="gated_rnn", title="", why="there is no recurrence"),),
        notes=("by hand",),
    )
    told = trials_view(result, "runs/x")
    assert told["untried"] == [{"name": "gated_rnn", "title": "gated_rnn", "why": "there is no recurrence"}]
    assert told["notes"] == ["by hand"]


def test_a_layer_that_the_map_knows_by_a_part_of_it_still_has_a_place() -> None:
    names = ["blocks.0.linear", "blocks.1.linear", "blocks.10.linear"]
    told = b.diagnosis(names)
    found = replace(told.models[0].findings[0], layers=("blocks.1", "blocks.10", "blocks"))
    told = replace(told, models=(replace(told.models[0], findings=(found,)),))
    view = build_view(b.run(b.model_run(names)), told, ())
    assert view["models"][0]["findings"][0]["layer_rows"] == [1, 2, None]


def test_many_factors_near_one_are_not_lost_together() -> None:
    factor = Factor(
        name="Linear", kind="weight", module="m", operation=0, gain=0.993, bound=None, open_share=None
    )
    many = replace(b.chain(), factors=(factor,) * 900)
    rows = chain_rows(many)
    assert sum(r.decades for r in rows) == pytest.approx(900 * math.log10(0.993))
    assert chain_rows(replace(b.chain(), factors=(factor,) * 3)) == ()
