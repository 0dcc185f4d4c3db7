"""The correlation map: against a slow twin, closed forms, and what Poole et al. and Daniely et al. prove of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish.theory.activations import ACTIVATIONS, Activation, find_activation
from unvanish.theory.correlation import (
    correlation_depth_scale,
    correlation_fixed_point,
    correlation_map,
    correlation_slope,
)
from unvanish.theory.mean_field import chi, chi_1, depth_scale, fixed_point, length_map
from unvanish.theory.tailored import chain, leaky_relu_correlation, rescaled_resnet, tailored_slope


def phi(name: str, **parameters: float) -> Activation:
    found = find_activation(name, parameters)
    assert found is not None
    return found


def riemann(f: Any, c: float, q: float, cells: int = 3000) -> float:
    """E[f(z_a) f(z_b)]: a plain sum over a dense grid of two independent Gaussians, cells of 1/150."""
    g = (np.arange(cells) + 0.5) / cells * 20 - 10
    weight = np.exp(-0.5 * g * g) / math.sqrt(2 * math.pi) * 20 / cells
    first = f(math.sqrt(q) * g)
    total = 0.0
    for a, f_a, w in zip(g, first, weight, strict=True):
        total += w * f_a * float(np.sum(weight * f(math.sqrt(q) * (c * a + math.sqrt(1 - c * c) * g))))
    return total


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "elu", "hardtanh", "relu"])
def test_against_a_dense_sum(name: str) -> None:
    one = phi(name)
    for c, q in ((0.0, 1.0), (0.6, 4.0), (-0.7, 0.3)):
        both = 1.5 * riemann(one.function, c, q) + 0.1
        assert correlation_map(one, c, q, 1.5, 0.1) == pytest.approx(
            both / length_map(one, q, 1.5, 0.1), abs=3e-5 if one.kinks else 1e-9
        )
        assert correlation_slope(one, c, q, 1.5) == pytest.approx(
            1.5 * riemann(one.derivative, c, q), abs=5e-3 if one.kinks else 1e-9
        )


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(1e-6, 1e6))
def test_the_quadrature_gives_the_closed_form_of_a_leaky_relu(c: float, slope: float, q: float) -> None:
    one = phi("leaky_relu", negative_slope=slope)
    made = correlation_map(one, c, q, 2 / (1 + slope**2), 0.0)
    assert made == pytest.approx(leaky_relu_correlation(c, slope), abs=1e-11)


def test_relus_kernels_slope() -> None:
    """1 - arccos(c)/pi: the arc-cosine kernel of degree 0 (Cho and Saul 2009)."""
    for c in (-0.99, -0.4, 0.0, 0.5, 0.9999, 1.0):
        assert correlation_slope(phi("relu"), c, 1.0, 2.0) == pytest.approx(
            1 - math.acos(c) / math.pi, abs=1e-9
        )


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(ACTIVATIONS)), st.floats(0, 0.99), st.floats(0.05, 20), st.floats(0, 1))
def test_what_is_true_of_every_activation(name: str, c: float, q: float, sb2: float) -> None:
    one = phi(name)
    here = correlation_map(one, c, q, 1.5, sb2)
    assert -1e-9 <= here <= 1 + 1e-9
    further = correlation_map(one, c + 0.01, q, 1.5, sb2)
    assert further >= here - 1e-9  # on [0, 1] a power series without negative coefficients
    assert correlation_map(one, 1.0, q, 1.5, sb2) == pytest.approx(1, rel=1e-12)
    assert correlation_slope(one, 1.0, q, 1.5) == pytest.approx(chi(one, q, 1.5), rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu"])
def test_the_slope_is_the_derivative(name: str) -> None:
    one, sw2, sb2 = phi(name), 2.0, 0.1
    q = fixed_point(one, sw2, sb2)
    assert q is not None
    for c in (-0.5, 0.0, 0.7):
        across = correlation_map(one, c + 1e-5, q, sw2, sb2) - correlation_map(one, c - 1e-5, q, sw2, sb2)
        assert across / 2e-5 == pytest.approx(correlation_slope(one, c, q, sw2), rel=1e-6)


def test_order_and_chaos() -> None:
    tanh = phi("tanh")
    for sw2 in (1.0, 1.5, 1.76):
        assert correlation_fixed_point(tanh, sw2, 0.05) == 1.0
        gain = chi_1(tanh, sw2, 0.05)
        assert gain is not None
        assert correlation_depth_scale(tanh, sw2, 0.05) == pytest.approx(depth_scale(gain), rel=1e-9)
    ends = []
    for sw2 in (1.8, 2.5, 4.0):
        c = correlation_fixed_point(tanh, sw2, 0.05)
        q = fixed_point(tanh, sw2, 0.05)
        assert c is not None
        assert q is not None
        assert correlation_map(tanh, c, q, sw2, 0.05) == pytest.approx(c, abs=1e-9)
        ends.append(c)
    assert ends == sorted(ends, reverse=True)
    assert ends[0] < 1
    assert correlation_fixed_point(tanh, 2.5, 0.0) == 0.0  # odd, and no bias: nothing is shared
    assert correlation_fixed_point(phi("relu"), 3.0, 0.1) is None
    assert correlation_depth_scale(phi("relu"), 3.0, 0.1) is None


def test_a_real_net_s_inputs_grow_alike_as_predicted() -> None:
    torch.manual_seed(0)
    n, c, q, sw2, sb2 = 1500, 0.3, 1.0, 1.5, 0.2
    base = torch.randn(2, n, dtype=torch.float64)
    z = torch.stack([base[0], c * base[0] + math.sqrt(1 - c * c) * base[1]]) * math.sqrt(q)
    tanh = phi("tanh")
    for _ in range(4):
        w = torch.randn(n, n, dtype=torch.float64) * math.sqrt(sw2 / n)
        z = torch.tanh(z) @ w.T + math.sqrt(sb2) * torch.randn(n, dtype=torch.float64)
        c, q = correlation_map(tanh, c, q, sw2, sb2), length_map(tanh, q, sw2, sb2)
    assert float((z[0] * z[1]).mean() / z.pow(2).mean()) == pytest.approx(c, abs=0.06)


@pytest.mark.parametrize("c", [-1.01, 1.01, math.nan])
def test_what_is_no_correlation(c: float) -> None:
    with pytest.raises(ValueError, match=r"a correlation lies in \[-1, 1\]"):
        correlation_map(phi("tanh"), c, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"a correlation lies in \[-1, 1\]"):
        leaky_relu_correlation(c, 0.1)


# --- the slope that keeps inputs apart ----------------------------------------------------------------------


def test_17_tailored_slope() -> None:
    """The published value is .62918002903, for ResNet-101 with w = .6 and a correlation of .75."""
    net = rescaled_resnet((3, 4, 23, 3), weight=0.6)
    slope = tailored_slope(0.75, net)
    assert slope == pytest.approx(0.62918002967, abs=5e-12)
    assert slope == pytest.approx(0.62918002903, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 200), st.floats(0.3, 0.95))
def test_a_tailored_chain_ends_where_it_should(depth: int, target: float) -> None:
    slope = tailored_slope(target, chain(depth))
    if slope is None:
        c = 0.0
        for _ in range(depth):
            c = leaky_relu_correlation(c, 0.0)
        assert c < target
        return
    c = 0.0
    for _ in range(depth):
        c = leaky_relu_correlation(c, slope)
    assert c == pytest.approx(target, abs=1e-12)
    deeper = tailored_slope(target, chain(depth + 5))
    assert deeper is not None
    assert deeper > slope


def test_a_shallow_net_needs_no_tailoring() -> None:
    assert tailored_slope(0.9, chain(2)) is None
    with pytest.raises(ValueError, match="received 1"):
        tailored_slope(1, chain(2))
