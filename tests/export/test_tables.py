"""Every number of a table against where it comes from; the files against the tables."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from export_names import FORMULA
from hypothesis import given
from hypothesis import strategies as st

from unvanish import session
from unvanish.cli import main
from unvanish.cli import unvanish as command
from unvanish.errors import RecordError, UsageError
from unvanish.export import files
from unvanish.export.files import harmless, write_csv, write_json
from unvanish.export.tables import Row, Table, tables
from unvanish.present.signal import signal_map
from unvanish.schema.run import PARAMETER_STATISTICS, Run


@pytest.fixture(scope="module")
def made(run: Run) -> dict[str, Table]:
    return {table.name: table for table in tables(run, session.diagnose(run))}


def rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.names, row, strict=True)) for row in table.rows()]


def test_a_step_s_row_is_what_was_recorded_of_it(made: dict[str, Table], run: Run) -> None:
    model, told = run.models[0], rows(made["steps"])
    assert [r["step"] for r in told] == list(range(40))
    assert [r["loss"] for r in told[:39]] == list(model.losses)[:39]
    assert math.isnan(told[39]["loss"])
    assert {r["learning_rate"] for r in told} == {0.1}
    assert {r["clip"] for r in told} == {None}


def test_a_parameter_s_value_stands_with_its_name_and_step(made: dict[str, Table], run: Run) -> None:
    model, told = run.models[0], rows(made["parameters"])
    width = len(model.info.parameters)
    assert len(told) == width * len(model.parameter_steps) * len(PARAMETER_STATISTICS)
    found = {(r["statistic"], r["step"], r["parameter"]): r["value"] for r in told}
    for k, info in enumerate(model.info.parameters):
        for i in (0, 5):
            step = model.parameter_steps[i]
            for name in ("gradient_rms", "update_changed"):
                assert found[name, step, info.name] == model.parameter_stats[name][i * width + k]
    assert all(r["value"] is None for r in told if r["statistic"] == "adam_suppression")


def test_the_signal_is_the_map_s(made: dict[str, Table], run: Run) -> None:
    drawn = signal_map(run.models[0])
    told = {(r["layer"], r["step"]): r["log10_signal"] for r in rows(made["signal"]) if r["backward"] == 0}
    assert {layer for layer, _ in told} == set(drawn["rows"])
    marks = {"nan": math.nan, "zero": -math.inf}
    for layer, line in zip(drawn["rows"], drawn["cells"], strict=True):
        for step, cell in zip(drawn["steps"], line, strict=True):
            assert told[layer, step] == pytest.approx(marks.get(cell, cell), abs=0.006, nan_ok=True)


def test_a_finding_s_layers_are_a_json_list(made: dict[str, Table]) -> None:
    first = rows(made["findings"])[0]
    assert isinstance(json.loads(first["layers"]), list)
    assert first["summary"]


def test_csv_files_hold_the_tables(made: dict[str, Table], tmp_path: Path) -> None:
    paths = write_csv(made.values(), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(f"{name}.csv" for name in made)
    for path in paths:
        table = made[path.stem]
        with path.open(encoding="utf-8", newline="") as file:
            head, *lines = list(csv.reader(file))
        assert tuple(head) == table.names
        expected = [
            ["" if v is None else harmless(v) if isinstance(v, str) else str(v) for v in r]
            for r in table.rows()
        ]
        assert lines == expected
    text = (tmp_path / "out" / "signal.csv").read_text()
    assert f"'{FORMULA}" in text
    assert f",{FORMULA}" not in text


def test_the_json_file_holds_the_tables(made: dict[str, Table], run: Run, tmp_path: Path) -> None:
    told = json.loads(write_json(run, made.values(), tmp_path / "run.json").read_text())
    assert told["run"]["id"] == run.info.id
    for name, table in made.items():
        there = rows(table)
        assert len(told[name]) == len(there)
        for mine, theirs in zip(told[name], there, strict=True):
            for key, value in theirs.items():
                odd = isinstance(value, float) and not math.isfinite(value)
                assert mine[key] == (str(value) if odd else value)


def test_parquet_files_hold_the_tables(made: dict[str, Table], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from unvanish.export.parquet import write_parquet

    for path in write_parquet(made.values(), tmp_path):
        table, read = made[path.stem], parquet.read_table(path)
        assert tuple(read.column_names) == table.names
        for mine, theirs in zip(
            zip(*(c.to_pylist() for c in read.columns), strict=True), table.rows(), strict=True
        ):
            assert [repr(v) for v in mine] == [repr(v) for v in theirs]


def test_no_row_groups_are_lost_where_there_are_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from unvanish.export import parquet as writer

    monkeypatch.setattr(writer, "ROWS_AT_ONCE", 3)
    table = Table(
        name="t", columns=(("n", "integer"), ("s", "text")), rows=lambda: ((i, "\ud800") for i in range(7))
    )
    (path,) = writer.write_parquet([table], tmp_path)
    assert parquet.ParquetFile(path).num_row_groups == 3
    assert parquet.read_table(path)["n"].to_pylist() == list(range(7))


@given(st.text(max_size=12))
def test_no_text_begins_as_a_formula_and_none_is_lost(text: str) -> None:
    told = harmless(text)
    assert not told.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert text == told.removeprefix("'")


def test_what_fails_on_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Any:
        yield ("x",)
        raise ZeroDivisionError

    (tmp_path / "t.csv").write_text("as it was")
    table = Table(name="t", columns=(("a", "text"),), rows=broken)
    with pytest.raises(ZeroDivisionError):
        write_csv([table], tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("t.csv", "as it was")]


def test_places_that_can_t_be_written_are_named(tmp_path: Path) -> None:
    table = Table(name="t", columns=(("a", "text"),), rows=lambda: iter([("x",)]))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, and a folder is needed"):
        write_csv([table], tmp_path / "file")
    with pytest.raises(RecordError, match="can't be written"):
        write_csv([table], Path("/proc/nowhere"))


@pytest.mark.parametrize(
    ("to", "place"),
    [("csv", "csv"), ("json", "run.json"), ("parquet", "parquet"), ("tensorboard", "tensorboard")],
)
def test_the_command_writes_into_the_run_s_folder_and_says_where(to: str, place: str, run: Run) -> None:
    if to == "parquet":
        pytest.importorskip("pyarrow")
    done = CliRunner().invoke(command, ["export", run.path, "--to", to])
    assert Path(done.stdout.strip()) == Path(run.path) / "export" / place
    assert (Path(run.path) / "export" / place).exists()


def test_without_pyarrow_one_line_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "unvanish.export.parquet", raising=False)
    assert main(["export", run.path, "--to", "parquet"]) == 1
    assert capsys.readouterr().err == (
        "unvanish: Parquet needs pyarrow, which is not here; pip install 'unvanish[parquet]', or use --to csv\n"
    )


def test_a_long_run_is_written_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are asked for one at a time: never are there two at once."""
    alive = 0

    class Cell(str):
        __slots__ = ()

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    most = 0

    def many() -> Any:
        nonlocal alive, most
        for _ in range(1000):
            alive += 1
            most = max(most, alive)
            row: Row = (Cell("x"),)
            yield row

    files.write_csv([Table(name="t", columns=(("a", "text"),), rows=many)], tmp_path)
    assert most <= 3
