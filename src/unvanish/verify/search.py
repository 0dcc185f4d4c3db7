"""The search for a cure: cheap pilots in the order of the diagnosis, then one fair, paired test of what helped.

Pilots are single trials, far shorter than a training; each ends as soon as its loss has clearly fallen. Where none of
that length falls, the most promising get more steps, then other rates, then more steps again: successive halving
(Jamieson & Talwalkar 2016). What helped is put beside the untreated script, at the best of a grid of rates for that,
on paired seeds that no pilot has seen; only that test is believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from unvanish.errors import UnvanishError
from unvanish.schema.treatment import TreatmentResult
from unvanish.treatment.candidate import Candidate
from unvanish.treatment.catalogue import rate
from unvanish.verify.compare import learnt
from unvanish.verify.experiment import Progress, best_rate
from unvanish.verify.ledger import Ledger
from unvanish.verify.pilots import Pilots
from unvanish.verify.rows import UNTREATED
from unvanish.verify.search_plan import SHORT, SearchPlan
from unvanish.verify.trial import BASELINE, Engine, TrialOutcome, TrialSpec

GRID = (0.3, 3.0)  # beside the script's own rate, for the untreated side: it is to be beaten at its best
LOWER = 0.3  # of the rate of its pilot, for the treated side
WIDE_GRID = (0.1, 0.3, 3.0, 10.0)  # where nothing has helped at the script's own rate
WAVE, WIDEST_WAVE = 3, 6  # pilots at a time: the machine's workers, between these
MOST_PILOTS = 12
MOST_FINALISTS = 4
SHORTEST = 30  # steps of a paired trial: a tenth of them, and no fewer than seven, are what is compared
ROOM = 1.5  # times the steps after which the pilot's loss had fallen
LENGTHENED = 2  # times a trial's length, where the trials were too short to tell
PROMISING, MOST_PROMISING = 3, 2  # get more steps; other rates, and twice as many steps
FIRST_SEEDS = 2  # of a finalist: where it does not learn on these, the others are not run


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
        self._steps = plan.first_steps
        self._pilots = Pilots(candidates=plan.candidates, levels=plan.levels, chance=plan.chance)
        self._book = Ledger(plan=plan, pilots=self._pilots)

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
        return self._book.result()

    # --- the stages -----------------------------------------------------------------------------------------

    def _search(self) -> None:
        queue = self._plan.candidates
        self._pilot([self._spec(UNTREATED)], "first look", 1 + min(len(queue), MOST_PILOTS))
        if self._in_waves(queue, "pilots"):
            return
        for longer, count in ((self._plan.steps, PROMISING), (LENGTHENED * self._plan.steps, MOST_PROMISING)):
            if (
                self._book.holds()
            ):  # on all its seeds something has helped: more steps or rates are not what lacks
                return
            if self._for_longer(longer, count):
                return
            if longer == self._plan.steps and not self._book.holds() and self._at_other_rates():
                return

    def _in_waves(
        self, queue: Sequence[Candidate], stage: str, rates: dict[str, float] | None = None
    ) -> bool:
        """Pilots, some at a time; what has fallen is tested before the next ones are tried."""
        size = max(WAVE, min(self._engine.workers, WIDEST_WAVE))
        start, left = 0, MOST_PILOTS
        while start < len(queue) and left > 0:
            wave = queue[start : start + min(size, left)]
            start += len(wave)
            specs = [self._spec(c, factor=(rates or {}).get(c.name, 1.0)) for c in wave]
            self._pilot(specs, stage, min(len(queue) - start, left - len(wave)) + len(wave))
            # what can't be done to this net has cost next to nothing, and another one takes its place
            left -= sum(any(o.error is None for o in self._pilots.of(c)) for c in wave)
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
        cured = any(
            self._book.judged(c)[0] == "cured" for c in self._pilots.tried if c.name in self._book.tested
        )
        for finalist in self._pilots.fallen:
            if finalist.name in self._book.tested or len(self._book.tested) >= MOST_FINALISTS:
                continue
            self._book.tested.append(finalist.name)
            length = self._length(finalist)
            self._test(finalist, length)
            outcome, _ = self._book.judged(finalist)
            longest = LENGTHENED * self._plan.steps
            if outcome in ("improved", "no_better") and length < longest:  # too short to tell, perhaps
                self._test(finalist, min(max(2 * length, SHORT), longest))
                outcome, _ = self._book.judged(finalist)
            if outcome == "cured":
                cured = True
                if self._book.goes_far(finalist):
                    return True  # else it learns, barely: the others may do better
        return False if cured else self._own_rate_cures()

    def _own_rate_cures(self) -> bool:
        """What was tested is no better than the untreated script at another rate: then that rate is the treatment."""
        enough = self._pilots.rate_that_is_enough if self._book.tested else None
        if enough is None or rate(enough).name in self._book.tested:
            return False
        other = rate(enough)
        self._pilots.as_baseline_rate(other, enough)
        if not any(c.name == other.name for c in self._pilots.fallen):
            return False
        self._book.tested.append(other.name)
        self._test(other, self._length(other))
        return self._book.judged(other)[0] == "cured"

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
        before, self._steps = self._steps, self._plan.first_steps
        some = [UNTREATED, *self._pilots.promising(MOST_PROMISING)]
        self._pilot([self._spec(c, factor=f) for f in WIDE_GRID for c in some], "other rates", 0)
        enough = self._pilots.rate_that_is_enough
        if enough is not None:
            self._pilots.as_baseline_rate(rate(enough), enough)
        self._steps = before
        return self._one_cures()

    def _test(self, finalist: Candidate, steps: int) -> None:
        """Each side at the rate at which it does best on the pilot's seed, on paired seeds that no pilot has seen.

        The finalist's first seeds may show that it does not hold; the rest is then not run.
        """
        seeds, factor = self._plan.seeds, self._treated_rate(finalist, steps)
        first = [self._pair(finalist, seed, factor, steps) for seed in seeds[:FIRST_SEEDS]]
        self._run(first, "paired seeds", 2 * len(seeds), self._book.final)
        own = [o for o in self._book.final if o.spec in first]
        if not all(learnt(o, self._book.chance) for o in own):
            return
        # another rate is a change of the rate alone: it is put beside the script as it is
        best = 1.0 if finalist.treatment == "learning_rate" else self._untreated_rate(steps)
        self._book.rates[finalist.name] = best
        rest = [self._pair(finalist, seed, factor, steps) for seed in seeds[FIRST_SEEDS:]]
        twins = [self._pair(UNTREATED, seed, best, steps) for seed in seeds]
        done = [o.spec for o in self._book.final]
        specs = [s for s in (*rest, *twins) if s not in done]
        self._run(specs, "paired seeds", len(specs), self._book.final)

    def _treated_rate(self, finalist: Candidate, steps: int) -> float:
        """That of its pilot, or a lower one that goes nearly as far: what falls fast may fall over later."""
        own = self._pilots.rate(finalist)
        specs = [
            self._spec(finalist, factor=factor, steps=steps, whole=True) for factor in (own, LOWER * own)
        ]
        self._run(specs, "learning rates", len(specs) + 2 * len(self._plan.seeds), self._book.grid)
        return (
            best_rate([o for o in self._book.grid if o.spec in specs], finalist.name, self._book.chance)
            or own
        )

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
        return best_rate(found, BASELINE, self._book.chance) or 1.0

    # --- inside ---------------------------------------------------------------------------------------------

    def _pilot(self, specs: Sequence[TrialSpec], stage: str, ahead: int) -> None:
        self._run(specs, stage, ahead, self._pilots.outcomes)
        self._pilots.chance = self._book.chance

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
            draw=seed == plan.seeds[0],
            mark=plan.mark,
            model=plan.model,
            by_hand=plan.by_hand,
            loose=plan.loose,
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

    def _length(self, finalist: Candidate) -> int:
        """How long the paired trials are: as long as the pilot needed, with room, where it ended early."""
        if self._plan.fallen_to is None:
            return self._steps
        needed = self._pilots.needed(finalist) or self._steps
        return min(LENGTHENED * self._plan.steps, max(SHORTEST, round(ROOM * needed)))


class _OutOfBudget(Exception):  # noqa: N818 - it is no error
    """The time is over."""
