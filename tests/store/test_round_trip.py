"""What goes into the record comes out of it: every float, every name, in order."""

from __future__ import annotations

import math
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_helpers import model_event, run_info, step_event
from store_strategies import graphs, infos, layers, maybe_names, names, numbers, run_infos, snapshots
from store_strategies import statistics as stats_rows
from store_strategies import traces as trace_strategy

from unvanish.errors import RecordError
from unvanish.schema.graph import Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    ArchitectureEvent,
    GraphEvent,
    Incident,
    ModelEvent,
    ModelInfo,
    Run,
    Skipped,
    StepEvent,
    TraceEvent,
)
from unvanish.store import RunWriter, read_run

few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def same(a: Any, b: Any) -> bool:
    """Equality that takes NaN for NaN. The sign of a zero is lost: SQLite keeps 0.0 and -0.0 as one."""
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or a == b
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def written(*events: Any, info: Any = None, message: str | None = None) -> Run:
    """A run with these events, each in a write of its own, read back."""
    with tempfile.TemporaryDirectory() as folder:
        writer = RunWriter(Path(folder) / "run", info or run_info())
        for event in events:
            writer.write([event])
        writer.close("finished", message)
        return read_run(Path(folder) / "run")


@few
@given(infos(0, 2), run_infos, maybe_names)
def test_infos_survive(model: ModelInfo, info: Any, message: str | None) -> None:
    run = written(ModelEvent(info=model), info=info, message=message)
    assert same(run.info, info)
    assert same(run.models[0].info, model)
    assert run.message == message
    assert run.status == "finished"


@few
@given(
    st.lists(
        st.tuples(numbers, st.none() | numbers, st.none() | st.tuples(stats_rows, stats_rows)), max_size=6
    )
)
def test_steps_survive(steps: list[tuple[float, float | None, Any]]) -> None:
    events = [
        StepEvent(model=0, step=i, seconds=seconds, loss=loss, rows=rows)
        for i, (seconds, loss, rows) in enumerate(steps)
    ]
    model = written(model_event(2), *events).models[0]
    assert list(model.steps) == [e.step for e in events]
    assert same(model.seconds, array("d", [e.seconds for e in events]))
    assert same(model.losses, array("d", [math.nan if e.loss is None else e.loss for e in events]))
    measured = [e for e in events if e.rows is not None]
    assert list(model.parameter_steps) == [e.step for e in measured]
    for column, name in enumerate(PARAMETER_STATISTICS):
        assert same(
            model.parameter_stats[name], array("d", [row[column] for e in measured for row in e.rows or ()])
        )


@few
@given(
    st.lists(trace_strategy, max_size=3),
    graphs,
    st.lists(layers, max_size=2),
    st.lists(snapshots, max_size=2),
)
def test_what_was_traced_survives(traces: list[Trace], graph: Any, specs: Any, snaps: Any) -> None:
    architecture = ArchitectureEvent(model=0, layers=tuple(specs))
    model = written(
        model_event(1),
        GraphEvent(model=0, graph=graph),
        *(TraceEvent(trace=t) for t in traces),
        architecture,
        *snaps,
    ).models[0]
    assert same(model.traces, tuple(sorted(traces, key=lambda t: (t.step, t.backward))))
    assert same(model.graphs, {graph.key: graph})
    assert same(model.architecture, tuple(specs))
    assert same(model.snapshots, tuple(snaps))


@few
@given(names, names, st.none() | st.integers(0, 3))
def test_incidents_and_gaps_survive_in_order(what: str, why: str, model: int | None) -> None:
    first, second = Incident(step=2, where=what, what=why), Incident(step=1, where=why, what=what)
    gap = Skipped(model=model, what=what, why=why)
    run = written(first, second, gap)
    assert run.incidents == (first, second)
    assert run.skipped == (gap,)


def test_the_last_word_on_a_model_counts(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(3, "old"), step_event(0, 3)])
    writer.write([model_event(2, "older"), model_event(2, "new")])
    info = read_run(tmp_path / "r").models[0].info
    assert (info.name, len(info.parameters)) == ("new", 2)


def test_a_parameter_that_came_late_is_nan_before(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(1), step_event(0, 1), model_event(2), step_event(1, 2)])
    first = read_run(tmp_path / "r").models[0].parameter_stats["gradient_rms"]
    assert math.isnan(first[1])
    assert list(first[2:]) == [1.0, 1.001]


def test_many_parameters_over_many_writes_keep_their_places(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(171)])
    for start in range(0, 40, 8):
        writer.write([step_event(s, 171) for s in range(start, start + 8)])
    writer.close("stopped")
    model = read_run(tmp_path / "r").models[0]
    for s, name in enumerate(PARAMETER_STATISTICS):
        expected = [step + p / 1000 + s / 1e6 for step in range(40) for p in range(171)]
        assert list(model.parameter_stats[name]) == expected


def test_a_window_is_the_slice_of_the_whole(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(4), *(step_event(s, 4) for s in range(0, 60, 3))])
    whole = read_run(tmp_path / "r").models[0]
    part = read_run(tmp_path / "r", steps=(9, 30)).models[0]
    assert list(part.steps) == list(range(9, 31, 3))
    assert list(part.parameter_stats["update_rms"]) == list(
        whole.parameter_stats["update_rms"][3 * 4 : 11 * 4]
    )


def test_dropped_events_and_notes_are_counted_and_kept(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(1)], dropped=2)
    writer.write([], dropped=3)
    writer.note("out", "a")
    writer.note("out", "b")
    run = read_run(tmp_path / "r")
    assert run.events_dropped == 5
    assert run.extra == {"out": "b"}


def test_a_write_that_fails_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(2)])
    broken = StepEvent(model=0, step=1, seconds=0.0, loss=1.0, rows=((1.0,), (2.0,)))
    with pytest.raises(RecordError):
        writer.write([step_event(0, 2), broken])
    assert list(read_run(tmp_path / "r").models[0].steps) == []
    writer.write([step_event(0, 2)])
    assert list(read_run(tmp_path / "r").models[0].steps) == [0]
