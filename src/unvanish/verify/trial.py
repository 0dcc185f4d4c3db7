"""One trial: what to run, and what came of it. Both travel between processes: plain values only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from unvanish.schema.treatment import Prescription, TrialMap

BASELINE = "baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The training script that every trial runs, untouched: `python program *arguments` in `directory`.

    `program` is a path, with `is_module` a module's name (`python -m`), or FILE.py:FACTORY.
    """

    program: str
    arguments: tuple[str, ...] = ()
    directory: str = "."
    is_module: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """What one trial runs: a candidate (or the baseline, without prescriptions), a seed, a rate, a length.

    Trials of the same seed see the same data in the same order and start from the same weights, treated or
    not. `trace` asks for the measured gain (one traced backward pass at step 0), `draw` for the map of the signal as
    well (more of them, further and further apart). `mark` is the fingerprint of the
    model that is to be treated (None: the first that is trained), `model` its name in the script. With `fallen_to` a
    trial ends as soon as its loss is clearly below that. `by_hand`: the script updates the weights without an
    optimizer; the model is treated at its first training forward, its gradients are multiplied in place of a rate.
    `loose`: its weights are tensors that no module holds, which are treated when an optimizer is built of them.
    """

    candidate: str
    prescriptions: tuple[Prescription, ...]
    target: Target
    seed: int
    learning_rate_factor: float = 1.0
    steps: int = 250
    seconds: float = 120.0  # a trial that takes longer is ended and counts as failed
    trace: bool = False
    draw: bool = False
    mark: str | None = None
    model: str | None = None
    fallen_to: float | None = None
    by_hand: bool = False
    loose: bool = False
    memory_bytes: int | None = None  # all processes of the trial together; None: the engine's own limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """What one trial came to.

    `losses[i]` is the training loss of step i, before that step's update: of a batch not trained on in this
    epoch. Gains per layer are squared-norm gains at step 0, as in TrialResult; `depth` counts the weighted
    layers of the treated net. `chance` is the best constant guess's loss. `held_out` are (steps made, loss) pairs of
    what the script itself worked out without training on it. `error` is one plain sentence (None = it ran).
    """

    spec: TrialSpec
    losses: tuple[float, ...] = ()
    measured_gain: float | None = None
    predicted_gain: float | None = None
    depth: int | None = None
    learning_rate: float | None = None
    chance: float | None = None
    held_out: tuple[tuple[int, float], ...] = ()
    signal: TrialMap | None = None
    error: str | None = None
    wall_seconds: float = 0.0

    @property
    def diverged(self) -> bool:
        """Whether the loss became NaN or infinite, or ended far above where it began."""
        return diverged(self.losses)

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


def diverged(losses: Sequence[float]) -> bool:
    """Whether the loss became NaN or infinite, or ended far above where it began."""
    if not losses:
        return False
    if not all(math.isfinite(x) for x in losses):
        return True
    length = tail_length(len(losses))
    return _mean(losses[-length:]) > DIVERGED * max(_mean(losses[: min(5, length)]), 1e-12)


LAST = 10  # losses that a fall is judged by


def fallen_below(losses: Sequence[float], level: float) -> bool:
    """Whether the last losses are all but surely below: their mean, two standard errors above it, is."""
    last = losses[-LAST:]
    if len(last) < LAST or not all(map(math.isfinite, last)):
        return False
    mean = _mean(last)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in last) / (len(last) - 1) / len(last))
    return mean + 2 * spread < level


def tail_length(steps: int) -> int:
    """How many of the last steps the last loss is averaged over: a tenth, of short trials a quarter up to ten."""
    return max(1, steps // 10, min(LAST, steps // 4))


def _mean(values: Sequence[float]) -> float:
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
