"""Expectations at kinks and far out, and the table of activations against torch."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from theory_twin import PHI

from unvanish.theory.activations import ACTIVATIONS, find_activation
from unvanish.theory.batch_norm import batch_norm_moments
from unvanish.theory.gaussian import derivative_moment, expectation, mean, second_moment


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs(name: str) -> None:
    phi = find_activation(name)
    assert phi is not None
    z = torch.linspace(-30, 30, 4001, dtype=torch.float64) + 1e-3  # beside the kinks
    z.requires_grad_()
    out = PHI[name](z)
    (slope,) = torch.autograd.grad(out.sum(), z)
    at = z.detach().numpy()
    # softplus turns linear at 20 in torch, which is off by 2e-9
    np.testing.assert_allclose(phi.function(at), out.detach().numpy(), rtol=1e-12, atol=3e-9)
    np.testing.assert_allclose(phi.derivative(at), slope.numpy(), rtol=1e-12, atol=3e-9)
    steepest = np.abs(phi.derivative(np.linspace(-20, 20, 800_001))).max()
    assert steepest <= phi.bound * (1 + 1e-12)
    assert steepest == pytest.approx(phi.bound, rel=1e-6)  # the bound is reached, or nearly


def test_parameters_bear_torchs_names() -> None:
    z = np.array([-2.0, 0.5, 3.0])
    for name, parameters, twin in (
        ("leaky_relu", {"negative_slope": 0.3}, torch.nn.LeakyReLU(0.3)),
        ("elu", {"alpha": 0.7}, torch.nn.ELU(0.7)),
        ("softplus", {"beta": 2.0}, torch.nn.Softplus(2.0)),
        ("hardtanh", {"min_val": -0.5, "max_val": 2.0}, torch.nn.Hardtanh(-0.5, 2.0)),
    ):
        phi = find_activation(name, parameters)
        assert phi is not None
        np.testing.assert_allclose(phi.function(z), twin(torch.from_numpy(z)).numpy(), rtol=1e-12)
    assert find_activation("leaky_relu", {"slope": 0.3}) is None
    assert find_activation("mish") is None


@settings(max_examples=40, deadline=None)
@given(st.floats(-2, 2), st.floats(1e-12, 1e12))
def test_closed_forms_of_the_kinked_ones(slope: float, q: float) -> None:
    phi = find_activation("leaky_relu", {"negative_slope": slope})
    assert phi is not None
    assert second_moment(phi, q) == pytest.approx(q * (1 + slope**2) / 2, rel=1e-12)
    assert derivative_moment(phi, q) == pytest.approx((1 + slope**2) / 2, rel=1e-12)
    assert mean(phi, q) == pytest.approx(
        (1 - slope) * math.sqrt(q / (2 * math.pi)), rel=1e-12, abs=1e-13 * math.sqrt(q)
    )


def test_gauss_hermite_would_be_wrong() -> None:
    """The trap that this quadrature is built for."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    hermite = float(np.sum(weights * (nodes > 0)) / math.sqrt(2 * math.pi))
    relu = find_activation("relu")
    assert relu is not None
    assert abs(hermite - 0.5) > 0.01
    assert derivative_moment(relu, 1.0) == pytest.approx(0.5, abs=1e-14)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu", "silu", "softplus", "elu", "hardtanh"])
@pytest.mark.parametrize("q", [1e-6, 0.3, 5.0, 400.0, 1e6])
def test_against_adaptive_quadrature(name: str, q: float) -> None:
    phi = find_activation(name)
    assert phi is not None
    sd = math.sqrt(q)

    def integrand(g: float) -> float:
        return float(phi.derivative(np.array([sd * g]))[0]) ** 2 * math.exp(-g * g / 2)

    cuts = sorted({-9.0, 9.0, 0.0, *(s * k / sd for s in (1, -1) for k in (1, 5, 20) if k / sd < 9)})
    whole = sum(
        integrate.quad(integrand, a, b, epsabs=1e-14, epsrel=1e-12, limit=200)[0] for a, b in pairwise(cuts)
    ) / math.sqrt(2 * math.pi)
    assert derivative_moment(phi, q) == pytest.approx(whole, rel=1e-9)


def test_variances_that_are_none() -> None:
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="a variance is finite"):
            expectation(np.square, bad)
    relu = find_activation("relu")
    assert relu is not None
    assert derivative_moment(relu, 0.0) == pytest.approx(0.5)  # the kink's two sides count half each


@pytest.mark.parametrize("batch", [4, 8, 50])
def test_batch_norm_against_a_draw_of_batches(batch: int) -> None:
    """The sphere's integrals against 200,000 random batches."""
    relu = find_activation("relu")
    assert relu is not None
    moments = batch_norm_moments(relu, batch)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200_000 // batch * 8, batch))
    z -= z.mean(1, keepdims=True)
    u = z / z.std(1, keepdims=True)
    h = np.maximum(u, 0)
    assert moments.variance == pytest.approx(h.var(1, ddof=1).mean(), rel=0.01)
    back = rng.normal(size=u.shape)
    back = (back - back.mean(1, keepdims=True)) * (u > 0)  # the gradient that arrives is centred
    back -= back.mean(1, keepdims=True)
    back -= u * (u * back).mean(1, keepdims=True)
    per_row = (back**2).sum(1).mean() / (batch - 1)
    assert moments.derivative == pytest.approx(per_row, rel=0.01)
    assert moments.inverse == pytest.approx(batch / (batch - 3))


def test_batch_norm_of_three_rows_has_no_mean() -> None:
    relu = find_activation("relu")
    assert relu is not None
    with pytest.raises(ValueError, match="from 4 rows on, received 3"):
        batch_norm_moments(relu, 3)


def test_large_batches_reach_the_limit() -> None:
    for name in ("relu", "sigmoid", "hardtanh"):
        phi = find_activation(name)
        assert phi is not None
        assert batch_norm_moments(phi, 15_000).gain == pytest.approx(batch_norm_moments(phi).gain, rel=3e-4)
