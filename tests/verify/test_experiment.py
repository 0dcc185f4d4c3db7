"""The plan: pairing, rates, budget, progress, Ctrl-C, the choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import fake_runners
import pytest
from fake_runners import CHANCE, by_name

from unvanish.errors import UsageError
from unvanish.schema.treatment import Prescription, TreatmentResult
from unvanish.treatment.candidate import Candidate
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.experiment import Plan, Progress, best_rate, run_experiment
from unvanish.verify.trial import BASELINE, Target, TrialOutcome, TrialSpec

NORM = Prescription(treatment="batchnorm")


class Here:
    """An engine that runs the trials in this process and remembers them."""

    workers = 1

    def __init__(
        self, runner: Callable[[TrialSpec], TrialOutcome] = by_name, interrupt_after: int | None = None
    ) -> None:
        self.ran: list[TrialSpec] = []
        self.runner = runner
        self.interrupt_after = interrupt_after

    def run(self, specs: Iterable[TrialSpec]) -> Iterator[TrialOutcome]:
        for spec in specs:
            if len(self.ran) == self.interrupt_after:
                raise KeyboardInterrupt
            self.ran.append(spec)
            try:
                yield self.runner(spec)
            except RuntimeError as error:
                yield TrialOutcome(spec=spec, error=str(error))

    def close(self) -> None:
        pass


def candidate(name: str, effort: int = 1, safety: str = "safe") -> Candidate:
    return Candidate(name=name, title=name, prescriptions=(NORM,) * effort, safety=safety)  # type: ignore[arg-type]


def plan(*candidates: Candidate, **more: object) -> Plan:
    facts = {"learning_rate_factors": (0.1, 1.0, 10.0), "steps": 50, **more}
    return Plan(candidates=candidates, target=Target(program="train.py"), **facts)  # type: ignore[arg-type]


def outcomes(result: TreatmentResult) -> dict[str, str]:
    return {t.name: t.outcome for t in result.trials}


def test_every_candidate_gets_the_row_that_its_curves_deserve() -> None:
    names = ("learns", "stuck", "wild", "breaks", "sometimes", "lucky", "cut")
    result = run_experiment(plan(*map(candidate, names)), engine=Here())
    assert outcomes(result) == {
        "learns": "cured",
        "stuck": "no_better",
        "wild": "worse",
        "breaks": "failed",
        "sometimes": "improved",
        "lucky": "improved",
        "cut": "cured",
    }
    assert result.baseline.stuck_seeds == result.baseline.seeds == 5
    assert result.chance == CHANCE
    assert result.chosen == "learns"
    assert result.stopped is None
    rows = {t.name: t for t in result.trials}
    assert "no such" in rows["breaks"].why
    assert rows["learns"].learning_rate == pytest.approx(0.1)
    low, high = rows["learns"].loss.interval
    assert low < rows["learns"].loss.last < high  # type: ignore[operator]
    assert low == pytest.approx(0.2, abs=0.05)
    assert len(rows["learns"].curves) == 5
    assert {len(c) for c in rows["learns"].curves} == {len(rows["learns"].curve_steps)}
    assert result.to_dict()["trials"][2]["loss"]["last"] is None  # NaN is no JSON


def test_all_sides_get_the_same_seeds_and_rates_and_the_rate_is_chosen_on_another_seed() -> None:
    engine = Here()
    run_experiment(plan(candidate("learns"), candidate("stuck")), engine=engine)
    screen = [s for s in engine.ran if not s.trace]
    final = [s for s in engine.ran if s.trace]
    for side in (BASELINE, "learns", "stuck"):
        assert sorted(s.learning_rate_factor for s in screen if s.candidate == side) == [0.1, 1.0, 10.0]
        assert [s.seed for s in final if s.candidate == side] == [1, 2, 3, 4, 5]
    assert {s.seed for s in screen} == {0}
    assert {s.learning_rate_factor for s in final if s.candidate == "learns"} == {1.0}
    assert all(s.prescriptions == () for s in engine.ran if s.candidate == BASELINE)
    assert all(s.prescriptions == (NORM,) for s in engine.ran if s.candidate != BASELINE)


def test_a_candidate_that_breaks_at_every_rate_is_not_tried_on_more_seeds() -> None:
    engine = Here()
    run_experiment(plan(candidate("breaks")), engine=engine)
    assert sum(s.candidate == "breaks" for s in engine.ran) == 3


def test_progress_counts_to_the_end() -> None:
    seen: list[Progress] = []
    run_experiment(plan(candidate("learns"), candidate("breaks")), engine=Here(), on_progress=seen.append)
    assert [p.done for p in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].done == seen[-1].total == 9 + 10
    assert {p.stage for p in seen} == {"learning rates", "paired seeds"}
    assert all(p.seconds_left is not None and p.seconds_left >= 0 for p in seen)


def test_out_of_budget_what_is_known_is_told_and_nothing_is_called_a_cure() -> None:
    def slow(spec: TrialSpec) -> TrialOutcome:
        return fake_runners.slow(spec)

    result = run_experiment(plan(candidate("learns")), engine=Here(slow), budget_seconds=3.0)
    assert result.stopped == "the budget of 3 s was spent"
    assert 3.0 <= result.wall_seconds < 4.0
    assert outcomes(result) == {"learns": "improved"}
    assert "after" in result.trials[0].why
    assert "of 5 seeds" in result.trials[0].why
    assert result.chosen is None


@pytest.mark.parametrize("after", [0, 1, 3, 7, 12])
def test_ctrl_c_keeps_what_is_known(after: int) -> None:
    result = run_experiment(plan(candidate("learns")), engine=Here(interrupt_after=after))
    assert result.stopped == "interrupted"
    assert result.chosen is None
    assert result.trials[0].seeds <= 5


def test_safe_and_simple_goes_before_the_order_and_unsafe_needs_a_word() -> None:
    cut = candidate("cut", safety="unsafe")
    both = plan(cut, candidate("big", effort=2), candidate("simple"))
    assert run_experiment(both, engine=Here()).chosen == "simple"
    assert run_experiment(plan(cut), engine=Here()).chosen is None
    assert run_experiment(plan(cut, allow_unsafe=True), engine=Here()).chosen == "cut"


def test_a_healthy_net_is_left_alone() -> None:
    def healthy(spec: TrialSpec) -> TrialOutcome:
        name = "learns" if spec.candidate == BASELINE else spec.candidate
        found = by_name(
            TrialSpec(**{**{k: getattr(spec, k) for k in TrialSpec.__slots__}, "candidate": name})
        )
        return TrialOutcome(**{**{k: getattr(found, k) for k in TrialOutcome.__slots__}, "spec": spec})

    result = run_experiment(plan(candidate("learns"), candidate("stuck")), engine=Here(healthy))
    assert outcomes(result) == {"learns": "no_better", "stuck": "worse"}
    assert result.chosen is None
    assert result.baseline.stuck_seeds == 0


def _rates(*last: float) -> list[TrialOutcome]:
    spec = plan(candidate("x")).spec("x", 0, 1.0, trace=False)
    found = []
    for place, loss in enumerate(last):
        factor = 10.0**place
        facts = {**{k: getattr(spec, k) for k in TrialSpec.__slots__}, "learning_rate_factor": factor}
        found.append(TrialOutcome(spec=TrialSpec(**facts), losses=(2.0,) * 10 + (loss,) * 10))
    return found


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        ((1.5, 0.1, 0.05, float("nan")), 10.0),  # 97 % of the way at a calmer rate than the best
        ((1.9, 1.5, 0.05, float("nan")), 100.0),
        ((2.0, 1.999, 2.001), 10.0),  # none learns: the lowest
        ((float("nan"), float("inf")), 1.0),
        ((), None),
    ],
)
def test_the_rate_is_the_calmest_of_those_that_do_well(last: tuple[float, ...], wanted: float | None) -> None:
    assert best_rate(_rates(*last), "x", chance=2.0) == wanted
    assert best_rate(_rates(*last), "x", chance=None) == wanted


@pytest.mark.parametrize(
    "wrong",
    [
        {"seeds": ()},
        {"seeds": (1, 1)},
        {"learning_rate_factors": (0.0, 1.0)},
        {"learning_rate_factors": (float("nan"),)},
        {"steps": 0},
    ],
)
def test_a_plan_that_can_not_compare_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        plan(candidate("learns"), **wrong)


def test_doubled_names_are_refused() -> None:
    for names in (("a", "a"), (BASELINE,)):
        with pytest.raises(UsageError):
            plan(*map(candidate, names))


def test_processes_give_the_same_table_as_this_one() -> None:
    table = plan(candidate("learns"), candidate("stuck"), candidate("breaks"))
    with LocalEngine(2, fake_runners.by_name) as engine:
        there = run_experiment(table, engine=engine)
    here = run_experiment(table, engine=Here())
    for a, b in zip((there.baseline, *there.trials), (here.baseline, *here.trials), strict=True):
        assert (a.name, a.outcome, a.loss, a.curves) == (b.name, b.outcome, b.loss, b.curves)
    assert there.chosen == here.chosen == "learns"
