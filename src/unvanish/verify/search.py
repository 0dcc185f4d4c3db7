"""The search for a cure: cheap pilots in the order of the diagnosis, then one fair, paired test of what helped.

Pilots are single trials that end as soon as the loss has clearly fallen. What helped is then put beside the untreated
script on a grid of learning rates for both, and on paired seeds that no pilot has seen; only that test is believed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from unvanish.errors import UnvanishError
from unvanish.schema.treatment import TreatmentResult, TrialResult, Untried
from unvanish.treatment.candidate import Candidate
from unvanish.treatment.catalogue import rate
from unvanish.verify.compare import Sample, baseline_words, judge, learnt
from unvanish.verify.experiment import Progress, best_rate, choose
from unvanish.verify.rows import UNTREATED, trial_row
from unvanish.verify.small_samples import mean
from unvanish.verify.trial import BASELINE, Engine, Target, TrialOutcome, TrialSpec, fallen_below

SEEDS = (1, 2, 3, 4, 5)
PILOT_SEED = 0  # not one of those that are compared
GRID = (0.3, 3.0)  # beside the script's own rate, for both sides
WIDE_GRID = (0.1, 0.3, 3.0, 10.0)  # where nothing has helped at the script's own rate
WAVE = 3  # pilots at a time; the machine's workers where these are more
MOST_PILOTS = 12
MOST_FINALISTS = 4
LENGTHENED = 2  # times a trial's length, where the paired trials were too short to tell
PROMISING = 3  # are tried at other rates, and longer
SHORTEST = 40  # steps of a paired trial
ROOM = 1.5  # times the steps after which the pilot's loss had fallen


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What to look for a cure in. `candidates`: in the order in which they are to be tried.

    `steps`: of a trial, at most. `fallen_to`: a training loss that the untreated script does not reach in these
    steps; None where that can't be told beforehand (it falls ill on the way): then no pilot ends early. `mark`,
    `model`: which model is meant, as in TrialSpec. `untried`: what was ruled out already, and why. `notes`: for the
    result.
    """

    candidates: tuple[Candidate, ...]
    target: Target
    steps: int
    fallen_to: float | None = None
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
        self._steps = plan.steps

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
        self._run([self._spec(UNTREATED)], "first look", 1 + len(queue))
        size = max(WAVE, self._engine.workers)
        while queue:
            wave, queue = queue[:size], queue[size:]
            self._run([self._spec(c) for c in wave], "pilots", len(wave) + len(queue))
            if self._one_cures(self._fallen()):
                return
        if not self._book.final and not self._one_cures(self._at_other_rates()):
            self._one_cures(self._for_longer())

    def _one_cures(self, finalists: Sequence[Candidate]) -> bool:
        """Test those that are new, the quickest first, until one is cured."""
        for finalist in sorted(finalists, key=self._quickness):
            if finalist.name in self._book.tested or len(self._book.tested) >= MOST_FINALISTS:
                continue
            self._book.tested.append(finalist.name)
            length = self._length(finalist)
            self._test(finalist, length)
            outcome, _ = self._judged(finalist)
            if outcome == "improved" and length < LENGTHENED * self._steps:  # too short to tell, perhaps
                self._test(finalist, min(2 * length, LENGTHENED * self._steps))
                outcome, _ = self._judged(finalist)
            if outcome == "cured":
                return True
        return False

    def _at_other_rates(self) -> list[Candidate]:
        """None has helped at the script's rate: the grid, the untreated script first."""
        some = [UNTREATED, *self._promising()]
        self._run([self._spec(c, factor=f) for f in WIDE_GRID for c in some], "other rates", 0)
        learns = best_rate(self._book.pilots, BASELINE, self._chance)
        own = [o for o in self._outcomes(UNTREATED, learns) if self._has_fallen(o)]
        cure = [rate(learns)] if own and learns not in (None, 1.0) else []
        for made in cure:
            self._book.extra.append(made)
            self._book.pilots += [replace(o, spec=replace(o.spec, candidate=made.name)) for o in own]
        return [*cure, *[c for c in self._fallen() if c not in cure]]

    def _for_longer(self) -> list[Candidate]:
        """Some cures take their time: the most promising ones once more, twice as long."""
        self._steps *= 2
        some = self._promising()
        factors = {c.name: self._best_rate(c) for c in some}
        specs = [self._spec(UNTREATED), *(self._spec(c, factor=factors[c.name]) for c in some)]
        self._run(specs, "longer trials", len(specs))
        return self._fallen()

    def _test(self, finalist: Candidate, steps: int) -> None:
        """The grid for both sides on the pilot's seed, then the paired seeds, each side at its best rate."""
        sides = (UNTREATED, finalist)
        known = {
            (o.spec.candidate, o.spec.learning_rate_factor) for o in self._book.grid if o.spec.steps == steps
        }
        specs = [
            self._spec(side, factor=factor, steps=steps, whole=True)
            for factor in (1.0, *GRID)
            for side in sides
            if (side.name, factor) not in known
        ]
        self._run(specs, "learning rates", len(specs) + 2 * len(self._plan.seeds), into=self._book.grid)
        at = [o for o in self._book.grid if o.spec.steps == steps]
        rates = {s.name: best_rate(at, s.name, self._chance) or 1.0 for s in sides}
        done = {(o.spec.candidate, o.spec.seed) for o in self._book.final if o.spec.steps == steps}
        pairs = [
            self._spec(side, factor=rates[side.name], steps=steps, seed=seed, whole=True)
            for seed in self._plan.seeds
            for side in sides
            if (side.name, seed) not in done
        ]
        self._run(pairs, "paired seeds", len(pairs), into=self._book.final)

    # --- inside ---------------------------------------------------------------------------------------------

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
            fallen_to=None if whole else plan.fallen_to,
        )

    def _run(
        self, specs: Sequence[TrialSpec], stage: str, ahead: int, into: list[TrialOutcome] | None = None
    ) -> None:
        """Run these trials. `ahead`: how many more are to be expected, these included."""
        if self._book.seconds > self._budget:
            raise _OutOfBudget
        into = self._book.pilots if into is None else into
        outcomes = self._engine.run(specs)
        done = self._book.count
        total = done + max(ahead, len(specs))
        try:
            for outcome in outcomes:
                into.append(outcome)
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
        known = [o.chance for o in self._book.all if o.chance is not None]
        return mean(known) if known else None

    def _outcomes(self, side: Candidate, factor: float | None = None) -> list[TrialOutcome]:
        return [
            o
            for o in self._book.pilots
            if o.spec.candidate == side.name and factor in (None, o.spec.learning_rate_factor)
        ]

    def _has_fallen(self, outcome: TrialOutcome) -> bool:
        """Whether a pilot learns, and better than the untreated script does."""
        if outcome.error is not None or not learnt(outcome, self._chance):
            return False
        level = self._plan.fallen_to
        if level is None:
            untreated = [o for o in self._outcomes(UNTREATED, 1.0) if o.losses and not o.diverged]
            bars = [
                b for b in (self._chance, *(o.last for o in untreated)) if b is not None and math.isfinite(b)
            ]
            level = min(bars, default=outcome.first)
        return fallen_below(outcome.losses, level)

    def _best_rate(self, side: Candidate) -> float:
        """Where it learns at one of them; else the script's own."""
        if not any(learnt(o, self._chance) for o in self._outcomes(side)):
            return 1.0
        return best_rate(self._book.pilots, side.name, self._chance) or 1.0

    def _fallen(self) -> list[Candidate]:
        """Whose pilots have fallen; those that were tried first, first."""
        tried = [*self._book.extra, *self._plan.candidates]
        return [c for c in tried if any(self._has_fallen(o) for o in self._outcomes(c))]

    def _promising(self) -> list[Candidate]:
        """Those that ran and came down the farthest; the order of the diagnosis decides between equals."""
        ran = {
            c.name: min((o.last for o in self._outcomes(c) if o.losses and not o.diverged), default=None)
            for c in self._plan.candidates
        }
        some = [c for c in self._plan.candidates if any(o.error is None for o in self._outcomes(c))]
        known = [v for v in ran.values() if v is not None]
        step = 0.02 * max((abs(v) for v in known), default=1.0) or 1.0
        order = sorted(
            some, key=lambda c: math.inf if ran[c.name] is None else round((ran[c.name] or 0.0) / step)
        )
        return order[:PROMISING]

    def _needed(self, finalist: Candidate) -> int:
        """After how many steps a pilot's loss had fallen."""
        return min(
            (len(o.losses) for o in self._outcomes(finalist) if self._has_fallen(o)), default=self._steps
        )

    def _quickness(self, finalist: Candidate) -> int:
        """Falls that differ by less than this are equally quick: then the order of the diagnosis decides."""
        return self._needed(finalist) // SHORTEST

    def _length(self, finalist: Candidate) -> int:
        """How long the paired trials are: as long as the pilot needed, with room, where it ended early."""
        if self._plan.fallen_to is None:
            return self._steps
        return min(self._steps, max(SHORTEST, round(ROOM * self._needed(finalist))))

    def _sample(self, side: Candidate, *, final: bool = True) -> Sample:
        some = [o for o in self._book.final if o.spec.candidate == side.name] if final else []
        if some:
            last = some[-1].spec.steps  # of one length only
            some = sorted((o for o in some if o.spec.steps == last), key=lambda o: o.spec.seed)
        return Sample(outcomes=tuple(some or self._outcomes(side)[:1]), chance=self._chance)

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
        tested = [c for c in self._tried() if any(o.spec.candidate == c.name for o in self._book.final)]
        untreated = self._paired(tested[-1]) if tested else self._sample(UNTREATED)
        baseline = replace(
            trial_row(UNTREATED, untreated, self._steps), outcome="no_better", why=baseline_words(untreated)
        )
        rows = [self._row(c) for c in self._tried()]
        left = [c for c in self._plan.candidates if c not in self._tried()]
        later = tuple(Untried(name=c.name, title=c.title, why=self._why_not()) for c in left)
        return TreatmentResult(
            baseline=baseline,
            trials=tuple(rows),
            chosen=choose(self._tried(), rows, allow_unsafe=True),
            recipe=None,
            diff=None,
            wall_seconds=self._book.seconds,
            chance=self._chance,
            stopped=self._book.stopped,
            untried=(*self._plan.untried, *later),
            notes=self._plan.notes,
            steps=sum(len(o.losses) for o in self._book.all),
        )

    def _tried(self) -> list[Candidate]:
        return [c for c in (*self._book.extra, *self._plan.candidates) if self._outcomes(c)]

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
    """What is known so far."""

    start: float = field(default_factory=time.monotonic)
    pilots: list[TrialOutcome] = field(default_factory=list)
    grid: list[TrialOutcome] = field(default_factory=list)
    final: list[TrialOutcome] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)  # names of the finalists
    extra: list[Candidate] = field(default_factory=list)  # that the trials themselves have suggested
    stopped: str | None = None

    @property
    def all(self) -> Iterable[TrialOutcome]:
        return [*self.pilots, *self.grid, *self.final]

    @property
    def count(self) -> int:
        return len(self.pilots) + len(self.grid) + len(self.final)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


class _OutOfBudget(Exception):  # noqa: N818 - it is no error
    """The time is over."""
