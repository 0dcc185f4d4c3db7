"""The seed's five solutions and three half-fixes on the real net: which ones stay stuck, on digits."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")

from unvanish.schema.treatment import TreatmentResult
from unvanish.treatment.catalogue import seed_candidates
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.experiment import Plan, run_experiment
from unvanish.verify.trial import Target

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result() -> TreatmentResult:
    table = Plan(
        candidates=seed_candidates(),
        target=Target(program="digits"),
        learning_rate_factors=(0.3, 1.0, 3.0, 10.0),
    )
    with LocalEngine(2, "digits_runner:run") as engine:
        return run_experiment(table, engine=engine)


def test_the_untreated_net_is_stuck_at_chance(result: TreatmentResult) -> None:
    assert result.chance == pytest.approx(2.3025, abs=1e-3)
    assert result.baseline.stuck_seeds == 5
    assert result.baseline.measured_gain_per_layer == pytest.approx(0.02, rel=0.25)


@pytest.mark.parametrize("candidate", seed_candidates(), ids=lambda c: c.name)
def test_solutions_cure_and_half_fixes_do_not(result: TreatmentResult, candidate: object) -> None:
    row = next(t for t in result.trials if t.name == candidate.name)  # type: ignore[attr-defined]
    half_fix = candidate.half_fix  # type: ignore[attr-defined]
    assert row.outcome == ("no_better" if half_fix else "cured"), row.why
    assert row.stuck_seeds == (5 if half_fix else 0)


def test_the_choice_is_a_safe_cure(result: TreatmentResult) -> None:
    assert result.chosen == "init"
