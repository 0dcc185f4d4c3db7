"""Which models of which ranks become one, what is done where their records differ, and what is said of it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from merge_cases import (
    Spread,
    Whole,
    model_run,
    moved,
    operation,
    parameter,
    run_of,
    signal_stats,
    statistics,
)
from store_helpers import model_event, run_info
from test_round_trip import written

from unvanish.errors import UsageError
from unvanish.schema.graph import Graph, Trace
from unvanish.schema.ranks import ranks_text, said_ranks
from unvanish.schema.run import PARAMETER_STATISTICS, Incident, ModelRun, PlaceEvent, Shard, Skipped
from unvanish.store import RunWriter, merge_ranks, read_run


def tensors(steps: int = 4, seed: int = 0, size: int = 30) -> Whole:
    rng = np.random.default_rng(seed)
    return Whole(*({"w": rng.standard_normal((steps, size))} for _ in range(3)))


def rows_of(whole: Whole) -> list[list[list[float]]]:
    return whole.rows({"w": slice(None)}, range(len(whole.gradients["w"])))


def plain(whole: Whole, name: str = "net", losses: Sequence[float] | None = None) -> ModelRun:
    """All of a model that torch does not know to be spread."""
    return model_run(name, [parameter(0, "w", 30, None)], rows_of(whole), losses=losses)


# --- the place in the record ---------------------------------------------------------------------------------


def test_the_record_knows_its_rank() -> None:
    run = written(model_event(1), PlaceEvent(rank=3, ranks=8))
    assert (run.info.rank, run.info.ranks) == (3, 8)
    assert run.extra == {}
    assert (written(model_event(1)).info.rank, written(model_event(1)).info.ranks) == (None, 1)


def test_a_rank_that_is_known_from_the_start_is_kept_too(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", replace(run_info(), rank=1, ranks=2))
    writer.close("finished")
    assert (read_run(tmp_path / "run").info.rank, read_run(tmp_path / "run").info.ranks) == (1, 2)


def test_ranks_as_text() -> None:
    assert ranks_text(range(4096)) == "0-4095"
    assert ranks_text([5]) == "5"
    assert ranks_text([3, 1, 1]) == "1,3"
    assert ranks_text([0, 4, 8, 12, 13]) == "0-12/4,13"
    assert said_ranks([2]) == "rank 2" and said_ranks([0, 1]) == "ranks 0-1"


# --- who belongs together ------------------------------------------------------------------------------------


def test_stages_of_a_pipeline_stay_apart() -> None:
    """The same names and shapes, other weights: two models, each with its rank in its name."""
    runs = [run_of(r, 2, [plain(tensors(seed=r))]) for r in range(2)]
    merged = merge_ranks(runs)
    assert [m.info.name for m in merged.models] == ["net (rank 0)", "net (rank 1)"]
    assert [m.info.index for m in merged.models] == [0, 1]
    for model, run in zip(merged.models, runs, strict=True):
        assert model.parameter_stats == run.models[0].parameter_stats


def stage(rank: int, *, last: bool, arriving: float, handed: float | None) -> ModelRun:
    """One layer: `arriving` at its output, `handed` back to whoever made its input."""
    graph = Graph(
        key=f"g{rank}", operations=(operation(0, "Addmm", parameters=("", "w")), operation(1, "Tanh", [0]))
    )
    ops = [
        signal_stats(0, np.array([0.5]), parameters=[handed, 1.0]),
        replace(signal_stats(1, np.ones(1), edges=[0.5]), norm=arriving),
    ]
    trace = Trace(
        model=0, step=0, backward=0, graph=graph.key, loss=3.0, stats=tuple(ops), output=1 if last else None
    )
    model = model_run(
        "net", [parameter(0, "w", 30, None)], rows_of(tensors(seed=rank)), traces=[trace], graphs=[graph]
    )
    return model if last else replace(model, unseen_losses=frozenset(model.steps))


def test_three_stages_become_one_model() -> None:
    """In the order of the signal that they hand back, whatever their ranks are."""
    stages = [
        stage(0, last=False, arriving=0.25, handed=0.1),
        stage(1, last=True, arriving=1.0, handed=0.5),
        stage(2, last=False, arriving=0.5, handed=0.25),
    ]
    runs = [run_of(r, 3, [m]) for r, m in enumerate(stages)]
    (model,) = merge_ranks(runs).models
    assert model.info.name == "net"
    assert [p.name for p in model.info.parameters] == ["stage0.w", "stage1.w", "stage2.w"]
    rms = [runs[r].models[0].parameter_stats["gradient_rms"] for r in (0, 2, 1)]
    assert list(model.parameter_stats["gradient_rms"]) == [x for row in zip(*rms, strict=True) for x in row]
    (trace,) = model.traces
    (graph,) = model.graphs.values()
    assert [o.parents for o in graph.operations] == [(), (0,), (1,), (2,), (3,), (4,)]
    assert [o.parameters for o in graph.operations[::2]] == [("", "stage0.w"), ("stage1.w",), ("stage2.w",)]
    assert [s.edge_norms for s in trace.stats] == [(), (0.5,), (0.25,), (0.5,), (0.5,), (0.5,)]
    assert trace.output == 5 and trace.loss == 3.0
    assert list(model.losses) == list(stages[1].losses) and not model.unseen_losses


def test_stages_whose_signals_do_not_meet_stay_apart() -> None:
    stages = [stage(0, last=False, arriving=0.25, handed=None), stage(1, last=True, arriving=1.0, handed=0.3)]
    assert len(merge_ranks([run_of(r, 2, [m]) for r, m in enumerate(stages)]).models) == 2


def test_models_with_other_names_or_shapes_keep_their_names() -> None:
    runs = [
        run_of(0, 2, [plain(tensors(), name="head")]),
        run_of(1, 2, [plain(tensors(seed=1), name="tail")]),
    ]
    assert [m.info.name for m in merge_ranks(runs).models] == ["head", "tail"]


def test_copies_that_are_kept_equal_by_hand_are_one_model() -> None:
    whole = tensors()
    runs = [run_of(r, 3, [plain(whole, losses=[r + 1.0] * 4)]) for r in range(3)]
    merged = merge_ranks(runs)
    (model,) = merged.models
    assert list(model.losses) == [2.0] * 4
    assert model.parameter_stats == runs[0].models[0].parameter_stats
    assert any("other means than DDP" in s.why for s in merged.skipped)


def test_two_data_parallel_stages_are_two_models() -> None:
    """Ranks 0 and 1 hold the first stage, 2 and 3 the second, whose parameters have the same names."""
    runs = []
    for rank in range(4):
        stage, replica = divmod(rank, 2)
        shard = Shard(
            part=0, parts=1, replica=replica, replicas=2, numel=30, samples=True, ranks=f"{2 * stage}-{2 * stage + 1}"
        )  # fmt: skip
        model = model_run(
            "net", [parameter(0, "w", 30, shard)], rows_of(tensors(seed=stage)), losses=[float(rank)] * 4
        )
        runs.append(run_of(rank, 4, [model]))
    merged = merge_ranks(runs)
    assert [m.info.name for m in merged.models] == ["net (ranks 0-1)", "net (ranks 2-3)"]
    assert [m.losses[0] for m in merged.models] == [0.5, 2.5]


def test_trainings_that_have_nothing_to_do_with_each_other_stay_apart() -> None:
    """A world of one each: searches that start a process per trial."""
    runs = [moved(run_of(None, 1, [plain(tensors(seed=s))], created=f"202{s}"), 0, 1) for s in range(2)]
    assert len(merge_ranks(runs).models) == 2


def test_a_lone_run_is_given_back_as_it_is() -> None:
    run = run_of(None, 1, [plain(tensors())])
    assert merge_ranks([run]) is run
    with pytest.raises(UsageError):
        merge_ranks([])


# --- where records differ ------------------------------------------------------------------------------------


def test_steps_at_which_a_piece_was_not_looked_at_are_left_out() -> None:
    """Every rank has a pace of its own."""
    spread = Spread({"w": [0, 10, 30]}, 1, measured={0: [0, 1, 2, 3], 1: [0, 2]})
    whole = tensors()
    merged = merge_ranks(spread.runs(whole))
    (model,) = merged.models
    assert list(model.parameter_steps) == [0, 2] and list(model.steps) == [0, 1, 2, 3]
    true = [
        statistics(*(t["w"][s] for t in (whole.gradients, whole.weights, whole.updates)))[0] for s in (0, 2)
    ]
    assert list(model.parameter_stats["gradient_rms"]) == pytest.approx(true, rel=1e-12)
    assert not merged.skipped


def test_a_copy_fills_the_gaps_of_another() -> None:
    spread = Spread({"w": [0, 10, 30]}, 2, measured={0: [0, 1], 2: [2, 3], 1: [0, 1, 2, 3], 3: [1]})
    (model,) = merge_ranks(spread.runs(tensors())).models
    assert list(model.parameter_steps) == [0, 1, 2, 3]


def test_a_rank_that_died_leaves_its_last_steps_to_the_others() -> None:
    runs = Spread({"w": [0, 10, 30]}, 1).runs(tensors(steps=6))
    dead = runs[1].models[0]
    short = replace(
        dead,
        steps=dead.steps[:3],
        seconds=dead.seconds[:3],
        losses=dead.losses[:3],
        parameter_steps=dead.parameter_steps[:3],
        parameter_stats={k: v[:3] for k, v in dead.parameter_stats.items()},
    )
    merged = merge_ranks([runs[0], replace(runs[1], models=(short,), status="cut_off")])
    (model,) = merged.models
    assert merged.status == "cut_off"
    assert list(model.parameter_steps) == list(range(6)) == list(model.steps)
    own = runs[0].models[0].parameter_stats
    assert list(model.parameter_stats["gradient_rms"][3:]) == pytest.approx(list(own["gradient_rms"][3:]))
    assert list(model.parameter_stats["first_order"][3:]) == pytest.approx(
        [3 * x for x in own["first_order"][3:]]
    )
    said = [f"{s.what}: {s.why}" for s in merged.skipped]
    assert any("the record of rank 1 ends at step 2, that of others at step 5" in line for line in said)
    assert any("some pieces are in no rank's record at 3 steps, the first is step 3" in line for line in said)


def test_a_rank_without_a_record_is_named() -> None:
    runs = Spread({"w": [0, 10, 20, 30]}, 1).runs(tensors())
    merged = merge_ranks(runs[:2])
    assert any(s.what == "rank 2" and "2 of 3 ranks left a record" in s.why for s in merged.skipped)
    assert len(merged.models[0].parameter_steps) == 4


def test_one_record_of_many_is_still_scaled_to_all() -> None:
    runs = Spread({"w": [0, 10, 30]}, 1).runs(tensors())
    (model,) = merge_ranks(runs[:1]).models
    own = runs[0].models[0].parameter_stats["first_order"]
    assert list(model.parameter_stats["first_order"]) == pytest.approx([3 * x for x in own])


def test_copies_that_drift_apart_are_an_incident() -> None:
    spread = Spread({"w": [0, 30]}, 2)
    runs = spread.runs(tensors())
    other = spread.runs(tensors())[1].models[0]
    drifted = {k: array("d", v) for k, v in other.parameter_stats.items()}
    drifted["weight_rms"][2] *= 1.01
    merged = merge_ranks([runs[0], replace(runs[1], models=(replace(other, parameter_stats=drifted),))])
    assert [i.step for i in merged.incidents] == [2]
    assert "rank 1: its copy of net differs from that of rank 0 from step 2 on" in merged.incidents[0].what


def test_rows_that_were_thinned_are_merged_stretch_by_stretch() -> None:
    """Rank 0 has thinned steps 0-3 into two rows, rank 1 has them whole: one stretch each, and its extremes."""
    runs = Spread({"w": [0, 10, 30]}, 1).runs(tensors(steps=5))
    model = runs[0].models[0]
    means, extremes = {}, {}
    for name, values in model.parameter_stats.items():
        pairs = np.array(values[:4]).reshape(2, 2)
        means[name] = array("d", [*pairs.mean(1), values[4]])
        extremes[name] = (array("d", [*pairs.min(1), values[4]]), array("d", [*pairs.max(1), values[4]]))
    thinned = replace(
        model, parameter_steps=array("q", [0, 2, 4]), parameter_until=array("q", [1, 3, 4]), parameter_stats=means,
        parameter_extremes=extremes,
    )  # fmt: skip
    (merged,) = merge_ranks([replace(runs[0], models=(thinned,)), runs[1]]).models
    assert list(merged.parameter_steps) == [0, 2, 4] and list(merged.parameter_until) == [1, 3, 4]
    other = np.array(runs[1].models[0].parameter_stats["gradient_absmax"])
    own = np.array(model.parameter_stats["gradient_absmax"])
    low, high = merged.parameter_extremes["gradient_absmax"]
    assert high[0] == max(own[:2].max(), other[:2].max()) and low[0] <= min(np.maximum(own, other)[:2])
    a, b = np.array(means["gradient_rms"]), np.array(runs[1].models[0].parameter_stats["gradient_rms"])
    expected = math.sqrt((10 * a[0] ** 2 + 20 * b[:2].mean() ** 2) / 30)
    assert merged.parameter_stats["gradient_rms"][0] == pytest.approx(expected, rel=1e-12)


def test_losses_that_a_rank_thinned_out_are_read_between_two_others() -> None:
    spread = Spread({"w": [0, 10, 30]}, 1)
    runs = spread.runs(tensors(steps=5))
    model = runs[1].models[0]
    sparse = replace(
        model, steps=array("q", [0, 2, 4]), seconds=array("d", [0, 1, 2]), losses=array("d", [4.0, 2.0, 3.0]),
    )  # fmt: skip
    full = replace(runs[0].models[0], losses=array("d", [1.0] * 5))
    merged = merge_ranks([replace(runs[0], models=(full,)), replace(runs[1], models=(sparse,))])
    assert list(merged.models[0].losses) == [2.5, 2.0, 1.5, 1.75, 2.0]
    assert any("2 losses are read between two others" in s.why for s in merged.skipped)


def test_a_loss_that_only_some_ranks_see_is_theirs() -> None:
    """NaN is a loss, no loss is none."""
    spread = Spread({"w": [0, 30]}, 3)
    models = [run.models[0] for run in spread.runs(tensors())]
    losses = [[1.0, math.nan, 3.0, 9.0], [2.0, 1.0, 5.0, 9.0], [9.0, 9.0, 9.0, 9.0]]
    unseen = [frozenset({3}), frozenset({3}), frozenset(range(4))]
    runs = [
        run_of(r, 3, [replace(m, losses=array("d", x), unseen_losses=u)])
        for r, (m, x, u) in enumerate(zip(models, losses, unseen, strict=True))
    ]
    (model,) = merge_ranks(runs).models
    assert model.losses[0] == 1.5 and math.isnan(model.losses[1]) and model.losses[2] == 4.0
    assert model.unseen_losses == {3}


# --- what is said --------------------------------------------------------------------------------------------


def test_incidents_and_skipped_keep_their_ranks() -> None:
    whole = tensors()
    common, own = Incident(step=1, where="step", what="a"), Incident(step=0, where="step", what="b")
    everywhere, once = Skipped(model=0, what="x", why="y"), Skipped(model=None, what="u", why="v")
    spread = Spread({"w": [0, 10, 30]}, 2).runs(whole)
    runs = [
        replace(
            r,
            incidents=(common, own) if i == 2 else (common,),
            skipped=(everywhere, once) if i == 3 else (everywhere,),
        )
        for i, r in enumerate(spread)
    ]
    merged = merge_ranks(runs)
    assert [i.what for i in merged.incidents] == ["rank 2: b", "ranks 0-3: a"]
    assert [(s.model, s.what, s.why) for s in merged.skipped] == [(0, "x", "y"), (None, "u", "v (rank 3)")]


def test_the_gravest_end_counts() -> None:
    runs = Spread({"w": [0, 10, 30]}, 1).runs(tensors())
    merged = merge_ranks([runs[0], replace(runs[1], status="crashed", message="ValueError: no")])
    assert (merged.status, merged.message) == ("crashed", "rank 1: ValueError: no")
    assert (merged.info.rank, merged.info.ranks) == (None, 2)


def test_of_two_records_of_a_rank_the_later_one_counts() -> None:
    runs = Spread({"w": [0, 10, 30]}, 1).runs(tensors())
    old = run_of(1, 2, [plain(tensors(seed=5))], created="2020")
    merged = merge_ranks([*runs, old])
    assert len(merged.models) == 1
    assert any(s.what == "earlier records of rank 1" for s in merged.skipped)


def test_all_statistics_are_merged() -> None:
    (model,) = merge_ranks(Spread({"w": [0, 10, 30]}, 1).runs(tensors())).models
    assert set(model.parameter_stats) == set(PARAMETER_STATISTICS)
    assert all(math.isfinite(v) for values in model.parameter_stats.values() for v in values)
