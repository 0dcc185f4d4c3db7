"""What opens when a layer is chosen, against the same in plain float64."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import builders as b
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unvanish.present.layers import LEVELS, histogram, layers_view, sizes_view
from unvanish.present.signal import named_operations, signal_map
from unvanish.schema.graph import EXPONENT_BINS, EXPONENT_FLOOR
from unvanish.schema.run import PARAMETER_STATISTICS, ModelRun

NAMES = ["a", "b", "out"]


def counts_of(values: np.ndarray) -> list[int]:
    """The record's histogram of |x| over powers of four, the obvious way."""
    found = [0] * EXPONENT_BINS
    for x in np.abs(values[values != 0]):
        found[min(max((math.floor(math.log2(x)) - EXPONENT_FLOOR) // 2, 0), EXPONENT_BINS - 1)] += 1
    return found


@given(st.lists(st.floats(-20, 5), min_size=1, max_size=60))
def test_a_histogram_holds_every_value_in_the_bin_it_names(exponents: list[float]) -> None:
    values = np.array([10.0**e for e in exponents])
    low, columns = histogram([counts_of(values)])
    width = 2 * math.log10(2)
    filled = [i for i, sign in enumerate(columns[0]) if sign != "0"]
    for e in exponents:
        assert any(low + i * width - 1e-3 <= e <= low + (i + 1) * width + 1e-3 for i in filled)
    assert columns[0][0] != "0" != columns[0][-1], "nothing empty at the ends"


def test_a_histogram_tells_the_fullest_bin_from_the_faintest() -> None:
    one = [0] * EXPONENT_BINS
    one[10], one[11] = 9_999, 1
    _, columns = histogram([one, [0] * EXPONENT_BINS, ()])
    assert columns[0][0] == LEVELS[-1]
    assert columns[0][1] == LEVELS[1]
    assert columns[1:] == ["", ""]
    assert histogram([[], []]) == (0.0, ["", ""])


def test_a_layer_has_the_size_of_its_gradient_at_every_trace() -> None:
    model = b.model_run(NAMES)
    rows = signal_map(model)["rows"]
    layer = layers_view(model, rows, named_operations(model))[0]
    assert layer["name"] == "a"
    assert layer["parameters"] == ["a.weight", "a.bias"]
    stats = {t.step: t.stats[0] for t in model.traces}
    for step, rms in zip(layer["steps"], layer["rms"], strict=True):
        s = stats[step]
        if s.operation == 0 and s.norm > 0:
            assert rms == pytest.approx(math.log10(s.norm / math.sqrt(s.count)), abs=0.006)


def with_activation(units: int | None, closed: int | None, gain: float) -> ModelRun:
    """Two layers with a sigmoid between, as the trace of one step shows them."""
    model = b.model_run(NAMES)
    trace = model.traces[0]
    operation = next(o for o in model.graphs[trace.graph].operations if o.kind == "activation")
    measured = replace(
        trace.stats[0],
        operation=operation.index,
        norm=2.0,
        edge_norms=(2.0 * gain,),
        units=units,
        closed_units=closed,
    )
    others = tuple(s for s in trace.stats if s.operation != operation.index)
    return replace(model, traces=(replace(trace, stats=(*others, measured)),))


def test_saturation_is_told_beside_the_most_that_a_sigmoid_can_pass() -> None:
    model = with_activation(None, None, 0.01)
    act = layers_view(model, ["a"], named_operations(model))[0]["activation"]
    assert (act["name"], act["bound"], act["gain"], act["closed"]) == ("Sigmoid", 0.25, [0.01], [None])
    assert "0.01 of the signal" in act["summary"]


def test_dead_units_are_a_share_of_those_that_were_reached() -> None:
    model = with_activation(40, 30, 0.5)
    act = layers_view(model, ["a"], named_operations(model))[0]["activation"]
    assert act["closed"] == [0.75]
    assert act["units"] == 40
    assert act["summary"].startswith("75 %")


def test_the_output_layer_has_no_activation() -> None:
    model = b.model_run(NAMES)
    assert layers_view(model, ["out"], named_operations(model))[0]["activation"] is None


def measured(steps: int, values: dict[str, np.ndarray]) -> ModelRun:
    model = b.model_run(NAMES)
    width = len(model.info.parameters)
    empty = np.full((steps, width), np.nan)
    return replace(
        model,
        parameter_steps=array("q", range(steps)),
        parameter_stats={s: array("d", values.get(s, empty).ravel().tolist()) for s in PARAMETER_STATISTICS},
    )


def test_sizes_are_log10_of_the_mean_over_what_falls_together() -> None:
    rng = np.random.default_rng(0)
    gradient, update = 10 ** rng.uniform(-9, 2, (1000, 6)), 10 ** rng.uniform(-9, 2, (1000, 6))
    view = sizes_view(measured(1000, {"gradient_rms": gradient, "update_rms": update}))
    assert len(view["steps"]) == 120
    assert [p["name"] for p in view["parameters"]][:2] == ["a.weight", "a.bias"]
    end = view["steps"][1]
    assert view["parameters"][3]["gradient"][0] == pytest.approx(
        math.log10(gradient[:end, 3].mean()), abs=0.006
    )
    assert view["parameters"][3]["update"][0] == pytest.approx(math.log10(update[:end, 3].mean()), abs=0.006)


def test_sizes_of_zero_and_of_no_number_are_left_out_and_the_largest_do_not_overflow() -> None:
    gradient = np.array([[0.0, np.nan, np.inf, 1e308, 1e-310, 1.0]] * 3)
    view = sizes_view(measured(3, {"gradient_rms": gradient, "update_rms": gradient}))
    first = [p["gradient"][0] for p in view["parameters"]]
    assert first[:3] == [None, None, None]
    assert first[3:] == [308.0, pytest.approx(-310, abs=10), 0.0]


def test_sizes_of_a_run_without_statistics_are_empty() -> None:
    assert sizes_view(b.model_run(NAMES)) == {"steps": [], "parameters": []}
