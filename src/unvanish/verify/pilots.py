"""What the pilots say: which have clearly fallen, after how many steps, at which rate; which are worth more steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from unvanish.treatment.candidate import Candidate
from unvanish.verify.compare import learnt
from unvanish.verify.experiment import best_rate
from unvanish.verify.rows import UNTREATED
from unvanish.verify.trial import BASELINE, TrialOutcome, fallen_below

ALIKE = 0.02  # of the losses' scale: pilots that end so close to each other are equally promising
ON_ITS_WAY = 0.4  # of the way from what the untreated script does to what it never reaches
QUICK = 20  # steps: falls that differ by less are equally quick


@dataclass(slots=True, kw_only=True)
class Pilots:
    """The outcomes so far. `level` gives a loss that the untreated script does not reach in so many steps.

    None: that can't be told beforehand (it falls ill on the way), so that its own pilot is the bar.
    """

    candidates: tuple[Candidate, ...]
    levels: tuple[tuple[int, float], ...]  # (up to so many steps, the level), in order
    chance: float | None = None
    outcomes: list[TrialOutcome] = field(default_factory=list)
    extra: list[Candidate] = field(default_factory=list)  # that the trials themselves have suggested

    def level(self, steps: int) -> float | None:
        """The loss that the untreated script does not reach in a trial of this length."""
        return next((level for most, level in self.levels if steps <= most), None)

    def of(self, side: Candidate, factor: float | None = None) -> list[TrialOutcome]:
        """All of one side, at one rate or at any."""
        return [
            o
            for o in self.outcomes
            if o.spec.candidate == side.name and factor in (None, o.spec.learning_rate_factor)
        ]

    def has_fallen(self, outcome: TrialOutcome) -> bool:
        """Whether it learns, and better than the untreated script does."""
        if outcome.error is not None or not learnt(outcome, self.chance):
            return False
        level = self.level(outcome.spec.steps)
        if level is None:
            untreated = [o for o in self.of(UNTREATED, 1.0) if o.losses and not o.diverged]
            bars = [b for b in (self.chance, *(o.last for o in untreated)) if b is not None]
            level = min(filter(math.isfinite, bars), default=outcome.first)
        return fallen_below(outcome.losses, level)

    def coming(self, side: Candidate) -> bool:
        """Whether it has not fallen yet and is clearly on its way: most likely it lacks a few steps."""
        return any(self._on_its_way(o) for o in self.of(side, 1.0)) and self.needed(side) is None

    def _on_its_way(self, outcome: TrialOutcome) -> bool:
        level = self.level(outcome.spec.steps)
        untreated = [o.last for o in self.of(UNTREATED, 1.0) if o.losses and not o.diverged]
        start = min((b for b in (self.chance, *untreated) if b is not None), default=None)
        if level is None or start is None or outcome.error is not None or outcome.diverged:
            return False
        return fallen_below(outcome.losses, start - ON_ITS_WAY * (start - level))

    @property
    def known(self) -> tuple[Candidate, ...]:
        """The candidates, those that the trials have suggested first."""
        return (*self.extra, *self.candidates)

    @property
    def tried(self) -> list[Candidate]:
        """Those of which there is any trial."""
        return [c for c in self.known if self.of(c)]

    @property
    def fallen(self) -> list[Candidate]:
        """Whose pilots have fallen, the quickest first; among equals in the order of the diagnosis."""
        some = [c for c in self.known if any(self.has_fallen(o) for o in self.of(c))]
        return sorted(some, key=lambda c: (self.needed(c) or 0) // QUICK)

    def needed(self, side: Candidate) -> int | None:
        """After how many steps a pilot's loss had fallen; None if none has."""
        return min((len(o.losses) for o in self.of(side) if self.has_fallen(o)), default=None)

    def rate(self, side: Candidate) -> float:
        """Where it falls, the script's own first; else where it learns; else the script's own."""
        some = [o for o in self.of(side) if self.has_fallen(o)]
        if any(o.spec.learning_rate_factor == 1.0 for o in some):
            return 1.0
        if not some:
            longest = max((o.spec.steps for o in self.of(side)), default=0)
            some = [o for o in self.of(side) if o.spec.steps == longest and learnt(o, self.chance)]
        return best_rate(some, side.name, self.chance) or 1.0

    def promising(self, count: int, but: Iterable[str] = ()) -> list[Candidate]:
        """Those that ran and came down the farthest, and what the diagnosis names first, which may need its time.

        The order of the diagnosis decides between equals.
        """
        some = [
            c
            for c in self.candidates
            if c.name not in but and any(o.error is None and o.losses for o in self.of(c))
        ]
        ends = {c.name: self._lowest(self.of(c)) for c in some}
        # what has run away says nothing of how close to each other the rest is
        usual = sorted(abs(v) for v in ends.values() if math.isfinite(v))
        scale = abs(self.chance or 0.0) or (usual[len(usual) // 2] if usual else 1.0) or 1.0
        order = sorted(
            some,
            key=lambda c: round(ends[c.name] / (ALIKE * scale)) if math.isfinite(ends[c.name]) else math.inf,
        )
        chosen = order[:count]
        named = next((c for c in some if math.isfinite(ends[c.name])), None)
        if named is not None and named not in chosen:
            chosen = [*chosen[: count - 1], named]
        return chosen

    @staticmethod
    def _lowest(outcomes: Sequence[TrialOutcome]) -> float:
        return min((o.last for o in outcomes if o.losses and not o.diverged), default=math.inf)

    def prefix(self, side: Candidate, factor: float, seed: int, steps: int) -> TrialOutcome | None:
        """A trial of so many steps, where a longer one was run: its beginning is the same trial."""
        for o in self.of(side, factor):
            whole = len(o.losses) >= steps or (o.error is None and o.diverged and o.spec.steps >= steps)
            if o.spec.seed == seed and o.error is None and whole:
                spec = replace(o.spec, steps=steps, fallen_to=None)
                held = tuple(pair for pair in o.held_out if pair[0] <= steps)
                return replace(o, spec=spec, losses=o.losses[:steps], held_out=held)
        return None

    def as_baseline_rate(self, made: Candidate, factor: float) -> None:
        """Untreated pilots at another rate are pilots of the treatment that sets this rate."""
        own = [o for o in self.of(UNTREATED, factor) if self.has_fallen(o)]
        if own and made.name not in {c.name for c in self.known}:
            self.extra.append(made)
        mine = {"candidate": made.name, "prescriptions": made.prescriptions, "learning_rate_factor": 1.0}
        self.outcomes += [replace(o, spec=replace(o.spec, **mine)) for o in own]  # type: ignore[arg-type]

    @property
    def rate_that_is_enough(self) -> float | None:
        """Where the untreated script learns at another rate than its own: that rate."""
        some = [o for o in self.of(UNTREATED) if o.spec.candidate == BASELINE]
        found = best_rate(some, BASELINE, self.chance)
        own = [o for o in self.of(UNTREATED, found) if self.has_fallen(o)]
        return found if own and found not in (None, 1.0) else None
