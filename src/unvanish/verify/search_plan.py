"""What a search is to try, and how long its trials are."""

from __future__ import annotations

from dataclasses import dataclass

from unvanish.schema.treatment import Untried
from unvanish.treatment.candidate import Candidate
from unvanish.verify.trial import Target

SEEDS = (1, 2, 3, 4, 5)
PILOT_SEED = 0  # not one of those that are compared
SHORT = 40  # steps of the first pilots


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What to look for a cure in. `candidates`: in the order in which they are to be tried.

    `steps`: of a trial, at most. `fallen_to`: a training loss that the untreated script does not reach in these
    steps; None where that can't be told beforehand (it falls ill on the way): then no pilot ends early, and none is
    shorter. `fallen_early`: the same for the first, short pilots (None: as `fallen_to`). `mark`,
    `model`: which model is meant, `by_hand` and `loose` how it is trained, as in TrialSpec. `claims_flow`: what is
    wrong shows in the gain per layer at the start, so that a cure has to move it. `untried`: what was ruled out
    already, and why. `notes`: for the result.
    """

    candidates: tuple[Candidate, ...]
    target: Target
    steps: int
    fallen_to: float | None = None
    fallen_early: float | None = None
    mark: str | None = None
    model: str | None = None
    by_hand: bool = False
    loose: bool = False
    claims_flow: bool = True
    chance: float | None = None
    seeds: tuple[int, ...] = SEEDS
    pilot_seed: int = PILOT_SEED
    trial_seconds: float = 120.0
    untried: tuple[Untried, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def first_steps(self) -> int:
        """How long the first pilots are."""
        return self.steps if self.fallen_to is None else min(SHORT, self.steps)

    @property
    def levels(self) -> tuple[tuple[int, float], ...]:
        """(in up to so many steps, a loss that the untreated script does not reach), in order."""
        if self.fallen_to is None:
            return ()
        early = self.fallen_to if self.fallen_early is None else self.fallen_early
        return (SHORT, early), (10**9, self.fallen_to)
