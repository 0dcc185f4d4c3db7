"""Critical inits, gains at finite depth, layer norm, skips, number formats; and that every formula names its paper."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_twin import specs

from unvanish import theory
from unvanish.theory.activations import ACTIVATIONS, Activation, find_activation
from unvanish.theory.batch_norm import batch_norm_gain
from unvanish.theory.critical import centred_init, critical_init_at
from unvanish.theory.dead_relu import born_dead_bounds, born_dead_ray
from unvanish.theory.layer_norm import layer_norm_gain, rms_norm_gain
from unvanish.theory.mean_field import chi, critical_point, gain_at_depth, length_map, lengths
from unvanish.theory.optimizer import adam_constant_step, adam_suppression, worst_overshoot
from unvanish.theory.precision import BFLOAT16, FLOAT16, FLOAT32, NumberFormat, lost_update, rounds_to_zero
from unvanish.theory.predict import gain_per_layer, predict_gains
from unvanish.theory.residual import last_block_gradient, residual_gain

TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
INTS = {"float16": torch.int16, "bfloat16": torch.int16, "float32": torch.int32}


def phi(name: str) -> Activation:
    found = find_activation(name)
    assert found is not None
    return found


def test_every_formula_names_its_paper() -> None:
    machinery = {
        "gaussian",
        "activations",
        "predict",
    }  # quadrature, torch's functions, and the net built of formulas
    for module in pkgutil.iter_modules(theory.__path__):
        if module.name in machinery:
            continue
        code = importlib.import_module(f"unvanish.theory.{module.name}")
        for name, function in inspect.getmembers(code, inspect.isfunction):
            if function.__module__ == code.__name__ and not name.startswith("_"):
                said = (function.__doc__ or "") + (code.__doc__ or "")
                assert re.search(r"\b(19|20)\d\d\b", said) or name == "bisect", f"{module.name}.{name}"


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["tanh", "sigmoid", "hardtanh", "elu", "selu", "silu", "gelu"]), st.floats(1e-3, 50))
def test_a_critical_init_keeps_length_and_gradient(name: str, q: float) -> None:
    init = critical_init_at(phi(name), q)
    if init is None:
        return
    assert chi(phi(name), q, init.sw2) == pytest.approx(1, rel=1e-12)
    assert length_map(phi(name), q, init.sw2, init.sb2) == pytest.approx(q, rel=1e-9)
    assert init.sb2 >= 0


def test_the_solver_and_the_line_are_one() -> None:
    for name in ("tanh", "hardtanh", "elu"):
        point = critical_point(phi(name), 0.05)
        assert point is not None
        init = critical_init_at(phi(name), point.q)
        assert init is not None
        assert (init.sw2, init.sb2) == (pytest.approx(point.sw2, rel=1e-9), pytest.approx(0.05, rel=1e-6))
    assert critical_init_at(phi("sigmoid"), 1.0) is None  # sigmoid's mean makes the length grow: Var b < 0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_centred_inits(name: str) -> None:
    init = centred_init(phi(name))
    known = {
        "sigmoid": 16.0,
        "softplus": 4.0,
        "silu": 4.0,
        "gelu": 4.0,
        "relu": 2.0,
        "tanh": 1.0,
        "identity": 1.0,
    }
    if name in known:
        assert init.sw2 == pytest.approx(known[name], rel=1e-9)
    assert init.offset == pytest.approx({"sigmoid": 0.5, "softplus": math.log(2)}.get(name, 0.0))
    assert chi(phi(name), 1e-12, init.sw2) == pytest.approx(1, abs=1e-5)


def test_gain_at_depth_is_the_predictors() -> None:
    for name, sw2, sb2 in (
        ("tanh", 1.5, 0.1),
        ("sigmoid", 1 / 3, 0.01),
        ("relu", 2.0, 0.0),
        ("gelu", 2.0, 0.1),
    ):
        first = sw2 + sb2  # inputs of mean square 1
        predicted = gain_per_layer(predict_gains(specs([64] * 9, name, sw2, sb2)))
        assert gain_at_depth(phi(name), sw2, sb2, first, 7) == pytest.approx(predicted, rel=1e-12)
    assert lengths(phi("tanh"), 1.0, 0.0, 0.5, 0) == ()
    assert lengths(phi("tanh"), 1.0, 0.0, 0.5, 1) == (0.5,)
    with pytest.raises(ValueError, match="received a depth of 1"):
        gain_at_depth(phi("tanh"), 1.0, 0.0, 0.5, 1)


def test_layer_norm() -> None:
    assert layer_norm_gain(phi("relu")) == pytest.approx(1, rel=1e-12)
    assert rms_norm_gain(phi("identity"), 0.25) == pytest.approx(0.75, rel=1e-12)
    for name in ("tanh", "sigmoid", "gelu"):
        predicted = gain_per_layer(predict_gains(specs([64] * 8, name, 1.7, norm="layer")))
        assert layer_norm_gain(phi(name)) == pytest.approx(predicted, rel=1e-9)
    with pytest.raises(ValueError, match="a share"):
        layer_norm_gain(phi("relu"), 1.5)


def test_skips() -> None:
    assert residual_gain(0.3) == pytest.approx(1.3)
    assert residual_gain(1.0, branch_scale=0.0) == 1.0
    assert residual_gain(1.0, branch_scale=0.8, shortcut=0.6) == pytest.approx(1.0)
    assert last_block_gradient(3, pre_norm=True) == pytest.approx(0.5)
    assert last_block_gradient(99, pre_norm=False) == 1.0


@settings(max_examples=60)
@given(st.floats(-1e3, 1e3, allow_subnormal=True))
def test_adam_s_constant_step_is_its_suppression(gradient: float) -> None:
    step = adam_constant_step(gradient)
    assert abs(step) < 1 or abs(gradient) > 1e-8
    if abs(gradient) > 1e-100:
        assert abs(step) == pytest.approx(adam_suppression(gradient**2), rel=1e-12)
    assert adam_constant_step(0.0, eps=0.0) == 0.0


def test_worst_overshoot() -> None:
    assert worst_overshoot() == (12, pytest.approx(6.57, abs=5e-3))


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16, FLOAT32], ids=lambda kind: kind.name)
def test_formats_are_torchs(kind: NumberFormat) -> None:
    own = torch.finfo(TORCH[kind.name])
    assert (kind.epsilon, kind.largest) == (own.eps, own.max)
    assert 2.0**kind.least == own.tiny
    least = torch.tensor(1, dtype=INTS[kind.name]).view(TORCH[kind.name]).double().item()
    assert kind.least_subnormal == least


@settings(max_examples=100)
@given(st.floats(1e-50, 1e-5), st.sampled_from([FLOAT16, BFLOAT16, FLOAT32]))
def test_rounding_to_zero_is_torchs(value: float, kind: NumberFormat) -> None:
    above = kind.underflow * 1.001  # torch rounds to float32 on the way
    for x in (value, -value, kind.underflow, above):
        assert rounds_to_zero(x, kind) == (
            torch.tensor(x, dtype=torch.float64).to(TORCH[kind.name]).item() == 0
        )


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=lambda kind: kind.name)
def test_updates_that_are_lost(kind: NumberFormat) -> None:
    weights = torch.tensor(np.linspace(1, 2, 4001), dtype=torch.float64).to(TORCH[kind.name])

    def moved(relative: float) -> bool:
        return bool(((weights.double() * (1 + relative)).to(weights.dtype) != weights).any())

    assert not moved(0.95 * lost_update(kind))
    assert moved(1.05 * lost_update(kind))


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(3, 80))
def test_born_dead_bounds_are_bounds(width: int, layers: int) -> None:
    low, high = born_dead_bounds(width, layers)
    assert -1e-12 <= low <= high + 1e-12
    assert high == born_dead_ray(width, layers - 1) <= 1
    assert born_dead_bounds(width, layers + 1)[1] >= high


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["relu", "tanh", "sigmoid", "gelu"]), st.sampled_from([5, 8, 13, 40, 200]))
def test_a_batch_norm_s_gain_is_above_one_and_falls_with_the_batch(name: str, batch: int) -> None:
    assert batch_norm_gain(phi(name), batch) > batch_norm_gain(phi(name)) > 1
