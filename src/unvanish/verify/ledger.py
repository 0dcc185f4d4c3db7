"""What a search has seen so far, and what may be said of it at any moment."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from unvanish.schema.treatment import Outcome, TreatmentResult, TrialResult, Untried
from unvanish.treatment.candidate import Candidate
from unvanish.verify.compare import Sample, baseline_words, judge
from unvanish.verify.experiment import choose
from unvanish.verify.pilots import Pilots
from unvanish.verify.rows import UNTREATED, trial_row
from unvanish.verify.search_plan import SearchPlan
from unvanish.verify.small_samples import mean
from unvanish.verify.trial import BASELINE, TrialOutcome

FAR = 0.75  # of the chance loss


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The trials of one search."""

    plan: SearchPlan
    pilots: Pilots
    start: float = field(default_factory=time.monotonic)
    final: list[TrialOutcome] = field(default_factory=list)  # of the paired tests
    grid: list[TrialOutcome] = field(default_factory=list)  # of finalists, whole, on the pilots' seed
    tested: list[str] = field(default_factory=list)  # names of the finalists
    rates: dict[str, float] = field(
        default_factory=dict
    )  # by finalist: of the untreated twins, over the script's
    count: int = 0  # trials
    steps: int = 0  # of all of them
    stopped: str | None = None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.start

    @property
    def chance(self) -> float | None:
        """The best constant guess's loss: as given, else as the trials measured it."""
        if self.plan.chance is not None:
            return self.plan.chance
        known = [o.chance for o in (*self.pilots.outcomes, *self.final) if o.chance is not None]
        return mean(known) if known else None

    def _sample(self, side: Candidate) -> Sample:
        some = [o for o in self.final if o.spec.candidate == side.name]
        if some:
            last = some[-1].spec.steps  # of one length only
            some = sorted((o for o in some if o.spec.steps == last), key=lambda o: o.spec.seed)
        longest = max(self.pilots.of(side), key=lambda o: o.spec.steps, default=None)
        pilot = [] if longest is None else [longest]
        return Sample(outcomes=tuple(some or pilot), chance=self.chance)

    def _paired(self, side: Candidate) -> Sample:
        """The untreated trials of the same length as the side's own, at the rate that it was put beside."""
        own = self._sample(side)
        length = own.outcomes[0].spec.steps if own.outcomes else 0
        factor = self.rates.get(side.name)
        some = [
            o
            for o in self.final
            if o.spec.candidate == BASELINE
            and o.spec.steps == length
            and factor in (None, o.spec.learning_rate_factor)
        ]
        return Sample(outcomes=tuple(some), chance=self.chance) if some else self._sample(UNTREATED)

    def judged(self, side: Candidate) -> tuple[Outcome, str]:
        """What may be said of it by now, and why."""
        claims = side.claims_flow and self.plan.claims_flow
        return judge(self._sample(side), self._paired(side), ill=True, claims_flow=claims)

    def holds(self) -> bool:
        """Whether any finalist has learnt on every seed that it was tested on."""
        return any(
            self._sample(c).stuck == 0
            for c in self.pilots.tried
            if any(o.spec.candidate == c.name for o in self.final)
        )

    def goes_far(self, side: Candidate) -> bool:
        """Whether it gets well below what guessing gives, and not just below it; where that is not known, it does."""
        last = self._sample(side).last
        return self.chance is None or self.chance <= 0 or not last or mean(last) < FAR * self.chance

    def result(self) -> TreatmentResult:
        """All of it, and what is to be chosen."""
        tested = [c for c in self.pilots.tried if any(o.spec.candidate == c.name for o in self.final)]
        rows = [self._row(c) for c in self.pilots.tried]
        cured = [c for c, row in zip(self.pilots.tried, rows, strict=True) if row.outcome == "cured"]
        chosen = choose([c for c in cured if self.goes_far(c)] or cured, rows, allow_unsafe=True)
        shown = next((c for c in tested if c.name == chosen), tested[-1] if tested else UNTREATED)
        untreated = self._paired(shown) if tested else self._sample(UNTREATED)
        baseline = replace(
            trial_row(UNTREATED, untreated, self.plan.steps),
            outcome="no_better",
            why=baseline_words(untreated),
        )
        left = [c for c in self.plan.candidates if c not in self.pilots.tried]
        later = tuple(Untried(name=c.name, title=c.title, why=self._why_not()) for c in left)
        return TreatmentResult(
            baseline=baseline,
            trials=tuple(rows),
            chosen=chosen,
            recipe=None,
            diff=None,
            wall_seconds=self.seconds,
            chance=self.chance,
            stopped=self.stopped,
            untried=(*self.plan.untried, *later),
            notes=self.plan.notes,
            steps=self.steps,
        )

    def _row(self, side: Candidate) -> TrialResult:
        outcome, why = self.judged(side)
        if self.stopped is not None:
            why = f"{self.stopped}; {why}"
        return replace(trial_row(side, self._sample(side), self.plan.steps), outcome=outcome, why=why)

    def _why_not(self) -> str:
        return self.stopped or "one that comes before it in the order of the diagnosis did it"
