"""A record of format 1, as it was written before there were blocks: a dump of a real one of 2026-11-24."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from store_helpers import model_event, run_info
from store_strategies import small_trace

from unvanish.errors import RecordError
from unvanish.schema.run import PARAMETER_STATISTICS, TraceEvent
from unvanish.session import diagnose, load
from unvanish.store import RunWriter, list_runs, read_run

DUMP = Path(__file__).parent / "format_1.sql"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    record = sqlite3.connect(tmp_path / "old" / "run.sqlite")
    record.executescript(DUMP.read_text(encoding="utf-8"))
    record.execute("PRAGMA application_id = 0x756E7631")
    record.execute("PRAGMA user_version = 1")
    record.close()
    return tmp_path / "old"


def test_it_opens_with_all_that_it_has(folder: Path) -> None:
    run = read_run(folder)
    (model,) = run.models
    assert (run.info.id, run.status, run.info.versions["torch"]) == ("old", "finished", "2.13.0+cpu")
    assert [p.name for p in model.info.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert all(p.shard is None and p.sampled == p.numel for p in model.info.parameters)
    assert list(model.steps) == list(model.parameter_steps) == [0, 1, 2, 3]
    assert all(math.isfinite(loss) for loss in model.losses)
    assert model.parameter_stats["gradient_rms"][0] == pytest.approx(0.0287484, rel=1e-5)
    assert len(model.traces) >= 3 and len(model.snapshots) >= 4
    assert model.traces[0].stats[0].norm > 0 and model.traces[0].stats[0].sampled is None
    assert {o.name for o in model.graphs[model.traces[0].graph].operations} >= {"Addmm", "Sigmoid"}
    assert [layer.name for layer in model.architecture] == ["0", "2"]
    assert all(t.through_time == () for t in model.traces)


def test_what_it_does_not_have_is_not_a_number(folder: Path) -> None:
    model = read_run(folder).models[0]
    for name in PARAMETER_STATISTICS[7:]:
        assert len(model.parameter_stats[name]) == 16
        assert all(math.isnan(v) for v in model.parameter_stats[name])
    assert (len(model.clips), len(model.learning_rates), len(model.parameter_until)) == (0, 0, 0)


def test_a_window_the_list_and_the_diagnosis_work_too(folder: Path) -> None:
    model = read_run(folder, steps=(1, 2)).models[0]
    assert list(model.steps) == list(model.parameter_steps) == [1, 2]
    assert [i.id for _, i, _ in list_runs(folder.parent)] == ["old"]
    assert diagnose(load(folder)).models[0].steps == 4


def test_one_of_format_2_from_before_time_steps_were_measured(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(1), TraceEvent(trace=small_trace(3))])
    writer.close("finished")
    assert read_run(tmp_path / "r").models[0].traces == (small_trace(3),)
    record = sqlite3.connect(tmp_path / "r" / "run.sqlite")
    record.execute("DROP TABLE through_time")
    record.commit()
    record.close()
    assert read_run(tmp_path / "r").models[0].traces == (replace(small_trace(3), through_time=()),)


def test_one_that_lacks_what_every_record_had_is_refused_in_one_line(folder: Path) -> None:
    record = sqlite3.connect(folder / "run.sqlite")
    record.execute("DROP TABLE steps")
    record.close()
    with pytest.raises(RecordError, match=r"can't be read \(no such table: steps\); check") as said:
        read_run(folder)
    assert "\n" not in str(said.value)
