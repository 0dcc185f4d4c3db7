"""A long run is thinned, and what counts stays: against the list of all that was ever written."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from store_helpers import block_event, model_event, run_info

from unvanish.schema.run import PARAMETER_STATISTICS, ModelRun, Snapshot, TraceEvent
from unvanish.store import RunWriter, read_run
from unvanish.store.ladder import Limits
from unvanish.store.spaced import log_spaced
from unvanish.store.trace_choice import Kept, change, to_give_up

few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
WIDTH = len(PARAMETER_STATISTICS)
SHARE = PARAMETER_STATISTICS.index("gradient_nonfinite")
SUPPRESSION = PARAMETER_STATISTICS.index("adam_suppression")
values = st.one_of(
    st.floats(0, 8, width=32), st.sampled_from([0.0, 1e-30, 1e30, math.nan, math.inf, -math.inf])
)
losses = st.sampled_from([None, math.nan, math.nan, math.inf, -math.inf]) | st.floats(-9, 9)


@st.composite
def long_runs(draw: st.DrawFn) -> tuple[list[Any], list[Any], list[int], Limits]:
    """(tables of each step or None, losses, lengths of the blocks, limits that are soon reached)."""
    steps = draw(st.integers(1, 150) | st.integers(90, 150))
    parameters = draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tables: list[Any] = list(rng.random((steps, WIDTH, parameters)).astype("f4"))
    for at in np.flatnonzero(rng.random(steps) < draw(st.sampled_from([0.0, 0.5, 1.0]))):
        tables[at][SUPPRESSION] = math.nan
    for at in np.flatnonzero(rng.random(steps) < draw(st.sampled_from([0.0, 0.1]))):
        tables[at][:4, 0] = math.nan  # no gradient
    for at in draw(st.lists(st.integers(0, steps - 1), max_size=8)):
        tables[at] = None  # not looked at
    spots = st.tuples(
        st.integers(0, steps - 1), st.integers(0, WIDTH - 1), st.integers(0, parameters - 1), values
    )
    for step, statistic, parameter, value in draw(st.lists(spots, max_size=20)):
        if tables[step] is not None:
            tables[step][statistic, parameter] = value
    given_losses: list[Any] = rng.random(steps).tolist()
    for at, loss in draw(st.lists(st.tuples(st.integers(0, steps - 1), losses), max_size=8)):
        given_losses[at] = loss
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    row = WIDTH * parameters * 4
    limits = Limits(
        recent_bytes=draw(st.integers(1, 30)) * row,
        level_bytes=draw(st.integers(1, 30)) * row,
        stat_head=draw(st.sampled_from([0, 1, 4])),
        step_head=draw(st.sampled_from([0, 8])),
    )
    return tables, given_losses, lengths, limits


def written(folder: Path, made: tuple[list[Any], list[Any], list[int], Limits]) -> ModelRun:
    """All of it in blocks of these lengths, in turn; read back."""
    tables, given_losses, lengths, limits = made
    writer = RunWriter(folder, run_info(), limits=limits)
    parameters = next((t.shape[1] for t in tables if t is not None), 1)
    writer.write([model_event(parameters)])
    at = turn = 0
    while at < len(tables):
        count = lengths[turn % len(lengths)]
        writer.write([block_event(at, tables[at : at + count], given_losses[at : at + count])])
        at += count
        turn += 1
    writer.close("finished")
    return read_run(folder).models[0]


def looked_at(table: NDArray[Any]) -> NDArray[np.bool_]:
    """The slow, obvious rule of which values count."""
    counts = np.zeros(table.shape, bool)
    for s in range(WIDTH):
        for p in range(table.shape[1]):
            there = not math.isnan(table[s, p])
            has_gradient = not math.isnan(table[SHARE, p])
            counts[s, p] = there if s == SUPPRESSION else there or has_gradient
    return counts


def bounds(model: ModelRun) -> list[tuple[int, int]]:
    until = model.parameter_until or model.parameter_steps
    return list(zip(model.parameter_steps, until, strict=True))


def check_rows(model: ModelRun, tables: list[Any]) -> None:
    """Each measured step is in one row, whose mean, smallest and largest are those of its steps."""
    parameters = len(model.info.parameters)
    covered = [s for first, until in bounds(model) for s in range(first, until + 1) if tables[s] is not None]
    assert covered == [s for s, table in enumerate(tables) if table is not None]  # each once, in order
    for i, (first, until) in enumerate(bounds(model)):
        group = [t for t in tables[first : until + 1] if t is not None]
        counts = np.array([looked_at(t) for t in group])
        numbers = np.array(group, np.float64)
        for s, name in enumerate(PARAMETER_STATISTICS):
            for p in range(parameters):
                there = numbers[:, s, p][counts[:, s, p]]
                at = i * parameters + p
                with np.errstate(all="ignore"):
                    mean = there.mean() if len(there) else math.nan
                assert model.parameter_stats[name][at] == pytest.approx(mean, rel=1e-5, nan_ok=True)
                if not model.parameter_until:
                    continue
                finite = there[~np.isnan(there)]
                low, high = model.parameter_extremes[name]
                assert (low[at], high[at]) == pytest.approx(
                    (finite.min(), finite.max()) if len(finite) else (math.nan, math.nan), rel=0, nan_ok=True
                )


@few
@given(long_runs())
def test_thinned_rows_stand_for_all_steps_and_keep_their_extremes(made: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = written(Path(folder) / "r", made)
    check_rows(model, made[0])


@few
@given(long_runs())
def test_the_counts_of_all_rows_add_up(made: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder) / "r", made)
        record = sqlite3.connect(Path(folder) / "r" / "run.sqlite")
        blocks = record.execute(
            "SELECT level, rows, parameters, dtype, steps, until, counts, mean FROM stat_blocks"
        ).fetchall()
        record.close()
    tables = [t for t in made[0] if t is not None]
    total: Any = 0
    for level, rows, parameters, dtype, steps, until, counts, mean in blocks:
        shape = (rows, WIDTH, parameters)
        if level == 0:
            assert (counts, until) == (None, None)
            total = total + sum(looked_at(t) for t in np.frombuffer(mean, dtype).reshape(shape))
            continue
        found = np.frombuffer(zlib.decompress(counts), "<u4").reshape(shape)
        spans = np.frombuffer(until, "<i8") - np.frombuffer(steps, "<i8") + 1
        assert (found.max((1, 2)) <= spans).all()
        total = total + found.sum(0)
    assert np.array_equal(total, sum((looked_at(t).astype(int) for t in tables), np.zeros(np.shape(total))))


@few
@given(long_runs())
def test_the_steps_that_are_kept_are_real_and_hold_the_extremes_of_the_loss(made: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = written(Path(folder) / "r", made)
    given_losses = made[1]
    assert list(model.steps) == sorted(set(model.steps))
    assert model.steps[0] == 0
    assert list(model.seconds) == [s / 100 for s in model.steps]
    for step, loss in zip(model.steps, model.losses, strict=True):
        expected = given_losses[step]
        assert (step in model.unseen_losses) == (expected is None)
        assert loss == pytest.approx(math.nan if expected is None else expected, rel=0, nan_ok=True)
    numbers = [(v, s) for s, v in enumerate(given_losses) if v is not None and not math.isnan(v)]
    if numbers:
        assert min(v for v, _ in numbers) in list(model.losses)
        assert max(v for v, _ in numbers) in list(model.losses)
    broken = [s for s, v in enumerate(given_losses) if v is not None and math.isnan(v)]
    assert not broken or broken[0] in model.steps  # where it broke first, to the step


@few
@given(long_runs())
def test_the_first_and_the_last_steps_stay_whole(made: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = written(Path(folder) / "r", made)
    tables, _, _, limits = made
    measured = [s for s, table in enumerate(tables) if table is not None]
    head = measured[: 2 * limits.stat_head]
    assert bounds(model)[: len(head)] == [(s, s) for s in head]
    assert list(model.steps)[: 2 * limits.step_head] == list(range(len(tables)))[: 2 * limits.step_head]
    if measured:
        assert bounds(model)[-1] == (measured[-1], measured[-1])


@few
@given(long_runs(), st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_the_same_run_is_read_whatever_the_lengths_of_the_blocks(made: Any, lengths: list[int]) -> None:
    tables, given_losses, first, _ = made
    roomy = Limits()
    with tempfile.TemporaryDirectory() as folder:
        one = written(Path(folder) / "a", (tables, given_losses, first, roomy))
        other = written(Path(folder) / "b", (tables, given_losses, lengths, roomy))
    assert (one.steps, one.parameter_steps) == (other.steps, other.parameter_steps)
    assert one.unseen_losses == other.unseen_losses
    for a, b in ((one.losses, other.losses), *pairs(one, other)):
        assert np.array_equal(a, b, equal_nan=True)
    written_tables = [t for t in tables if t is not None]
    for s, name in enumerate(PARAMETER_STATISTICS):
        expected = np.array([t[s] for t in written_tables], np.float64).ravel()
        assert np.array_equal(one.parameter_stats[name], expected, equal_nan=True)


def pairs(one: ModelRun, other: ModelRun) -> list[tuple[Any, Any]]:
    return [(one.parameter_stats[name], other.parameter_stats[name]) for name in PARAMETER_STATISTICS]


@few
@given(long_runs(), st.integers(1, 60))
def test_an_overview_merges_rows_and_loses_none(made: Any, most: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = written(Path(folder) / "r", made)
        short = read_run(Path(folder) / "r", rows=most).models[0]
    assert (short.steps, short.losses.tobytes()) == (whole.steps, whole.losses.tobytes())
    assert len(short.parameter_steps) == min(most, len(whole.parameter_steps))
    each_end = most // 8
    assert bounds(short)[:each_end] == bounds(whole)[:each_end]
    assert bounds(short)[len(bounds(short)) - each_end :] == bounds(whole)[len(bounds(whole)) - each_end :]
    check_rows(short, made[0])


@few
@given(long_runs(), st.integers(-5, 160), st.integers(0, 5) | st.integers(0, 90))
def test_a_window_has_the_rows_of_the_whole(made: Any, first: int, length: int) -> None:
    last = first + length
    with tempfile.TemporaryDirectory() as folder:
        whole = written(Path(folder) / "r", made)
        part = read_run(Path(folder) / "r", steps=(first, last)).models[0]
    inside = [i for i, step in enumerate(whole.steps) if first <= step <= last]
    assert list(part.steps) == [whole.steps[i] for i in inside]
    assert np.array_equal(part.losses, [whole.losses[i] for i in inside], equal_nan=True)
    rows = [i for i, (low, high) in enumerate(bounds(whole)) if low <= last and high >= first]
    assert bounds(part) == [bounds(whole)[i] for i in rows]
    shape = (-1, len(whole.info.parameters))
    for name in PARAMETER_STATISTICS:
        cut = np.reshape(whole.parameter_stats[name], shape)[rows]
        assert np.array_equal(np.reshape(part.parameter_stats[name], shape), cut, equal_nan=True)
        if part.parameter_until:
            for a, b in zip(part.parameter_extremes[name], whole.parameter_extremes[name], strict=True):
                assert np.array_equal(np.reshape(a, shape), np.reshape(b, shape)[rows], equal_nan=True)


def test_a_spike_and_an_onset_are_found_again_in_a_long_run(tmp_path: Path) -> None:
    steps, spike, onset = 20_000, (70, 9_000, 19_990), 12_345
    tables = np.full((steps, WIDTH, 1), 0.5, "f4")
    tables[list(spike), 1] = 1000.0
    tables[onset:, SHARE] = 1.0
    limits = Limits(recent_bytes=50_000, level_bytes=20_000)
    model = written(tmp_path / "r", (list(tables), [1.0] * steps, [100], limits))
    assert len(model.parameter_steps) < 5_000
    found = [
        b
        for b, v in zip(bounds(model), model.parameter_extremes["gradient_absmax"][1], strict=True)
        if v == 1000
    ]
    assert [low <= s <= high for s, (low, high) in zip(spike, found, strict=True)] == [True] * 3
    assert [high - low for low, high in found][::2] == [0, 0]  # near both ends to the step
    assert all(high - low <= low // 8 for low, high in found)
    share = model.parameter_extremes["gradient_nonfinite"][1]
    low, high = next(b for b, v in zip(bounds(model), share, strict=True) if v == 1)
    assert low <= onset <= high and high - low <= onset // 8
    record = sqlite3.connect(tmp_path / "r" / "run.sqlite")
    held = record.execute("SELECT level, sum(rows), min(first) FROM stat_blocks GROUP BY level").fetchall()
    record.close()
    row = WIDTH * 4
    for level, rows, first in held:
        assert first >= (limits.stat_head << level if level else 0)
        room = limits.level_bytes // (3 * row) if level else limits.recent_bytes // row
        assert rows <= room + (limits.stat_head if level else 2 * limits.stat_head) + 100
    assert 5 <= len(held) <= (steps // limits.stat_head).bit_length()


def test_numbers_that_float32_cannot_hold_are_kept_among_others(tmp_path: Path) -> None:
    """The probe hands over float64 where it must, and goes back to float32: both come to stand in one block."""
    limits = Limits(recent_bytes=20_000, level_bytes=20_000, stat_head=2)
    writer = RunWriter(tmp_path / "r", run_info(), limits=limits)
    writer.write([model_event(1)])
    for first in range(0, 3000, 3):
        tiny = first % 2 == 0
        table = np.full((WIDTH, 1), 1e-60 if tiny else 0.5)
        writer.write([block_event(first, [table] * 3, kind="d" if tiny else "f")])
    writer.close("finished")
    model = read_run(tmp_path / "r").models[0]
    low, high = model.parameter_extremes["first_order"]
    assert bounds(model)[-1] == (2999, 2999)
    assert min(low) == 1e-60 and max(high) == 0.5
    assert set(low) | set(high) == {1e-60, 0.5}
    record = sqlite3.connect(tmp_path / "r" / "run.sqlite")
    assert record.execute("SELECT count(*) FROM stat_blocks").fetchone()[0] < 150
    record.close()


def test_a_parameter_that_comes_late_and_one_that_goes(tmp_path: Path) -> None:
    """A model that is given other parameters has rows of another width from then on."""
    limits = Limits(recent_bytes=2_000, level_bytes=2_000, stat_head=1)
    writer = RunWriter(tmp_path / "r", run_info(), limits=limits)
    writer.write([model_event(2)])
    for first, width in ((0, 1), (40, 2), (80, 3), (120, 2)):
        writer.write([block_event(first, [np.full((WIDTH, width), first + 1.0)] * 40)])
    model = read_run(tmp_path / "r").models[0]
    assert bounds(model)[-1][1] == 159
    late = np.reshape(model.parameter_stats["weight_rms"], (-1, 2))
    assert not np.isnan(late[:, 0]).any()
    for (_, until), value in zip(bounds(model), late[:, 1], strict=True):
        assert math.isnan(value) == (until < 40)
    assert late[-1].tolist() == [121.0, 121.0]


def test_models_share_what_may_be_kept(tmp_path: Path) -> None:
    limits = Limits(recent_bytes=40_000, level_bytes=8_000, stat_head=1, step_head=8)
    writer = RunWriter(tmp_path / "r", run_info(), limits=limits)
    for first in range(0, 4000, 100):
        events = [block_event(first, [np.full((WIDTH, 1), 1.0)] * 100)]
        writer.write([*events, *(type(e)(**{**fields(e), "model": 1}) for e in events)])
    writer.close("finished")
    record = sqlite3.connect(tmp_path / "r" / "run.sqlite")
    held = record.execute("SELECT sum(length(mean)) FROM stat_blocks WHERE level = 0").fetchone()[0]
    record.close()
    assert held < 60_000
    assert (tmp_path / "r" / "run.sqlite").stat().st_size < 1_500_000


def fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}


def test_a_write_that_fails_while_it_thins_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unvanish.errors import RecordError
    from unvanish.store.ladder import Shelf

    limits = Limits(recent_bytes=4_000, level_bytes=4_000, stat_head=1)
    rng = np.random.default_rng(0)
    tables = list(rng.random((300, WIDTH, 2)).astype("f4"))
    smooth = written(tmp_path / "smooth", (tables, [1.0] * 300, [30], limits))
    writer = RunWriter(tmp_path / "r", run_info(), limits=limits)
    writer.write([model_event(2)])
    delete, calls = Shelf.delete, []

    def failing(self: Shelf, table: str, block: int) -> None:
        calls.append(block)
        if len(calls) % 7 == 0:
            raise sqlite3.OperationalError("database or disk is full")
        delete(self, table, block)

    monkeypatch.setattr(Shelf, "delete", failing)
    failed = 0
    for first in range(0, 300, 30):
        while True:
            try:
                writer.write([block_event(first, tables[first : first + 30], [1.0] * 30)])
                break
            except RecordError:
                failed += 1
                calls[:] = [0] * (failed % 5)
                if failed > 60:
                    monkeypatch.setattr(Shelf, "delete", delete)
    assert failed > 5
    model = read_run(tmp_path / "r").models[0]
    assert (model.steps, bounds(model)) == (smooth.steps, bounds(smooth))
    for a, b in pairs(model, smooth):
        assert np.array_equal(a, b, equal_nan=True)


THINNING = """
import sys
sys.path.insert(0, {here!r})
import numpy as np
from store_helpers import block_event, model_event, run_info
from unvanish.store import RunWriter
from unvanish.store.ladder import Limits
writer = RunWriter({folder!r}, run_info(), limits=Limits(recent_bytes=60_000, level_bytes=30_000, stat_head=2))
writer.write([model_event(5)])
table = np.ones((9, 5), "f4")
for first in range(0, 10**7, 20):
    writer.write([block_event(first, [table * (first + i) for i in range(20)])])
    print(first + 20, flush=True)
"""


def test_kill_9_in_the_middle_of_thinning_leaves_a_run_that_opens(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / f"r{number}"
        code = textwrap.dedent(THINNING).format(here=str(Path(__file__).parent), folder=str(folder))
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(60 + 37 * number):
            said = int(child.stdout.readline())
        child.kill()  # nearly all of its time goes into writes, and nearly all of these thin
        said = max([said, *map(int, child.stdout.read().split())])
        child.wait()
        run = read_run(folder)
        model = run.models[0]
        assert run.status == "cut_off"
        assert bounds(model)[-1][1] >= said - 1
        assert model.parameter_until
        covered = [s for low, high in bounds(model) for s in range(low, high + 1)]
        assert covered == list(range(len(covered)))  # no step lost, none twice
        means = np.reshape(model.parameter_stats["weight_rms"], (-1, 5))[:, 0]
        assert means == pytest.approx([(low + high) / 2 for low, high in bounds(model)], rel=1e-5)


# --- what comes as rows, and traces -----------------------------------------------------------------------


@given(st.integers(0, 5000), st.integers(0, 600), st.integers(1, 64))
def test_log_spaced_does_not_depend_on_how_it_is_cut(first: int, count: int, an_octave: int) -> None:
    whole = [at for at in log_spaced(0, first + count, an_octave) if at >= first]
    assert list(log_spaced(first, count, an_octave)) == whole


def test_snapshots_are_thinned_evenly(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info(), limits=Limits(snapshot_bytes=48_000))
    writer.write([model_event(4)])
    for step in range(0, 1000, 2):
        writer.write([
            Snapshot(model=0, step=step, parameter=p, norm=step / 2, quantiles=(0.0,) * 7) for p in range(4)
        ])  # fmt: skip
    shots = read_run(tmp_path / "r").models[0].snapshots
    steps = [s.step for s in shots][::4]
    assert 70 <= len(steps) <= 100
    assert steps == sorted(set(steps)) and steps[:3] == [0, 2, 4] and steps[-1] == 998
    assert max(np.diff(steps)) <= 60  # no stretch is empty
    assert [s.parameter for s in shots] == [0, 1, 2, 3] * len(steps)  # each of them whole
    window = read_run(tmp_path / "r", steps=(100, 300)).models[0].snapshots
    assert window == tuple(s for s in shots if 100 <= s.step <= 300)


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=200),
    st.integers(1, 100_000),
    st.randoms(use_true_random=False),
)
def test_what_is_given_up_makes_room_and_spares_both_ends(sizes: list[int], limit: int, rng: Any) -> None:
    kept = Kept()
    for i, size in enumerate(sizes):
        kept.add(number=i, step=10 * i, size=size, change=rng.random(), in_tables=rng.random() < 0.2)
    assert kept.rows["size"].tolist() == sizes and kept.size == sum(sizes)
    gone = to_give_up(kept, limit)
    left = Kept(kept.rows[~gone])
    assert len(left) + int(gone.sum()) == len(kept)
    assert not gone.any() or sum(sizes) > limit
    assert left.size <= limit or len(left) <= 4
    assert not gone[:2].any() and not gone[-2:].any()


def test_a_copy_that_is_thrown_away_changes_nothing() -> None:
    kept = Kept()
    for i in range(40):
        kept.add(number=i, step=i, size=1)
        kept.copy().add(number=-1, step=-1, size=100)
    assert kept.rows["number"].tolist() == list(range(40)) and kept.size == 40


def test_a_trace_at_a_change_outlives_its_neighbours() -> None:
    kept = Kept()
    for i in range(400):
        kept.add(number=i, step=10 * i, size=1, change=9.0 if i == 237 else 0.01)
    assert not to_give_up(kept, 60)[[236, 237]].any()


def test_change_is_in_octaves_and_never_divides_by_zero() -> None:
    one = np.array([1.0, 2.0, 4.0])
    assert change(one, one * 8) == pytest.approx(3.0)
    assert change(one, np.array([1.0, 2.0])) == math.inf
    assert change(None, one) == math.inf
    assert change(one, np.array([1.0, 2.0, 0.0])) > 100
    assert math.isfinite(change(one, np.array([math.nan, math.inf, 0.0])))


def test_traces_that_are_given_up_leave_no_rows_behind(tmp_path: Path) -> None:
    from store_strategies import small_trace

    writer = RunWriter(tmp_path / "r", run_info(), limits=Limits(trace_bytes=30_000))
    writer.write([model_event(1)])
    for step in range(600):
        writer.write([TraceEvent(trace=small_trace(step))])
    writer.close("finished")
    traces = read_run(tmp_path / "r").models[0].traces
    assert 20 < len(traces) < 400
    assert all(t == small_trace(t.step) for t in traces)
    record = sqlite3.connect(tmp_path / "r" / "run.sqlite")
    for table in ("traces_packed", "through_time", "trace_operations", "trace_edges"):
        strays = f"SELECT count(*) FROM {table} WHERE trace NOT IN (SELECT trace FROM traces)"  # noqa: S608
        assert record.execute(strays).fetchone() == (0,)
    assert record.execute("SELECT count(*) FROM trace_operations").fetchone()[0] > 0
    record.close()
