"""One trial: what to run, and what came of it. Both travel between processes: plain values only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from unvanish.schema.treatment import Prescription

BASELINE = "baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The training script that every trial runs, untouched: `python program *arguments` in `directory`.

    `program` is a path, or with `is_module` a module's name (`python -m`).
    """

    program: str
    arguments: tuple[str, ...] = ()
    directory: str = "."
    is_module: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """What one trial runs: a candidate (or the baseline, without prescriptions), a seed, a rate, a length.

    Trials of the same seed see the same data in the same order and start from the same weights, treated or
    not. `trace` asks for the measured gain (one traced backward pass at step 0).
    """

    candidate: str
    prescriptions: tuple[Prescription, ...]
    target: Target
    seed: int
    learning_rate_factor: float = 1.0
    steps: int = 250
    seconds: float = 120.0  # a trial that takes longer is ended and counts as failed
    trace: bool = False
    memory_bytes: int | None = None  # all processes of the trial together; None: the engine's own limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """What one trial came to.

    `losses[i]` is the training loss of step i, before that step's update: of a batch not trained on in this
    epoch. Gains per layer are squared-norm gains at step 0, as in TrialResult; `depth` counts the weighted
    layers of the treated net. `chance` is the best constant guess's loss. `error` is one plain sentence
    (None = it ran).
    """

    spec: TrialSpec
    losses: tuple[float, ...] = ()
    measured_gain: float | None = None
    predicted_gain: float | None = None
    depth: int | None = None
    learning_rate: float | None = None
    chance: float | None = None
    error: str | None = None
    wall_seconds: float = 0.0

    @property
    def diverged(self) -> bool:
        """Whether the loss became NaN or infinite, or ended far above where it began."""
        if not self.losses:
            return False
        if not all(math.isfinite(x) for x in self.losses):
            return True
        return self.last > DIVERGED * max(self.first, 1e-12)

    @property
    def first(self) -> float:
        """Mean loss of the first steps (a tenth of them, at most five: it falls quickly)."""
        return _mean(self.losses[: min(5, tail_length(len(self.losses)))])

    @property
    def tail(self) -> tuple[float, ...]:
        """The losses of the last tenth of the steps."""
        return self.losses[-tail_length(len(self.losses)) :] if self.losses else ()

    @property
    def last(self) -> float:
        """Mean loss of the last tenth of the steps; NaN where nothing ran."""
        return _mean(self.tail)

    @property
    def noise(self) -> float:
        """Standard error of `last` from batch to batch."""
        tail = self.tail
        if len(tail) < 2:
            return math.inf
        mean = _mean(tail)
        return math.sqrt(sum((x - mean) ** 2 for x in tail) / (len(tail) - 1) / len(tail))


DIVERGED = 3.0  # times its first loss


def tail_length(steps: int) -> int:
    """How many of the last steps the last loss is averaged over: a tenth, at least one."""
    return max(1, steps // 10)


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


class Engine(Protocol):
    """Runs trials somewhere. Outcomes come as they are ready; a failed trial is an outcome with an error."""

    @property
    def workers(self) -> int:
        """How many trials run at the same time."""
        ...

    def run(self, specs: Iterable[TrialSpec]) -> Iterator[TrialOutcome]:
        """Run all; leaving the iterator early cancels what is left."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...
