"""Student's t and the sign test against scipy, to many digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unvanish.verify.small_samples import deviation, interval, sign_test, student_cdf, student_quantile

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 30, 99])
def test_students_t_is_scipys(freedom: int) -> None:
    for t in (0.0, 0.3, 1.0, 2.5, 12.0):
        assert student_cdf(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-13)
    for p in (0.6, 0.9, 0.975, 0.999):
        assert student_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9)


@given(VALUES)
def test_the_interval_is_scipys(values: list[float]) -> None:
    low, high = interval(values)
    if deviation(values) < 1e-9:  # below scipy's own rounding
        assert low <= max(values) + 1e-9
        assert high >= min(values) - 1e-9
        return
    wanted = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    scale = max(map(abs, wanted))
    assert (low, high) == pytest.approx(tuple(wanted), abs=1e-8 * scale)


@given(st.lists(st.sampled_from([-1.0, 1.0, 0.0]), max_size=15))
def test_the_sign_test_is_the_exact_binomial(values: list[float]) -> None:
    below, above = values.count(-1.0), values.count(1.0)
    if below + above == 0:
        assert sign_test(values) == 1.0
        return
    assert sign_test(values) == pytest.approx(
        stats.binomtest(below, below + above, alternative="greater").pvalue
    )


def test_five_of_five_is_one_in_32() -> None:
    assert sign_test([-1, -2, -0.1, -3, -1]) == 1 / 32


def test_the_edges() -> None:
    assert interval([1.0]) == (-math.inf, math.inf)
    assert all(map(math.isnan, interval([1.0, math.nan])))
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    assert math.isnan(deviation([1.0]))
