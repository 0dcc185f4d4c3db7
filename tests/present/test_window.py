"""Some steps of a run, as exactly as they were recorded: beside the naive slice of the whole."""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import replace

import builders as b
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unvanish.present.series import LOSS_POINTS, loss_window
from unvanish.present.signal import MAP_COLUMNS, signal_map, signal_window
from unvanish.present.view import build_window
from unvanish.schema.run import ModelRun

MANY = 1000


def traced(count: int) -> ModelRun:
    """A run with so many traced steps, one every third step; a NaN in one of them alone."""
    model = b.model_run()
    traces = tuple(
        replace(t, step=3 * i)
        for i, t in enumerate(b.traces(b.layer_names(), b.graph(b.layer_names()), count))
    )
    return replace(model, traces=traces)  # fmt: skip


@pytest.fixture(scope="module")
def long_run() -> ModelRun:
    return traced(MANY)


@given(st.integers(0, 3 * MANY), st.integers(0, 3 * MANY))
def test_a_window_has_the_very_cells_of_its_steps(long_run: ModelRun, a: int, z: int) -> None:
    first, last = min(a, z), max(a, z)
    found = signal_window(long_run, first, last)
    steps = [t.step for t in long_run.traces if first <= t.step <= last]
    assert found["traced"] == len(steps)
    assert found["exact"] == (len(steps) <= MAP_COLUMNS)
    assert len(found["steps"]) == min(len(steps), MAP_COLUMNS)
    if found["exact"]:
        assert found["steps"] == steps
        for i in {0, len(steps) // 2, len(steps) - 1} if steps else ():
            alone = signal_map(
                replace(long_run, traces=tuple(t for t in long_run.traces if t.step == steps[i]))
            )
            of_rows = dict(zip(alone["rows"], alone["cells"], strict=True))
            for row, cells in zip(found["rows"], found["cells"], strict=True):
                assert cells[i] == of_rows.get(row, ["unmeasured"])[0]


def test_the_whole_map_hides_what_a_window_shows(long_run: ModelRun) -> None:
    whole = signal_map(long_run)
    assert whole["traced"] == MANY > len(whole["steps"]) == MAP_COLUMNS
    part = signal_window(long_run, 300, 600)
    assert part["rows"] == whole["rows"]
    assert len(part["steps"]) == 101 > sum(300 <= s <= 600 for s in whole["steps"])


def test_a_window_of_the_loss_is_every_step_where_it_fits() -> None:
    count = 3 * LOSS_POINTS
    losses = [math.sin(i) + 2 for i in range(count)]
    losses[10] = math.nan
    model = replace(b.model_run(), steps=array("q", range(count)), losses=array("d", losses))
    part = loss_window(model, 5, 500)
    assert part["exact"] and part["steps"] == [s for s in range(5, 501) if s != 10]
    assert part["values"] == pytest.approx([losses[s] for s in part["steps"]], rel=1e-4)
    wide = loss_window(model, 0, count)
    assert not wide["exact"] and len(wide["steps"]) <= LOSS_POINTS
    assert loss_window(model, count, 2 * count)["steps"] == []


def test_a_window_is_finite_json_even_where_nothing_is() -> None:
    model = replace(b.model_run(), traces=(), losses=array("d", [math.inf] * b.STEPS))
    json.dumps(build_window(model, 0, 10**9), allow_nan=False)
    assert build_window(model, 0, 5)["signal"] == {"rows": [], "steps": [], "cells": [], "skipped": [], "traced": 0, "exact": True}  # fmt: skip
