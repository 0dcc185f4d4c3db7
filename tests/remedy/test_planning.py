"""How long a trial is, what counts as a fall, which model is meant: read off the watched run."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import pytest

from unvanish.remedy.planning import _learnt_before, _level, _seconds, _trial_steps, usual_rate, worst
from unvanish.schema.finding import Diagnosis, LossSummary, ModelDiagnosis, Verdict
from unvanish.schema.run import PARAMETER_STATISTICS, ModelInfo, ModelRun


def record(losses: list[float], pace: float = 0.1) -> ModelRun:
    return ModelRun(
        info=ModelInfo(index=0, name="net", class_name="Net", parameters=(), optimizers=()),
        steps=array("q", range(len(losses))),
        seconds=array("d", [2.0 + pace * i for i in range(len(losses))]),
        losses=array("d", losses),
        parameter_steps=array("q"),
        parameter_stats={statistic: array("d") for statistic in PARAMETER_STATISTICS},
        snapshots=(),
        graphs={},
        traces=(),
        architecture=(),
    )


@pytest.mark.parametrize(
    ("whole", "onset", "ended", "wanted"),
    [
        (200, 0, True, 80),  # 40 %
        (100, 0, True, 60),  # not fewer
        (50, 0, True, 50),  # and not more than there are
        (10_000, 0, True, 250),
        (300, 0, False, 250),  # it would have gone on
        (400, 130, True, 190),  # far enough behind the onset
        (150, 130, True, 150),
    ],
)
def test_a_trial_is_a_share_of_the_script(whole: int, onset: int, ended: bool, wanted: int) -> None:
    assert _trial_steps(record([1.0] * whole), onset, ended=ended) == wanted


def test_a_fall_is_below_all_that_the_untreated_script_reaches() -> None:
    flat = record([2.3] * 100)
    assert _level(flat, 2.3, 50) == pytest.approx(2.3 * 0.9)
    falls = record([2.3 - 0.01 * i for i in range(100)])
    level = _level(falls, 2.3, 30)  # of its first 60 steps
    assert level is not None and level == pytest.approx(2.3 - 0.01 * 56.5 - 0.23, abs=0.03)
    tiny = record([0.01] * 60)
    assert _level(tiny, 1.0, 30) == pytest.approx(0.007)  # never below zero for a loss that is above
    assert _level(record([math.nan] * 20), None, 10) is None
    assert _level(record([math.inf, *[1.0] * 40]), None, 20) == pytest.approx(0.9)


def test_a_trial_may_take_several_times_as_long_as_the_script_did() -> None:
    assert _seconds(record([1.0] * 100, pace=0.1), 50) == pytest.approx(120 + 5 * (2.0 + 5.0))
    assert _seconds(record([]), 50) == 120


def diagnosed(*verdicts: Verdict, steps: int = 1) -> Diagnosis:
    models = tuple(
        ModelDiagnosis(
            name=f"{v}{i}",
            verdict=v,
            steps=steps,
            loss=LossSummary(first=1, last=1, chance=None),
            findings=(),
            skipped=(),
            reason="",
        )
        for i, v in enumerate(verdicts)
    )
    return Diagnosis(version="0", models=models, run="x")


def test_the_sick_model_is_treated_before_one_that_fails_for_another_reason() -> None:
    chosen = worst(diagnosed("healthy", "not_learning", "sick"))
    assert chosen is not None and chosen.verdict == "sick"
    assert worst(diagnosed("healthy", "inconclusive")) is None  # too short to tell
    stuck = worst(diagnosed("healthy", "inconclusive", steps=100))
    assert stuck is not None and stuck.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("rates", "onset", "wanted"),
    [
        ([0.05] * 50 + [20.0] * 50, 50, 0.05),  # a second phase
        ([200.0] + [0.05] * 99, 1, 0.05),  # a first step
        ([0.03] * 60 + [3.0] * 3 + [0.03] * 37, 62, 0.03),  # a spike
        ([0.03] * 60 + [3.0] * 2 + [0.015] * 37, 68, 0.03),  # and its harm shows later
        ([200.0] + [0.05] * 99, 8, 0.05),
        ([5.0] * 100, 40, None),  # too large all along
        ([0.1 * 0.9**i for i in range(100)], 60, None),  # a decay
        ([math.nan] * 100, 50, None),
        ([], 0, None),
    ],
)
def test_a_rate_that_is_raised_when_it_falls_ill_is_told_from_the_usual_one(
    rates: list[float], onset: int, wanted: float | None
) -> None:
    run = replace(record([1.0] * len(rates)), learning_rates=array("d", rates))
    assert usual_rate(run, onset) == wanted


def test_what_was_reached_before_nan_is_no_bar() -> None:
    assert _learnt_before(record([2.3 - 0.05 * i for i in range(30)] + [math.nan] * 5))
    assert not _learnt_before(record([2.3] * 30 + [math.nan] * 5))
    assert not _learnt_before(record([2.3 - 0.05 * i for i in range(30)]))
    assert not _learnt_before(record([math.nan] * 5))
