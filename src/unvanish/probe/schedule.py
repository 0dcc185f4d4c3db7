"""When to look closely: the first steps, then log-spaced, and never more than MAX_GAP steps apart."""

from __future__ import annotations

TRACE_RATIO = 1.4  # each traced step is this much later than the one before
SNAPSHOT_RATIO = 1.1
SNAPSHOT_DENSE = 10  # of the first steps, all
MAX_GAP = 1000


def measure_every(step: int) -> int:
    """How far apart the steps are at which all parameters are measured: every step at first, every 16th later."""
    return min(16, 1 << (step // 32).bit_length())


class Schedule:
    """Says for each step, in rising order, whether it is due. Deterministic: a function of the step alone.

    `every` overrules the log spacing with a fixed distance. `ask()` makes the next step due once, which the
    always-on tier uses when it sees a change.
    """

    def __init__(self, *, ratio: float, every: int | None = None, dense: int = 3) -> None:
        """`dense` is how many of the first steps are all due."""
        self._ratio = ratio
        self._every = every
        self._dense = dense
        self._next = 0
        self._asked = False

    def ask(self) -> None:
        """Make the next step due, whatever the spacing says."""
        self._asked = True

    def due(self, step: int) -> bool:
        """Whether `step` is to be looked at. Has no effect: call `done` when it was."""
        if self._asked:
            return True
        return step % self._every == 0 if self._every else step >= self._next

    def done(self, step: int) -> None:
        """Note that `step` was looked at, and plan the next one."""
        self._asked = False
        if step < self._dense:
            self._next = step + 1
        else:
            self._next = min(max(step + 1, round(step * self._ratio)), step + MAX_GAP)
