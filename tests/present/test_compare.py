"""Two runs beside each other: cells against a naive difference, rows that match or not, the table, the page."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import builders as b
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unvanish.present.compare import (
    comparison,
    differences,
    layer_differences,
    map_difference,
    print_comparison,
)
from unvanish.present.html import render_comparison
from unvanish.present.view import build_view

CELL = st.one_of(st.floats(-20, 20), st.sampled_from(["nan", "zero", "unmeasured"]))


def view(names: list[str] | None = None, *, name: str = "net", healthy: bool = False) -> dict[str, Any]:
    return build_view(
        b.run(b.model_run(names, name=name)), b.diagnosis(names, name=name, healthy=healthy), ()
    )


def map_of(rows: list[str], steps: list[int], cells: list[list[Any]]) -> dict[str, Any]:
    return {"rows": rows, "steps": steps, "cells": cells}


@st.composite
def maps(draw: st.DrawFn) -> dict[str, Any]:
    rows = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=5))
    steps = sorted(draw(st.sets(st.integers(0, 60), max_size=8)))
    cells = [draw(st.lists(CELL, min_size=len(steps), max_size=len(steps))) for _ in rows]
    return map_of(rows, steps, cells)


@given(maps(), maps())
def test_every_cell_is_the_naive_difference(mine: dict[str, Any], other: dict[str, Any]) -> None:
    found = map_difference(mine, other)
    if found["aligned"] == "name":
        assert found["rows"] == found["rows_b"] == [r for r in mine["rows"] if r in other["rows"]]
        assert set(found["only_a"]) == set(mine["rows"]) - set(other["rows"])
        assert set(found["only_b"]) == set(other["rows"]) - set(mine["rows"])
    else:
        assert (found["rows"], found["rows_b"]) == (mine["rows"], other["rows"])
    for row, theirs, line in zip(found["rows"], found["rows_b"], found["cells"], strict=True):
        for step, cell in zip(found["steps"], line, strict=True):
            ours, others = at(mine, row, step), at(other, theirs, step)
            marks = [m for m in ("nan", "zero", "unmeasured") if m in (ours, others)]
            assert cell == (marks[0] if marks else pytest.approx(others - ours, abs=0.0051))
    json.dumps(found, allow_nan=False)


def at(made: dict[str, Any], row: str, step: int) -> Any:
    """The last cell that was measured by a step."""
    column = max(i for i, s in enumerate(made["steps"]) if s <= step)
    return made["cells"][made["rows"].index(row)][column]


def test_steps_are_those_that_both_span_and_not_too_many() -> None:
    mine = map_of(["a"], list(range(0, 2000, 2)), [[0.0] * 1000])
    other = map_of(["a"], list(range(1001, 3001, 2)), [[1.0] * 1000])
    found = map_difference(mine, other)
    assert len(found["steps"]) == len(found["cells"][0]) == 400
    assert found["steps"][0] >= 1001
    assert found["steps"][-1] <= 1998
    assert set(found["cells"][0]) == {1.0}


def test_a_run_and_itself_do_not_differ() -> None:
    one = view()
    (found,) = differences([one, one])
    numbers = [c for line in found["cells"] for c in line if isinstance(c, float)]
    assert numbers
    assert set(numbers) == {0.0}


def test_nets_without_a_common_name_are_matched_by_position_where_they_are_as_deep() -> None:
    mine, other = view(["a", "b", "c"]), view(["x", "y", "z"])
    (found,) = differences([mine, other])
    assert (found["aligned"], found["rows"], found["rows_b"]) == (
        "position",
        ["a", "b", "c"],
        ["x", "y", "z"],
    )
    (found,) = differences([mine, view(["x", "y", "z", "w"])])
    assert (found["rows"], found["only_a"]) == ([], ["a", "b", "c"])


def test_models_are_matched_by_name() -> None:
    pair = build_view(
        b.run(b.model_run(["a", "b"], name="second"), b.model_run(["c", "d"], name="first", index=1)),
        b.diagnosis(["c"], name="first"),
        (),
    )
    (found,) = differences([view(["c", "d"], name="first"), pair])
    assert (found["model"], found["rows"], found["aligned"]) == ("first", ["c", "d"], "name")


def test_the_layers_that_differ_most_come_first_and_what_is_no_number_before_them() -> None:
    mine = {"models": [{"name": "n", "signal": {"rows": list("abc"), "profile": [-1.0, -9.0, -2.0]}}]}
    other = {"models": [{"name": "n", "signal": {"rows": list("abc"), "profile": [-1.5, 0.0, "nan"]}}]}
    assert [(d.layer, d.decades) for d in layer_differences(mine, other)] == [
        ("c", None),
        ("b", 9.0),
        ("a", -0.5),
    ]


def test_the_table_says_what_each_came_to() -> None:
    stream = io.StringIO()
    print_comparison([view(), view(healthy=True)], Console(file=stream, width=200))
    text = stream.getvalue()
    assert "Sick: vanishing gradients" in text
    assert re.search(r"Healthy +layers\.0 ", text)
    assert "within a tenth of a decade" in text
    assert "\x1b" not in text


def test_the_page_holds_its_data_and_lets_nothing_out() -> None:
    hostile = [b.HOSTILE, b.MARKUP, "out"]
    both = comparison([view(hostile, name=b.HOSTILE), view(hostile, name=b.HOSTILE)])
    page = render_comparison(both)
    data = page.split('<script type="application/json" id="unvanish-data">')[1].split("</script>")[0]
    assert json.loads(data) == json.loads(json.dumps(both))
    assert b.HOSTILE not in page
    assert page.lower().count("</script") == 2
    assert "connect-src 'none'" in page.split("<script>")[0]


def test_the_command_compares_real_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    import unvanish
    from unvanish.cli import main

    paths = []
    for gain in (0.2, 1.0):
        torch.manual_seed(0)
        net = torch.nn.Sequential(*[m for _ in range(6) for m in (torch.nn.Linear(8, 8), torch.nn.Tanh())])
        for layer in net[::2]:
            torch.nn.init.orthogonal_(layer.weight, gain)
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        with unvanish.watch(net, optimizer, out=tmp_path) as w:
            for _ in range(20):
                optimizer.zero_grad()
                net(torch.randn(16, 8)).square().mean().backward()
                optimizer.step()
        paths.append(str(w.path))
    told = tmp_path / "c.json"
    assert main(["compare", *paths, "--json", str(told), "-o", str(tmp_path / "c.html")]) == 0
    text = capsys.readouterr().out
    # five factors of 0.2 lie between the first layer and the last: 5 log10(5) = 3.5 decades
    found = re.search(r"^0 +\N{MINUS SIGN}(\d\.\d) +\S+ +\+(\d\.\d)$", text, re.MULTILINE)
    assert found is not None, text
    assert float(found[2]) == pytest.approx(5 * math.log10(5), abs=0.5)
    data = json.loads(told.read_text())
    assert [v["run"]["id"] for v in data["runs"]] == [Path(p).name for p in paths]
    assert 'id="unvanish-data"' in (tmp_path / "c.html").read_text()
    assert main(["compare", paths[0]]) == 1
    assert "name two runs or more" in capsys.readouterr().err
