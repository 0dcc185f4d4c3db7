"""The search for a cure: cheap pilots in the order of the diagnosis, then one fair, paired test of what helped.

Pilots are single trials, far shorter than a training; each ends as soon as its loss has clearly fallen. Where none of
that length falls, the most promising get more steps, then other rates, then more steps again: successive halving
(Jamieson & Talwalkar 2016). What helped is put beside the untreated script, at the best of a grid of rates for that,
on paired seeds that no pilot has seen; only that test is believed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from unvanish.errors import UnvanishError
from unvanish.schema.treatment import TreatmentResult, TrialResult, Untried
from unvanish.treatment.candidate import Candidate
from unvanish.treatment.catalogue import rate
from unvanish.verify.compare import Sample, baseline_words, judge, learnt
from unvanish.verify.experiment import Progress, best_rate, choose
from unvanish.verify.pilots import Pilots
from unvanish.verify.rows import UNTREATED, trial_row
from unvanish.verify.small_samples import mean
from unvanish.verify.trial import BASELINE, Engine, Target, TrialOutcome, TrialSpec

SEEDS = (1, 2, 3, 4, 5)
PILOT_SEED = 0  # not one of those that are compared
GRID = (0.3, 3.0)  # beside the script's own rate, for the untreated side: it is to be beaten at its best
WIDE_GRID = (0.1, 0.3, 3.0, 10.0)  # where nothing has helped at the script's own rate
WAVE, WIDEST_WAVE = 3, 6  # pilots at a time: the machine's workers, between these
MOST_PILOTS = 12
MOST_FINALISTS = 4
SHORT = 40  # steps of the first pilots
SHORTEST = 30  # steps of a paired trial: a tenth of them, and no fewer than seven, are what is compared
ROOM = 1.25  # times the steps after which the pilot's loss had fallen
LENGTHENED = 2  # times a trial's length, where the trials were too short to tell
PROMISING, MOST_PROMISING = 3, 2  # get more steps; other rates, and twice as many steps
FIRST_SEEDS = 2  # of a finalist: where it does not learn on these, the others are not run


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What to look for a cure in. `candidates`: in the order in which they are to be tried.

    `steps`: of a trial, at most. `fallen_to`: a training loss that the untreated script does not reach in these
    steps; None where that can't be told beforehand (it falls ill on the way): then no pilot ends early, and none is
    shorter. `fallen_early`: the same for the first, short pilots (None: as `fallen_to`). `mark`,
    `model`: which model is meant, as in TrialSpec. `untried`: what was ruled out already, and why. `notes`: for the
    result.
    """

    candidates: tuple[Candidate, ...]
    target: Target
    steps: int
    fallen_to: float | None = None
    fallen_early: float | None = None
    mark: str | None = None
    model: str | None = None
    chance: float | None = None
    seeds: tuple[int, ...] = SEEDS
    pilot_seed: int = PILOT_SEED
    trial_seconds: float = 120.0
    untried: tuple[Untried, ...] = ()
    notes: tuple[str, ...] = ()


class Search:
    """One search. `run` gives its result; what is known is judged where it is stopped (budget, Ctrl-C)."""

    def __init__(
        self,
        plan: SearchPlan,
        engine: Engine,
        *,
        budget_seconds: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Nothing is run yet."""
        self._plan = plan
        self._engine = engine
        self._budget = math.inf if budget_seconds is None else budget_seconds
        self._tell = on_progress or (lambda _: None)
        self._book = _Book()
        self._steps = plan.steps if plan.fallen_to is None else min(SHORT, plan.steps)
        early = plan.fallen_to if plan.fallen_early is None else plan.fallen_early
        levels = () if plan.fallen_to is None or early is None else ((SHORT, early), (10**9, plan.fallen_to))
        self._pilots = Pilots(candidates=plan.candidates, levels=levels, chance=plan.chance)

    def run(self) -> TreatmentResult:
        """Search, and judge what was found."""
        try:
            self._search()
        except KeyboardInterrupt:
            self._book.stopped = "interrupted"
        except UnvanishError as error:  # the engine's: it can't go on
            if not self._book.count:
                raise
            self._book.stopped = str(error)
        except _OutOfBudget:
            self._book.stopped = f"the budget of {self._budget:g} s was spent"
        return self._result()

    # --- the stages -----------------------------------------------------------------------------------------

    def _search(self) -> None:
        queue = list(self._plan.candidates[:MOST_PILOTS])
        self._pilot([self._spec(UNTREATED)], "first look", 1 + len(queue))
        if self._in_waves(queue, "pilots"):
            return
        for longer, count in ((self._plan.steps, PROMISING), (LENGTHENED * self._plan.steps, MOST_PROMISING)):
            if (
                self._book.final
            ):  # something has helped, and was tested: more steps or rates are not what lacks
                return
            if self._for_longer(longer, count):
                return
            if longer == self._plan.steps and not self._book.final and self._at_other_rates():
                return

    def _in_waves(
        self, queue: Sequence[Candidate], stage: str, rates: dict[str, float] | None = None
    ) -> bool:
        """Pilots, some at a time; what has fallen is tested before the next ones are tried."""
        size = max(WAVE, min(self._engine.workers, WIDEST_WAVE))
        for start in range(0, len(queue), size):
            wave = queue[start : start + size]
            specs = [self._spec(c, factor=(rates or {}).get(c.name, 1.0)) for c in wave]
            self._pilot(specs, stage, len(queue) - start)
            if self._one_cures() or self._one_comes(wave):
                return True
        return False

    def _one_comes(self, wave: Sequence[Candidate]) -> bool:
        """What is on its way gets more steps before others are tried."""
        some = [c for c in wave if self._steps < self._plan.steps and self._pilots.coming(c)]
        if not some:
            return False
        self._pilot([self._spec(c, steps=self._plan.steps) for c in some], "longer trials", len(some))
        return self._one_cures()

    def _one_cures(self) -> bool:
        """Test those that are new, the quickest first, until one is cured."""
        for finalist in self._pilots.fallen:
            if finalist.name in self._book.tested or len(self._book.tested) >= MOST_FINALISTS:
                continue
            self._book.tested.append(finalist.name)
            length = self._length(finalist)
            self._test(finalist, length)
            outcome, _ = self._judged(finalist)
            longest = LENGTHENED * self._plan.steps
            if outcome == "improved" and length < longest:  # too short to tell, perhaps
                self._test(finalist, min(max(2 * length, SHORT), longest))
                outcome, _ = self._judged(finalist)
            if outcome == "cured":
                return True
        return False

    def _for_longer(self, steps: int, count: int) -> bool:
        """Some cures take their time: the most promising ones once more, with more steps, at their best rates."""
        if steps <= self._steps:
            return False
        self._steps = steps
        some = [
            c for c in self._pilots.promising(count)
            if not any(o.spec.steps >= steps for o in self._pilots.of(c, self._pilots.rate(c)))
        ]  # fmt: skip
        if self._plan.fallen_to is None:
            self._pilot([self._spec(UNTREATED)], "longer trials", 1 + len(some))
        return self._in_waves(some, "longer trials", {c.name: self._pilots.rate(c) for c in some})

    def _at_other_rates(self) -> bool:
        """None has helped at the script's rate: a grid, for the untreated script too, with short pilots."""
        before, self._steps = self._steps, self._plan.steps
        if self._plan.fallen_to is not None:
            self._steps = min(SHORT, self._plan.steps)
        some = [UNTREATED, *self._pilots.promising(MOST_PROMISING)]
        self._pilot([self._spec(c, factor=f) for f in WIDE_GRID for c in some], "other rates", 0)
        enough = self._pilots.rate_that_is_enough
        if enough is not None:
            self._pilots.as_baseline_rate(rate(enough), enough)
        self._steps = before
        return self._one_cures()

    def _test(self, finalist: Candidate, steps: int) -> None:
        """The finalist at the rate of its pilot against the untreated script at its best one, on the paired seeds.

        The finalist's own rate was found on the pilot's seed, by fewer tries than the untreated side gets: what is
        unequal is against it. Its first seeds may show that it does not hold; the rest is then not run.
        """
        seeds, factor = self._plan.seeds, self._pilots.rate(finalist)
        first = [self._pair(finalist, seed, factor, steps) for seed in seeds[:FIRST_SEEDS]]
        self._run(first, "paired seeds", 2 * len(seeds), self._book.final)
        own = [o for o in self._book.final if o.spec in first]
        if not all(learnt(o, self._chance) for o in own):
            return
        best = self._untreated_rate(steps)
        rest = [self._pair(finalist, seed, factor, steps) for seed in seeds[FIRST_SEEDS:]]
        twins = [self._pair(UNTREATED, seed, best, steps) for seed in seeds]
        done = [o.spec for o in self._book.final]
        specs = [s for s in (*rest, *twins) if s not in done]
        self._run(specs, "paired seeds", len(specs), self._book.final)

    def _untreated_rate(self, steps: int) -> float:
        """Where the untreated script does best in so many steps; what was run already counts."""
        found = []
        for factor in (1.0, *GRID):
            known = self._pilots.prefix(UNTREATED, factor, self._plan.pilot_seed, steps)
            spec = self._spec(UNTREATED, factor=factor, steps=steps, whole=True)
            if known is None:
                self._run([spec], "learning rates", 1, self._pilots.outcomes)
                known = next((o for o in self._pilots.outcomes if o.spec == spec), None)
            found += [known] if known is not None else []
        return best_rate(found, BASELINE, self._chance) or 1.0

    # --- inside ---------------------------------------------------------------------------------------------

    def _pilot(self, specs: Sequence[TrialSpec], stage: str, ahead: int) -> None:
        self._run(specs, stage, ahead, self._pilots.outcomes)
        self._pilots.chance = self._chance

    def _pair(self, side: Candidate, seed: int, factor: float, steps: int) -> TrialSpec:
        return self._spec(side, factor=factor, seed=seed, steps=steps, whole=True)

    def _spec(
        self,
        side: Candidate,
        *,
        factor: float = 1.0,
        seed: int | None = None,
        steps: int | None = None,
        whole: bool = False,
    ) -> TrialSpec:
        """`whole`: to its last step, since it is compared with others of that length."""
        plan = self._plan
        return TrialSpec(
            candidate=side.name,
            prescriptions=side.prescriptions,
            target=plan.target,
            seed=plan.pilot_seed if seed is None else seed,
            learning_rate_factor=factor,
            steps=steps or self._steps,
            seconds=plan.trial_seconds,
            trace=side is UNTREATED or seed is not None,
            mark=plan.mark,
            model=plan.model,
            fallen_to=None if whole else self._pilots.level(steps or self._steps),
        )

    def _run(self, specs: Sequence[TrialSpec], stage: str, ahead: int, into: list[TrialOutcome]) -> None:
        """Run these trials. `ahead`: how many more are to be expected, these included."""
        if self._book.seconds > self._budget:
            raise _OutOfBudget
        outcomes = self._engine.run(specs)
        done = self._book.count
        total = done + max(ahead, len(specs))
        try:
            for outcome in outcomes:
                into.append(outcome)
                self._book.count += 1
                self._book.steps += len(outcome.losses)
                left = self._book.seconds / self._book.count * (total - self._book.count)
                self._tell(
                    Progress(
                        done=self._book.count,
                        total=total,
                        stage=stage,
                        candidate=outcome.spec.candidate,
                        seconds_left=left,
                    )
                )
                if self._book.seconds > self._budget and self._book.count - done < len(specs):
                    raise _OutOfBudget
        finally:
            close = getattr(outcomes, "close", None)
            if close is not None:
                close()  # a generator left early ends its trials now, and not when it is collected

    @property
    def _chance(self) -> float | None:
        """The best constant guess's loss: as given, else as the trials measured it."""
        if self._plan.chance is not None:
            return self._plan.chance
        known = [o.chance for o in (*self._pilots.outcomes, *self._book.final) if o.chance is not None]
        return mean(known) if known else None

    def _length(self, finalist: Candidate) -> int:
        """How long the paired trials are: as long as the pilot needed, with room, where it ended early."""
        if self._plan.fallen_to is None:
            return self._steps
        needed = self._pilots.needed(finalist) or self._steps
        return min(LENGTHENED * self._plan.steps, max(SHORTEST, round(ROOM * needed)))

    def _sample(self, side: Candidate) -> Sample:
        some = [o for o in self._book.final if o.spec.candidate == side.name]
        if some:
            last = some[-1].spec.steps  # of one length only
            some = sorted((o for o in some if o.spec.steps == last), key=lambda o: o.spec.seed)
        return Sample(outcomes=tuple(some or self._pilots.of(side)[:1]), chance=self._chance)

    def _paired(self, side: Candidate) -> Sample:
        """The untreated trials of the same length as the side's own."""
        own = self._sample(side)
        length = own.outcomes[0].spec.steps if own.outcomes else 0
        some = [o for o in self._book.final if o.spec.candidate == BASELINE and o.spec.steps == length]
        return Sample(outcomes=tuple(some), chance=self._chance) if some else self._sample(UNTREATED)

    def _judged(self, side: Candidate) -> tuple[str, str]:
        return judge(self._sample(side), self._paired(side), ill=True, claims_flow=side.claims_flow)

    # --- the result -----------------------------------------------------------------------------------------

    def _result(self) -> TreatmentResult:
        tested = [c for c in self._pilots.tried if any(o.spec.candidate == c.name for o in self._book.final)]
        untreated = self._paired(tested[-1]) if tested else self._sample(UNTREATED)
        baseline = replace(
            trial_row(UNTREATED, untreated, self._steps), outcome="no_better", why=baseline_words(untreated)
        )
        rows = [self._row(c) for c in self._pilots.tried]
        left = [c for c in self._plan.candidates if c not in self._pilots.tried]
        later = tuple(Untried(name=c.name, title=c.title, why=self._why_not()) for c in left)
        return TreatmentResult(
            baseline=baseline,
            trials=tuple(rows),
            chosen=choose(self._pilots.tried, rows, allow_unsafe=True),
            recipe=None,
            diff=None,
            wall_seconds=self._book.seconds,
            chance=self._chance,
            stopped=self._book.stopped,
            untried=(*self._plan.untried, *later),
            notes=self._plan.notes,
            steps=self._book.steps,
        )

    def _row(self, side: Candidate) -> TrialResult:
        sample = self._sample(side)
        outcome, why = judge(sample, self._paired(side), ill=True, claims_flow=side.claims_flow)
        if self._book.stopped is not None:
            why = f"{self._book.stopped}; {why}"
        return replace(trial_row(side, sample, self._steps), outcome=outcome, why=why)

    def _why_not(self) -> str:
        return self._book.stopped or "one that comes before it in the order of the diagnosis did it"


@dataclass(slots=True, kw_only=True)
class _Book:
    """What is known so far beside the pilots."""

    start: float = field(default_factory=time.monotonic)
    final: list[TrialOutcome] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)  # names of the finalists
    count: int = 0  # trials
    steps: int = 0  # of all of them
    stopped: str | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


class _OutOfBudget(Exception):  # noqa: N818 - it is no error
    """The time is over."""
