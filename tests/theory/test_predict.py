"""Predictions before training: the known table of fixes, and real nets in float64 beside them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_twin import geometric_mean, measure, specs

from unvanish.schema.architecture import LayerSpec
from unvanish.theory.activations import find_activation
from unvanish.theory.gaussian import second_moment
from unvanish.theory.predict import gain_per_layer, predict_gains

DEFAULT: dict[str, Any] = {"sw2": 1 / 3, "sb2": 1 / (3 * 64)}


def net(activation: str, sw2: float, sb2: float = 0.0, depth: int = 12, **options: Any) -> list[LayerSpec]:
    """The table's net: width 64, six classes."""
    return specs([64] * depth + [6], activation, sw2, sb2, **options)


def lsuv() -> list[LayerSpec]:
    """Every layer scaled until E[z^2] = 1 (Mishkin and Matas 2016)."""
    sigmoid = find_activation("sigmoid")
    assert sigmoid is not None
    first, *rest = net("sigmoid", 1 / second_moment(sigmoid, 1.0))
    return [replace(first, weight_variance=1.0), *rest]


@pytest.mark.parametrize(
    ("layers", "gain", "tolerance"),
    [
        pytest.param(net("sigmoid", **DEFAULT), 0.020, 0.02, id="default sigmoid"),
        pytest.param(net("sigmoid", depth=3, **DEFAULT), 0.020, 0.10, id="simplify to 3 layers"),
        pytest.param(net("relu", **DEFAULT), 0.167, 0.003, id="relu, default init"),
        pytest.param(net("relu", 2.0), 1.0, 1e-9, id="relu + he"),
        pytest.param(net("leaky_relu", 2 / (1 + 0.01**2)), 1.0, 1e-9, id="leaky relu + he"),
        pytest.param(net("sigmoid", 1.0), 0.056, 0.03, id="sigmoid + xavier"),
        pytest.param(lsuv(), 0.153, 0.002, id="sigmoid + lsuv"),
        pytest.param(net("sigmoid", norm="batch", **DEFAULT), 1.034, 0.001, id="sigmoid + batch norm"),
        pytest.param(net("sigmoid", skip="identity", **DEFAULT), 1.10, 0.03, id="sigmoid + skips"),
    ],
)
def test_the_table_of_fixes(layers: list[LayerSpec], gain: float, tolerance: float) -> None:
    got = gain_per_layer(predict_gains(layers))
    assert got == pytest.approx(gain, rel=tolerance)


def test_centred_sigmoid_at_finite_depth() -> None:
    """Its fixed point is q = 0, chi = 1, but q falls only as 2/depth: 12 layers are far from there."""
    layers = net("sigmoid", 16.0, 4.0, bias_centres=True)
    deep = predict_gains(net("sigmoid", 16.0, 4.0, bias_centres=True, depth=4000))
    assert deep[-2].chi == pytest.approx(1, abs=0.001)
    for start, gain in ((0.25, 0.92), (0.5, 0.89)):  # q of the first layer
        first = replace(layers[0], weight_variance=start, bias_variance=0.0)
        assert gain_per_layer(predict_gains([first, *layers[1:]])) == pytest.approx(gain, abs=0.01)


CASES: dict[str, tuple[list[LayerSpec], int, float]] = {
    "sigmoid, torch's default": (specs([400] * 8 + [300], "sigmoid", 1 / 3, 1 / 1200), 64, 0.05),
    "tanh on the critical line": (specs([400] * 8 + [300], "tanh", 1.76095, 0.05), 64, 0.05),
    "tanh, chaotic": (specs([400] * 8 + [300], "tanh", 4.0, 0.05), 64, 0.06),
    "relu + he": (specs([400] * 8 + [300], "relu", 2.0), 64, 0.05),
    "gelu": (specs([400] * 8 + [300], "gelu", 2.0, 0.1), 64, 0.05),
    "silu": (specs([400] * 8 + [300], "silu", 2.0, 0.1), 64, 0.05),
    "elu": (specs([400] * 8 + [300], "elu", 1.5, 0.1), 64, 0.05),
    "selu": (specs([400] * 8 + [300], "selu", 1.0), 64, 0.05),
    "softplus": (specs([400] * 8 + [300], "softplus", 0.5, 0.1), 64, 0.05),
    "hardtanh": (specs([400] * 8 + [300], "hardtanh", 1.5, 0.1), 64, 0.05),
    "widths that change": (specs([200, 600, 300, 500, 250, 400, 10], "tanh", 1.5, 0.1), 64, 0.06),
    "batch norm + relu": (specs([400] * 8 + [300], "relu", 2.0, norm="batch", batch=64), 64, 0.06),
    "batch norm + relu, 8 rows": (specs([800] * 6 + [300], "relu", 2.0, norm="batch", batch=8), 8, 0.08),
    "batch norm + sigmoid": (specs([400] * 8 + [300], "sigmoid", 1 / 3, norm="batch", batch=64), 64, 0.06),
    "layer norm + relu": (specs([400] * 8 + [300], "relu", 1.0, 0.1, norm="layer"), 64, 0.05),
    "rms norm + gelu": (specs([400] * 8 + [300], "gelu", 1.0, norm="rms"), 64, 0.05),
    "relu + identity skips": (specs([400] * 8 + [300], "relu", 1.0, skip="identity"), 64, 0.06),
    "sigmoid + identity skips": (specs([400] * 8 + [300], "sigmoid", 1 / 3, skip="identity"), 64, 0.06),
    "tanh + skips + layer norm": (
        specs([400] * 8 + [300], "tanh", 1.0, 0.1, skip="identity", norm="layer"),
        64,
        0.06,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_real_net_agrees(case: str) -> None:
    layers, rows, tolerance = CASES[case]
    predictions = predict_gains(layers)
    draws = [measure(layers, rows, seed) for seed in range(3)]
    batch = any(s.norm == "batch" for s in layers)
    for position, p in enumerate(predictions[1:-1]):
        chosen = [(d.scale_free if batch else d.raw)[position] for d in draws]
        assert p.chi_scale_free is not None
        assert p.chi_raw is not None
        assert geometric_mean(chosen) == pytest.approx(
            p.chi_scale_free if batch else p.chi_raw, rel=4 * tolerance
        ), p
        if not batch:
            assert geometric_mean([d.norm[position] for d in draws]) == pytest.approx(
                p.norm_gain, rel=4 * tolerance
            )
    measured = geometric_mean([g for d in draws for g in (d.scale_free if batch else d.raw)[:-1]])
    chis = [p.chi_scale_free if batch else p.chi_raw for p in predictions[1:-1]]
    assert measured == pytest.approx(geometric_mean([c for c in chis if c is not None]), rel=tolerance)


def test_orthogonal_centred_sigmoid_agrees() -> None:
    layers = specs([300] * 13, "sigmoid", 16.0, bias_centres=True)
    layers[0] = replace(layers[0], bias_variance=4.0)  # b = -W 1/2 on inputs of mean 0 adds that
    measured = geometric_mean(
        [g for seed in range(3) for g in measure(layers, 64, seed, orthogonal=True).raw[:-1]]
    )
    assert measured == pytest.approx(gain_per_layer(predict_gains(layers)), rel=0.08)


def test_factors_multiply_to_chi() -> None:
    layers = specs([30, 60, 20, 40, 40, 7], "tanh", 1.3, 0.1)
    layers[3] = replace(layers[3], skip="identity", norm="layer")
    for spec, p in list(zip(layers, predict_gains(layers), strict=True))[1:]:
        factors = (p.activation_factor, p.weight_factor, p.norm_factor, p.skip_factor)
        product = math.prod(f for f in factors if f is not None)
        assert None not in factors
        assert product**2 * spec.fan_out / spec.fan_in == pytest.approx(p.chi_raw, rel=1e-12)
        assert p.weight_factor == pytest.approx(math.sqrt(1.3))
        assert p.bound == 1.0


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-4, 1e4), st.integers(0, 3))
def test_under_a_norm_a_layers_scale_does_not_matter(scale: float, which: int) -> None:
    layers = specs([64] * 5 + [6], "relu", 2.0, norm="batch")
    scaled = list(layers)
    scaled[which] = replace(scaled[which], weight_variance=2.0 * scale)
    before, after = predict_gains(layers), predict_gains(scaled)
    for a, b in list(zip(before, after, strict=True))[1:-1]:
        assert a.chi == pytest.approx(b.chi, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"activation": "maxout"}, "theory has no say on the activation maxout"),
        ({"predictable": False}, "something lies between"),
        ({"norm": "group"}, "theory has no say on group norm"),
        ({"skip": "projection"}, "skips with a projection"),
        ({"norm": "batch", "batch": 3}, "batch norm over 3 rows"),
        ({"weight_variance": math.nan}, "not finite"),
        ({"weight_variance": math.inf}, "not finite"),
        ({"norm": "batch", "batch": 64}, "samples' correlation"),
        ({"activation_parameters": {"unheard_of": 1.0}}, "no say on the activation"),
    ],
)
def test_no_prediction_says_why_and_starts_anew(change: dict[str, Any], reason: str) -> None:
    layers = net("relu", 2.0)
    layers[4] = replace(layers[4], **change)
    layers[5] = replace(layers[5], input_second_moment=0.7)
    p = predict_gains(layers)
    assert p[4].chi is None
    assert reason in p[4].reason
    assert p[5].chi is None
    assert p[5].reason == "layers.4, before it, can't be followed"
    assert [q.chi for q in p[6:-1]] == [pytest.approx(1.0)] * 5
    assert gain_per_layer(p) is None


def test_without_a_measured_input_there_is_no_prediction() -> None:
    layers = net("relu", 2.0)
    layers[0] = replace(layers[0], input_second_moment=None)
    p = predict_gains(layers)
    assert {q.chi for q in p} == {None}
    assert p[0].reason == "what enters it was not measured"


def test_small_nets() -> None:
    assert predict_gains([]) == ()
    assert gain_per_layer(()) is None
    assert gain_per_layer(predict_gains(net("relu", 2.0, depth=1))) is None
    assert gain_per_layer(predict_gains(specs([64, 64, 64], "relu", 2.0))) == pytest.approx(1.0)


def test_weights_of_zero_pass_nothing() -> None:
    layers = net("relu", 2.0)
    layers[5] = replace(layers[5], weight_variance=0.0)
    assert gain_per_layer(predict_gains(layers)) == 0.0


def test_explosion_beyond_all_numbers_is_no_prediction_but_no_error() -> None:
    p = predict_gains(net("relu", 1e100, depth=8))
    assert any("leaves the range" in q.reason for q in p)
