"""An experiment: a grid of rates for every side, then paired seeds, then a judgement and a choice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from unvanish.errors import UnvanishError, UsageError
from unvanish.schema.treatment import TreatmentResult, TrialResult
from unvanish.treatment.candidate import Candidate
from unvanish.verify.compare import Sample, baseline_words, judge, learnt
from unvanish.verify.rows import UNTREATED, trial_row
from unvanish.verify.small_samples import mean
from unvanish.verify.trial import BASELINE, Engine, Target, TrialOutcome, TrialSpec

RATE_FACTORS = (0.1, 0.3, 1.0, 3.0)
SEEDS = (1, 2, 3, 4, 5)
SCREEN_SEED = 0  # chooses the rates; not one of the seeds that are compared
ENOUGH_OF_THE_WAY = 0.9
_SAFETY_ORDER = ("safe", "unsafe", "display_only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an experiment is. `seconds_left` is a guess from the trials so far (None = none yet)."""

    done: int
    total: int
    stage: str  # "learning rates" or "paired seeds"
    candidate: str  # of the outcome that just came in
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run. Every side, the baseline first, gets the same seeds, data order, rates and steps."""

    candidates: tuple[Candidate, ...]
    target: Target
    seeds: tuple[int, ...] = SEEDS
    learning_rate_factors: tuple[float, ...] = RATE_FACTORS
    screen_seed: int = SCREEN_SEED
    steps: int = 250
    trial_seconds: float = 120.0
    chance: float | None = None
    allow_unsafe: bool = False

    def __post_init__(self) -> None:
        """Refuse a plan that can't give a fair comparison.

        Raises:
            UsageError: no seeds or rates, doubles, or a candidate that is named twice or like the baseline.
        """
        names = [BASELINE, *(c.name for c in self.candidates)]
        for what, values in (("seeds", self.seeds), ("rates", self.learning_rate_factors), ("names", names)):
            if not values or len(set(values)) != len(values):
                raise UsageError(f"an experiment needs {what}, each once: {values}", "correct the list")
        if self.steps < 1 or not all(f > 0 and math.isfinite(f) for f in self.learning_rate_factors):
            raise UsageError("steps and learning-rate factors must be positive", "correct them")

    def sides(self) -> tuple[str, ...]:
        """The baseline and all candidates, by name."""
        return (BASELINE, *(c.name for c in self.candidates))

    def spec(self, side: str, seed: int, factor: float, *, trace: bool) -> TrialSpec:
        """One trial of one side."""
        prescriptions = next((c.prescriptions for c in self.candidates if c.name == side), ())
        return TrialSpec(
            candidate=side,
            prescriptions=prescriptions,
            target=self.target,
            seed=seed,
            learning_rate_factor=factor,
            steps=self.steps,
            seconds=self.trial_seconds,
            trace=trace,
            draw=trace and seed == self.seeds[0],
        )


@dataclass(slots=True, kw_only=True)
class _Book:
    """What is known so far."""

    start: float
    budget: float
    total: int
    screened: list[TrialOutcome] = field(default_factory=list)
    final: list[TrialOutcome] = field(default_factory=list)
    stopped: str | None = None

    @property
    def done(self) -> int:
        return len(self.screened) + len(self.final)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


def run_experiment(
    plan: Plan,
    *,
    engine: Engine,
    budget_seconds: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TreatmentResult:
    """Run the plan and judge it. Out of budget or on Ctrl-C, judge what is known (`stopped` says so).

    First one seed over the whole grid of rates for every side; then the rate that each side does well
    at, on all paired seeds, which the choice of the rate has not seen.
    """
    sides = len(plan.sides())
    book = _Book(
        start=time.monotonic(),
        budget=math.inf if budget_seconds is None else budget_seconds,
        total=sides * (len(plan.learning_rate_factors) + len(plan.seeds)),
    )
    tell = on_progress or (lambda _: None)
    try:
        grid = [
            plan.spec(side, plan.screen_seed, factor, trace=False)
            for factor in _from_the_middle(plan.learning_rate_factors)
            for side in plan.sides()
        ]
        _run(grid, book.screened, "learning rates", book, engine, tell)
        chance = _chance(plan, book)
        rates = {side: best_rate(book.screened, side, chance) for side in plan.sides()}
        final = [
            plan.spec(side, seed, rates[side] or 1.0, trace=True)
            for seed in plan.seeds
            for side in plan.sides()
            if rates[side] is not None or side == BASELINE
        ]
        book.total = book.done + len(final)
        if book.stopped is None:
            _run(final, book.final, "paired seeds", book, engine, tell)
    except KeyboardInterrupt:
        book.stopped = "interrupted"
    except UnvanishError as error:  # the engine's: it can't go on
        if not book.done:
            raise
        book.stopped = str(error)
    return _result(plan, book)


def best_rate(outcomes: Iterable[TrialOutcome], side: str, chance: float | None = None) -> float | None:
    """The lowest factor that goes nine tenths of the way that the best one goes; None if all failed.

    The way is from chance (unknown: the first loss) down to the last loss. The very best rate on one seed
    often lies at the edge of divergence, where the next seed falls over. None learns: the lowest last loss.
    """
    ran = [o for o in outcomes if o.spec.candidate == side and o.error is None and o.losses]
    calm = sorted((o for o in ran if not o.diverged), key=lambda o: o.spec.learning_rate_factor)
    if not calm:
        return min((o.spec.learning_rate_factor for o in ran), default=None)
    best = min(calm, key=lambda o: o.last)
    if not learnt(best, chance):
        return best.spec.learning_rate_factor
    bar = min(o.first for o in calm) if chance is None else chance
    far = [o for o in calm if bar - o.last >= ENOUGH_OF_THE_WAY * (bar - best.last)]
    return far[0].spec.learning_rate_factor if far else best.spec.learning_rate_factor


def _chance(plan: Plan, book: _Book) -> float | None:
    """The best constant guess's loss: as given, else as the trials measured it."""
    known = [o.chance for o in book.screened + book.final if o.chance is not None]
    return plan.chance if plan.chance is not None else (mean(known) if known else None)


def choose(
    candidates: Sequence[Candidate], trials: Sequence[TrialResult], *, allow_unsafe: bool
) -> str | None:
    """The cured candidate to recommend: safe before unsafe, then the one that changes least, then as listed.

    Not the one of the lowest loss: short trials on one task do not rank those that train.
    """
    by_name = {t.name: t for t in trials}
    cured = [c for c in candidates if c.name in by_name and by_name[c.name].outcome == "cured"]
    allowed = [c for c in cured if c.safety == "safe" or (allow_unsafe and c.safety == "unsafe")]
    best = min(allowed, key=lambda c: (_SAFETY_ORDER.index(c.safety), c.effort), default=None)
    return None if best is None else best.name


def _run(
    specs: list[TrialSpec],
    into: list[TrialOutcome],
    stage: str,
    book: _Book,
    engine: Engine,
    tell: Callable[[Progress], None],
) -> None:
    outcomes = engine.run(specs)
    left = len(specs)
    for outcome in outcomes:
        into.append(outcome)
        left -= 1
        rest = book.seconds / book.done * (book.total - book.done)
        tell(
            Progress(
                done=book.done,
                total=book.total,
                stage=stage,
                candidate=outcome.spec.candidate,
                seconds_left=rest,
            )
        )
        if left and book.seconds > book.budget:
            book.stopped = f"the budget of {book.budget:g} s was spent"
            break
    close = getattr(outcomes, "close", None)
    if close is not None:
        close()  # a generator left early ends its trials now, and not when it is collected


def _from_the_middle(factors: Sequence[float]) -> list[float]:
    """The script's own rate first: when the budget runs out, the ends of the grid are what is missing."""
    return sorted(factors, key=lambda f: abs(math.log(f)))


def _result(plan: Plan, book: _Book) -> TreatmentResult:
    chance = _chance(plan, book)
    untreated = _sample(BASELINE, book, chance)
    baseline = trial_row(UNTREATED, untreated, plan.steps)
    baseline = replace(baseline, outcome="no_better", why=baseline_words(untreated))
    trials = []
    for candidate in plan.candidates:
        sample = _sample(candidate.name, book, chance)
        outcome, why = judge(sample, untreated)
        if book.stopped is not None and len(sample.outcomes) < len(plan.seeds):
            why = f"{book.stopped} after {len(sample.outcomes)} of {len(plan.seeds)} seeds; {why}"
        row = trial_row(candidate, sample, plan.steps)
        trials.append(replace(row, outcome=outcome, why=why))
    return TreatmentResult(
        baseline=baseline,
        trials=tuple(trials),
        chosen=choose(plan.candidates, trials, allow_unsafe=plan.allow_unsafe) if untreated.stuck else None,
        recipe=None,
        diff=None,
        wall_seconds=book.seconds,
        chance=chance,
        stopped=book.stopped,
    )


def _sample(side: str, book: _Book, chance: float | None) -> Sample:
    """The final trials of one side; where it never got that far, what the grid says of why."""
    final = sorted((o for o in book.final if o.spec.candidate == side), key=lambda o: o.spec.seed)
    if not final:
        final = [o for o in book.screened if o.spec.candidate == side and o.error is not None][:1]
    return Sample(outcomes=tuple(final), chance=chance)
