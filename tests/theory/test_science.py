"""The predicted columns of the known tables of results (test_predict.py measures beside them)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.theory.activations import Activation, find_activation
from unvanish.theory.batch_norm import batch_norm_gain
from unvanish.theory.dead_relu import born_dead_bounds, born_dead_ray
from unvanish.theory.finite_width import log_gain_sd, log_gain_variance
from unvanish.theory.mean_field import (
    VANISHING_GAIN,
    chi,
    chi_1,
    critical_point,
    depth_scale,
    fixed_point,
    trainable_depth,
)
from unvanish.theory.optimizer import adam_overshoot, adam_suppression
from unvanish.theory.precision import FLOAT16
from unvanish.theory.residual import normalised_growth, residual_growth
from unvanish.theory.spectrum import mean_singular_value, spectrum_variance


def phi(name: str) -> Activation:
    found = find_activation(name)
    assert found is not None
    return found


@pytest.mark.parametrize(("sb2", "sw2"), [(0.05, 1.76095), (0.01, 1.42421), (0.1, 1.98607), (0.3, 2.50513)])
def test_1_tanh_critical_line(sb2: float, sw2: float) -> None:
    point = critical_point(phi("tanh"), sb2)
    assert point is not None
    assert point.sw2 == pytest.approx(sw2, abs=5e-6)
    assert fixed_point(phi("tanh"), point.sw2, sb2) == pytest.approx(point.q, rel=1e-9)
    assert chi_1(phi("tanh"), point.sw2, sb2) == pytest.approx(1, abs=1e-9)
    if sb2 == 0.05:
        assert point.q == pytest.approx(0.57005, abs=5e-6)


@pytest.mark.parametrize(("name", "gain"), [("sigmoid", 0.02), ("tanh", 0.3325), ("relu", 1 / 6)])
def test_2_3_4_torch_default(name: str, gain: float) -> None:
    """U(-1/sqrt n, 1/sqrt n) has n Var W = 1/3, and Var b = 1/(3n): width 1000."""
    q = fixed_point(phi(name), 1 / 3, 1 / 3000)
    assert q is not None
    assert chi(phi(name), q, 1 / 3) == pytest.approx(gain, rel=2e-3)


@pytest.mark.parametrize(
    ("sw2", "gain"), [(1.0, 0.7590), (1.3, 0.8802), (1.76, 0.9998), (2.5, 1.1335), (4.0, 1.3424)]
)
def test_5_tanh_gains(sw2: float, gain: float) -> None:
    assert chi_1(phi("tanh"), sw2, 0.05) == pytest.approx(gain, abs=5e-5)


def test_6_relu_xavier_and_he() -> None:
    assert chi(phi("relu"), 0.3, 1.0) == pytest.approx(0.5, rel=1e-14)
    assert chi(phi("relu"), 7.0, 2.0) == pytest.approx(1.0, rel=1e-14)


def test_7_8_9_batch_norm() -> None:
    assert batch_norm_gain(phi("relu")) == pytest.approx(math.pi / (math.pi - 1), rel=1e-12)
    for rows, gain in ((8, 1.2), (16, 14 / 13), (64, 62 / 61)):
        assert batch_norm_gain(phi("identity"), rows) == pytest.approx(gain, rel=1e-9)
    assert batch_norm_gain(phi("sigmoid")) == pytest.approx(1.0336, abs=5e-5)
    assert batch_norm_gain(phi("tanh")) == pytest.approx(1.1778, abs=5e-5)
    # measured in real nets at these batch sizes; theory at the same size is within the scatter of a draw
    for rows, measured in ((256, 1.465), (64, 1.493), (16, 1.589), (8, 1.801)):
        assert batch_norm_gain(phi("relu"), rows) == pytest.approx(measured, rel=0.01)


def test_10_11_born_dead() -> None:
    assert born_dead_ray(4, 20) == pytest.approx(0.7249, abs=5e-5)
    low, high = born_dead_bounds(4, 21)
    assert (round(low, 3), round(high, 3)) == (0.546, 0.725)
    assert low < 0.641 < high
    assert born_dead_bounds(16, 21)[1] < 1e-3  # a disease of narrow nets


def test_12_finite_width() -> None:
    assert log_gain_variance([200] * 50) == pytest.approx(1.25)
    assert log_gain_sd(50, 200) ** 2 == pytest.approx(1.25)


def test_13_spectrum() -> None:
    got = [
        spectrum_variance(phi(name), 1.0, 10, orthogonal=orthogonal)
        for name in ("identity", "relu")
        for orthogonal in (True, False)
    ]
    assert got == pytest.approx([0, 10, 10, 20], abs=1e-10)


def test_14_glorot() -> None:
    assert mean_singular_value(1 / 3) == pytest.approx(0.490, abs=5e-4)
    assert mean_singular_value(1) == pytest.approx(0.849, abs=5e-4)
    rng = np.random.default_rng(0)
    measured = np.linalg.svd(rng.normal(size=(400, 400)) / 20, compute_uv=False).mean()
    assert measured == pytest.approx(mean_singular_value(1), rel=0.01)


def test_15_16_residual_growth() -> None:
    assert residual_growth(20) == pytest.approx(2**20)
    assert normalised_growth(20) == 21
    assert residual_growth(20, branch_scale=0) == 1
    assert residual_growth(20, branch_scale=20**-0.5) == pytest.approx(2.65, abs=5e-3)
    depths = np.array([6, 12, 24, 48, 96])
    gradient = np.array([normalised_growth(int(d)) ** -0.5 for d in depths])
    slope = np.polyfit(np.log(depths), np.log(gradient), 1)[0]
    assert slope == pytest.approx(-0.479, abs=0.01)  # -1/2 in the limit; measured at such depths: -.479


def test_18_21_adam() -> None:
    got = [adam_suppression(g * g) for g in (1e-8, 1e-9, 1e-10)]
    assert got == pytest.approx([0.5, 1 / 11, 1 / 101], rel=1e-12)
    assert adam_suppression(0.0) == 0.0
    worst = max(range(1, 200), key=adam_overshoot)
    assert (worst, round(adam_overshoot(worst), 2)) == (12, 6.57)


def test_19_half_precision() -> None:
    assert np.float16(FLOAT16.underflow) == 0
    assert np.float16(np.nextafter(FLOAT16.underflow, 1)) > 0


def test_depth_rules() -> None:
    assert trainable_depth(batch_norm_gain(phi("sigmoid"))) == pytest.approx(182, abs=0.5)
    assert trainable_depth(batch_norm_gain(phi("relu"))) == pytest.approx(16, abs=0.5)
    for gain in (0.3, 0.9, 1.2):  # the two forms of one rule: e^-3 of rms after 6 xi layers
        change = abs(trainable_depth(gain) * math.log(gain) / 2)
        assert math.exp(-change) == pytest.approx(VANISHING_GAIN, rel=1e-12)
    assert depth_scale(1.0) == math.inf
    assert depth_scale(0.0) == 0


def test_uncentred_sigmoid_is_critical_only_deep_in_saturation() -> None:
    point = critical_point(phi("sigmoid"), 0.0)
    assert point is not None
    assert point.sw2 == pytest.approx(103, abs=0.5)
    assert chi_1(phi("sigmoid"), point.sw2, 0.0) == pytest.approx(1, abs=1e-9)


def test_relu_has_no_critical_point_with_biases() -> None:
    without = critical_point(phi("relu"), 0.0)
    assert without is not None
    assert (without.sw2, without.q) == (pytest.approx(2), 0.0)
    assert critical_point(phi("relu"), 0.1) is None


def test_fixed_points_at_both_ends() -> None:
    assert fixed_point(phi("relu"), 3.0, 0.1) is None  # grows without bound
    assert fixed_point(phi("tanh"), 0.5, 0.0) == 0.0
    assert fixed_point(phi("relu"), 1.0, 0.5) == pytest.approx(1.0, rel=1e-9)
