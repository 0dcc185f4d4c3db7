"""The map in block characters: what a cell becomes, that it fits, that nothing bad is folded away."""

from __future__ import annotations

import io
from typing import Any

import builders as b
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unvanish.present.blocks import SPARKS, map_lines, print_maps, sparkline, worst
from unvanish.present.live_text import live_lines, live_models
from unvanish.present.view import build_view


def signal(cells: list[list[Any]], names: list[str] | None = None) -> dict[str, Any]:
    steps = list(range(len(cells[0])))
    return {"rows": names or [f"layer{i}" for i in range(len(cells))], "steps": steps, "cells": cells, "low": -4.0, "high": 0.0}  # fmt: skip


def drawn(made: dict[str, Any], width: int = 60, height: int = 20) -> list[str]:
    return [line.plain for line in map_lines(made, width, height, colour=False)]


def test_a_row_is_shaded_by_its_signal_and_ends_in_its_number() -> None:
    lines = drawn(signal([[-4.0, -4.0, -4.0], [-2.0, -1.9, -1.0], [0.0, 0.0, 0.0]]))
    assert lines[0] == "layer0 \u2591\u2591\u2591 \N{MINUS SIGN}4.0"
    assert lines[1] == "layer1 \u2593\u2593\u2588 \N{MINUS SIGN}1.0"
    assert lines[2] == "layer2 \u2588\u2588\u2588 0.0"
    assert "step 0 to 2" in lines[3]


def test_marks_are_signs_of_their_own() -> None:
    assert drawn(signal([[-1.0, "nan", "zero", "unmeasured", 0.0]]))[0] == "layer0 \u2588!0\u00b7\u2588 0.0"


def test_folding_hides_no_mark_and_no_starved_layer() -> None:
    cells: list[list[Any]] = [[0.0] * 300 for _ in range(200)]
    cells[77][150], cells[120][9], cells[199][299] = "nan", "zero", -4.0
    lines = drawn(signal(cells), width=80, height=12)
    assert len(lines) == 12
    assert all(len(line) <= 80 for line in lines)
    body = "".join(lines[:-1])
    assert body.count("!") == body.count("0 ") + 1 - body.count("0 ") == 1
    assert "\u2591" in lines[-2]


@given(st.lists(st.one_of(st.floats(-9, 9), st.sampled_from(["nan", "zero", "unmeasured"])), min_size=1))
def test_of_several_cells_the_worst_is_told(cells: list[Any]) -> None:
    found = worst(cells, 1.0)
    numbers = [c for c in cells if isinstance(c, float)]
    if "nan" in cells or "zero" in cells:
        assert found == ("nan" if "nan" in cells else "zero")
    elif numbers:
        assert found in (min(numbers), max(numbers))
    else:
        assert found == "unmeasured"


def test_a_sparkline_rises_with_its_values_and_leaves_gaps() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8) == SPARKS
    assert sparkline([0.0, None, float("nan"), 7.0], 4) == f"{SPARKS[0]}  {SPARKS[-1]}"
    assert sparkline([5.0] * 100, 10) == SPARKS[0] * 10
    assert sparkline([], 10) == sparkline([None], 0) == ""
    assert sparkline([1e308, -1e308, 1e308], 3) == f"{SPARKS[-1]}{SPARKS[0]}{SPARKS[-1]}"


@given(st.lists(st.floats(allow_nan=True), max_size=50), st.integers(1, 20))
def test_a_sparkline_never_fails_nor_overflows(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) <= width


def test_hostile_names_stay_on_their_line() -> None:
    made = signal([[0.0], [0.0]], [f"\x1b[2J{b.MARKUP}\n\r", "\u202e" * 10_000])
    for line in drawn(made, width=70):
        assert len(line) <= 70
        assert not set(line) & set("\x1b\n\r\u202e")


def test_the_text_report_has_no_colour_in_a_pipe_and_no_long_line() -> None:
    stream = io.StringIO()
    print_maps(build_view(b.run(), b.diagnosis(), ()), Console(file=stream))
    text = stream.getvalue()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert [line.split()[0] for line in text.splitlines()[3:15]] == b.layer_names()


@pytest.mark.parametrize("height", [8, 18])
@pytest.mark.parametrize("width", [40, 109])
def test_the_live_view_fits_exactly(height: int, width: int) -> None:
    models = live_models(build_view(b.run(), b.diagnosis(), ()), {"net": 60.0})
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    lines = live_lines(models, console, height, "http://127.0.0.1:8777/run/x", 1200)
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)
    assert "\u2501" * 20 in lines[2]
    assert "step 600 of 1,200" in lines[2]
    if width > 80:
        assert "1:00 left  10.0/s  loss 2.303" in lines[2]
        assert lines[3].startswith("So far  Sick: the gradients vanish")
    assert "No model has made a step yet." in live_lines((), console, height, "u", None)[2]
