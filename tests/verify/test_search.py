"""The search for a cure, on an engine whose trials are given by a formula: what is run, and what is made of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest

from unvanish.errors import UsageError
from unvanish.schema.treatment import Untried
from unvanish.treatment.candidate import Candidate, candidate, of
from unvanish.verify.search import SHORTEST, Search
from unvanish.verify.search_plan import SHORT, SearchPlan
from unvanish.verify.trial import BASELINE, Target, TrialOutcome, TrialSpec, fallen_below

CHANCE = 2.0
Formula = Callable[[TrialSpec, int], float]  # the loss of one step
TITLES = {
    "he": of("init", scheme="he"),
    "bn": of("batchnorm"),
    "skip": of("residual"),
    "slow": of("layernorm"),
}


def some(*names: str) -> tuple[Candidate, ...]:
    return tuple(candidate(name, name, TITLES[name]) for name in names)


class Formulas:
    """An engine that runs nothing."""

    workers = 2

    def __init__(self, formula: Formula, *, gains: bool = True, stop_after: int = 10**9) -> None:
        self.formula, self.gains, self.stop_after = formula, gains, stop_after
        self.specs: list[TrialSpec] = []

    def run(self, specs: Iterable[TrialSpec]) -> Iterator[TrialOutcome]:
        for spec in specs:
            if len(self.specs) >= self.stop_after:
                raise KeyboardInterrupt
            self.specs.append(spec)
            yield self._outcome(spec)

    def close(self) -> None:
        """Nothing is open."""

    def _outcome(self, spec: TrialSpec) -> TrialOutcome:
        losses: list[float] = []
        for step in range(spec.steps):
            losses.append(self.formula(spec, step))
            fallen = spec.fallen_to is not None and fallen_below(losses, spec.fallen_to)
            if not math.isfinite(losses[-1]) or (fallen and len(losses) >= 20 and len(losses) % 10 == 0):
                break
        treated = spec.candidate != BASELINE
        return TrialOutcome(
            spec=spec,
            losses=tuple(losses),
            measured_gain=(0.9 if treated else 0.02) if self.gains else None,
            predicted_gain=(1.0 if treated else 0.02) if self.gains else None,
            depth=12,
            learning_rate=0.1 * spec.learning_rate_factor,
        )


def learns_where(*good: str, rate: float = 1.0, after: int = 0, speed: float = 0.05) -> Formula:
    """The loss falls for these candidates, at this rate and above, behind step `after`; all others stay at chance."""

    def loss(spec: TrialSpec, step: int) -> float:
        noise = 0.004 * math.sin(7.0 * step + spec.seed)
        if spec.candidate in good and spec.learning_rate_factor >= rate and step > after:
            return CHANCE * math.exp(-speed * (step - after)) + noise + 0.05
        return CHANCE + noise

    return loss


def searched(engine: Formulas, candidates: tuple[Candidate, ...], **more: object) -> Search:
    settings: dict[str, object] = {"steps": 100, "fallen_to": 1.7, "chance": CHANCE, **more}
    return Search(
        SearchPlan(candidates=candidates, target=Target(program="x.py"), **settings),  # type: ignore[arg-type]
        engine,
    )


def test_the_first_that_helps_is_tested_in_pairs_and_chosen() -> None:
    engine = Formulas(learns_where("bn"))
    result = searched(engine, some("he", "bn", "skip", "slow")).run()
    assert result.chosen == "bn"
    rows = {t.name: t for t in result.trials}
    assert rows["bn"].outcome == "cured" and rows["bn"].seeds == 5
    assert rows["he"].outcome == "no_better" and rows["he"].seeds == 1
    assert [u.name for u in result.untried] == ["slow"]  # the second wave was not needed
    assert result.steps == sum(len(engine._outcome(s).losses) for s in engine.specs)


def test_both_sides_get_the_same_seeds_and_steps_and_the_untreated_one_its_best_rate() -> None:
    engine = Formulas(learns_where("bn"))
    searched(engine, some("bn")).run()
    tested = [s for s in engine.specs if s.seed != 0 and s.candidate != BASELINE]
    twins = [s for s in engine.specs if s.fallen_to is None and s.candidate == BASELINE]
    paired = [(s.seed, s.steps) for s in twins if s.seed != 0]
    assert [(s.seed, s.steps) for s in tested] == paired == [(k, SHORTEST) for k in (1, 2, 3, 4, 5)]
    assert [s.learning_rate_factor for s in engine.specs if s.candidate == "bn" and s.seed == 0] == [
        1.0,
        1.0,
        0.3,
    ]
    # the untreated script's own rate is known from its pilot: the beginning of that is the same trial
    assert sorted(s.learning_rate_factor for s in twins if s.seed == 0) == [0.3, 3.0]


def test_the_untreated_script_is_compared_at_the_rate_at_which_it_does_best() -> None:
    def formula(spec: TrialSpec, step: int) -> float:
        if spec.candidate == BASELINE:
            return CHANCE - 0.004 * step * (spec.learning_rate_factor == 3.0) + 0.001 * (step % 2)
        return CHANCE * math.exp(-0.05 * step) + 0.05

    engine = Formulas(formula)
    searched(engine, some("bn")).run()
    assert {s.learning_rate_factor for s in engine.specs if s.candidate == BASELINE and s.seed != 0} == {3.0}
    assert {s.learning_rate_factor for s in engine.specs if s.candidate == "bn" and s.seed} == {0.3}


def test_a_finalist_that_does_not_hold_on_its_first_seeds_costs_no_more() -> None:
    lucky = learns_where("bn")
    engine = Formulas(lambda spec, step: lucky(spec, step) if spec.seed == 0 else CHANCE)
    result = searched(engine, some("bn")).run()
    assert result.chosen is None
    assert {s.seed for s in engine.specs} == {0, 1, 2}


def test_flat_pilots_are_short_and_the_most_promising_get_more_steps() -> None:
    engine = Formulas(learns_where("skip", after=60))
    result = searched(engine, some("he", "bn", "skip", "slow"), steps=120).run()
    assert result.chosen == "skip"
    pilots = [(s.candidate, s.steps) for s in engine.specs if s.fallen_to is not None]
    assert pilots[:5] == [(n, SHORT) for n in (BASELINE, "he", "bn", "skip", "slow")]
    assert {n for n, steps in pilots if steps == 120} <= {"he", "bn", "skip"}


def test_what_the_untreated_script_reaches_early_is_what_a_short_pilot_is_held_against() -> None:
    slowly = learns_where("bn", speed=0.01)  # 1.5 after 30 steps: not below what comes later
    given = [searched(Formulas(slowly), some("bn"), fallen_to=0.8, fallen_early=e).run() for e in (None, 1.7)]
    assert given[1].chosen == "bn" and given[1].steps < given[0].steps


def test_what_is_on_its_way_gets_more_steps_before_others_are_tried() -> None:
    def formula(spec: TrialSpec, step: int) -> float:
        speed = {"he": 0.003, "slow": 0.2}.get(spec.candidate, 0.0)
        return CHANCE * math.exp(-speed * step) + 0.002 * (step % 2)

    engine = Formulas(formula)
    result = searched(engine, some("he", "bn", "skip", "slow"), steps=120).run()
    assert result.chosen == "he"
    assert "slow" not in {s.candidate for s in engine.specs}
    assert [s.steps for s in engine.specs if s.candidate == "he" and s.fallen_to is not None] == [SHORT, 120]


def test_a_lower_rate_that_goes_nearly_as_far_is_taken() -> None:
    engine = Formulas(learns_where("bn", rate=0.3, speed=0.2))
    result = searched(engine, some("bn")).run()
    assert result.chosen == "bn" and result.trials[0].rate_factor == pytest.approx(0.3)


@pytest.mark.parametrize("good", ["he", "slow"])
def test_steps_are_counted_once(good: str) -> None:
    for rate in (1.0, 3.0, 10.0):
        engine = Formulas(learns_where(good, BASELINE if rate == 10 else good, rate=rate))
        result = searched(engine, some("he", "bn", "skip", "slow")).run()
        assert result.steps == sum(len(engine._outcome(s).losses) for s in engine.specs)


def test_a_pilot_that_falls_at_once_makes_the_paired_trials_short() -> None:
    quick, slow = Formulas(learns_where("bn", speed=0.2)), Formulas(learns_where("bn", speed=0.005))
    lengths = []
    for engine in (quick, slow):
        searched(engine, some("bn"), steps=200).run()
        lengths.append(max(s.steps for s in engine.specs if s.fallen_to is None))
    assert lengths[0] == SHORTEST < lengths[1]


def test_a_rate_is_found_where_the_scripts_own_helps_nobody() -> None:
    result = searched(Formulas(learns_where("bn", rate=3.0)), some("he", "bn")).run()
    assert result.chosen == "bn"
    chosen = next(t for t in result.trials if t.name == "bn")
    assert chosen.rate_factor >= 3.0


def test_where_another_rate_is_all_that_is_needed_it_is_what_is_chosen() -> None:
    result = searched(Formulas(learns_where(BASELINE, "learning_rate_10", rate=10.0)), some("he")).run()
    assert result.chosen is None or result.chosen.startswith("learning_rate")
    assert any(t.name == "learning_rate_10" for t in result.trials)


def test_a_finalist_that_a_lower_rate_alone_does_as_well_as_gives_way_to_the_rate() -> None:
    def loss(spec: TrialSpec, step: int) -> float:
        noise = 0.004 * math.sin(7.0 * step + spec.seed)
        slow = spec.learning_rate_factor <= 0.3 or any(
            p.treatment == "learning_rate" for p in spec.prescriptions
        )
        fine = slow or spec.candidate == "bn"
        return (CHANCE * math.exp(-0.05 * step) if fine else CHANCE) + noise + 0.05 * fine

    engine = Formulas(loss, gains=False)
    result = searched(engine, some("bn")).run()
    assert result.chosen == "learning_rate_0.3"
    rows = {t.name: t for t in result.trials}
    assert rows["bn"].outcome != "cured" and rows["learning_rate_0.3"].outcome == "cured"
    assert result.baseline.rate_factor == 1.0 and result.baseline.stuck_seeds == 5


def test_what_learns_barely_gives_way_to_what_goes_far() -> None:
    def loss(spec: TrialSpec, step: int) -> float:
        noise = 0.004 * math.sin(7.0 * step + spec.seed)
        floor = {"he": 0.8 * CHANCE, "slow": 0.05}.get(spec.candidate, CHANCE)
        return floor + (CHANCE - floor) * math.exp(-0.05 * step) + noise

    result = searched(Formulas(loss), some("he", "bn", "skip", "slow"), fallen_to=1.8).run()
    assert {t.name: t.outcome for t in result.trials if t.outcome == "cured"} == {
        "he": "cured",
        "slow": "cured",
    }
    assert result.chosen == "slow"
    alone = searched(Formulas(loss), some("he", "bn", "skip"), fallen_to=1.8).run()
    assert alone.chosen == "he"


def test_what_takes_its_time_is_given_twice_as_much() -> None:
    result = searched(Formulas(learns_where("slow", after=120)), some("he", "slow"), steps=100).run()
    assert result.chosen == "slow"


def test_no_cure_is_an_answer() -> None:
    result = searched(Formulas(learns_where()), some("he", "bn", "skip", "slow")).run()
    assert result.chosen is None
    assert {t.outcome for t in result.trials} == {"no_better"}


def test_what_can_not_be_done_to_this_net_takes_no_place_of_what_can() -> None:
    names = [f"x{i}" for i in range(20)]
    many = tuple(candidate(n, n, of("init", scheme="he")) for n in names)

    class Refusing(Formulas):
        def _outcome(self, spec: TrialSpec) -> TrialOutcome:
            if spec.candidate in names[:10]:
                return TrialOutcome(spec=spec, error="there is nothing to change")
            return super()._outcome(spec)

    engine = Refusing(learns_where("x18"))
    assert searched(engine, many).run().chosen == "x18"
    calm = Formulas(learns_where("x18"))
    assert searched(calm, many).run().chosen is None  # behind those that are tried at most


def test_a_cure_that_holds_on_one_seed_only_is_none() -> None:
    lucky = learns_where("bn")
    result = searched(
        Formulas(lambda spec, step: lucky(spec, step) if spec.seed in (0, 1) else CHANCE + 0.01 * (step % 2)),
        some("bn"),
    ).run()
    assert result.chosen is None
    assert next(t for t in result.trials if t.name == "bn").outcome in ("improved", "no_better")


def test_the_second_is_tested_where_the_first_does_not_hold() -> None:
    both = learns_where("he", "bn")

    def formula(spec: TrialSpec, step: int) -> float:
        return CHANCE if spec.candidate == "he" and spec.seed != 0 else both(spec, step)

    result = searched(Formulas(formula), some("he", "bn")).run()
    assert result.chosen == "bn"


def test_divergence_is_no_fall() -> None:
    def wild(spec: TrialSpec, step: int) -> float:
        return math.nan if spec.candidate == "he" and step > 30 else CHANCE

    result = searched(Formulas(wild), some("he")).run()
    assert result.chosen is None
    assert next(t for t in result.trials if t.name == "he").outcome in ("worse", "no_better")


@pytest.mark.parametrize("stop_after", range(0, 17, 2))
def test_interrupted_anywhere_it_keeps_what_is_known(stop_after: int) -> None:
    engine = Formulas(learns_where("bn"), stop_after=stop_after)
    result = searched(engine, some("he", "bn", "skip")).run()
    assert result.stopped == ("interrupted" if len(engine.specs) == stop_after else None)
    if result.chosen is not None:
        assert result.trials[1].outcome == "cured"


def test_out_of_time_is_said() -> None:
    engine = Formulas(learns_where("bn"))
    plan = SearchPlan(candidates=some("he", "bn"), target=Target(program="x.py"), steps=50, fallen_to=1.7)
    result = Search(plan, engine, budget_seconds=0.0).run()
    assert result.stopped is not None and "budget" in result.stopped
    assert result.chosen is None and len(engine.specs) <= 1


def test_what_was_ruled_out_before_stands_in_the_result() -> None:
    out = Untried(name="lsuv", title="LSUV init", why="still vanishes")
    result = searched(Formulas(learns_where("bn")), some("bn"), untried=(out,)).run()
    assert out in result.untried


def test_a_side_that_falls_ill_on_the_way_is_run_to_the_end() -> None:
    def ill_from_60_on(spec: TrialSpec, step: int) -> float:
        healthy = CHANCE * math.exp(-0.05 * step) + 0.05
        return CHANCE if spec.candidate == BASELINE and step >= 60 else healthy

    engine = Formulas(ill_from_60_on)
    result = searched(engine, some("bn"), steps=120, fallen_to=None).run()
    assert result.chosen == "bn"
    assert all(s.steps == 120 for s in engine.specs)


def test_each_seed_is_used_once_for_each_side() -> None:
    engine = Formulas(learns_where("bn"))
    searched(engine, some("bn")).run()
    pairs = [(s.candidate, s.seed) for s in engine.specs if s.seed != 0]
    assert sorted(pairs) == sorted(itertools.product((BASELINE, "bn"), (1, 2, 3, 4, 5)))


def test_of_each_side_that_is_compared_one_trial_draws_its_signal() -> None:
    engine = Formulas(learns_where("he"))
    plan = SearchPlan(candidates=some("he", "bn"), target=Target(program="x.py"), steps=200, chance=CHANCE)
    Search(plan, engine).run()
    drawn = [(s.candidate, s.seed) for s in engine.specs if s.draw]
    assert sorted(drawn) == [(BASELINE, 1), ("he", 1)]
    assert all(s.trace for s in engine.specs if s.draw)


@pytest.mark.parametrize("after", [1, 4, 9])
def test_an_engine_that_fails_on_the_way_leaves_what_is_known(after: int) -> None:
    class Failing(Formulas):
        def run(self, specs: Iterable[TrialSpec]) -> Iterator[TrialOutcome]:
            for outcome in super().run(specs):
                if len(self.specs) > after:
                    raise UsageError("the cluster is gone", "start it again")
                yield outcome

    result = searched(Failing(learns_where("bn")), some("he", "bn", "skip")).run()
    assert result.stopped == "the cluster is gone; start it again"
    assert result.baseline.seeds


def test_an_engine_that_never_begins_is_an_error() -> None:
    class Broken(Formulas):
        def run(self, specs: Iterable[TrialSpec]) -> Iterator[TrialOutcome]:
            raise UsageError("there is no cluster", "start one")

    with pytest.raises(UsageError, match="there is no cluster"):
        searched(Broken(learns_where("bn")), some("he")).run()


def test_a_pilot_that_runs_away_does_not_make_the_others_alike() -> None:
    def formula(spec: TrialSpec, step: int) -> float:
        if spec.candidate == "he":
            return 1e25
        if spec.candidate == "slow" and step > 90:
            return 0.1
        return {"bn": 2.4, "skip": 2.3, "slow": 1.95}.get(spec.candidate, CHANCE) + 0.001 * (step % 2)

    engine = Formulas(formula)
    result = searched(engine, some("he", "bn", "skip", "slow"), steps=60).run()
    assert result.chosen == "slow"  # it came down the farthest, and gets twice the steps


def test_a_finalist_that_holds_on_one_seed_only_does_not_end_the_search() -> None:
    late, lucky = learns_where("slow", after=60), learns_where("he")

    def formula(spec: TrialSpec, step: int) -> float:
        if spec.candidate == "he" and spec.seed in (0, 1):
            return lucky(spec, step)
        return late(spec, step)

    result = searched(Formulas(formula), some("he", "slow"), steps=100).run()
    assert {t.name: t.outcome for t in result.trials}["he"] == "improved"
    assert result.chosen == "slow"


def test_the_gain_has_to_move_only_where_it_is_what_is_wrong() -> None:
    class Flat(Formulas):
        def _outcome(self, spec: TrialSpec) -> TrialOutcome:
            gain = 0.9 if spec.candidate == BASELINE else 0.01  # smaller weights open a softmax
            return replace(super()._outcome(spec), measured_gain=gain, predicted_gain=0.9)

    for claims, chosen in ((False, "he"), (True, None)):
        engine = Flat(learns_where("he"))
        assert searched(engine, some("he"), claims_flow=claims).run().chosen == chosen
