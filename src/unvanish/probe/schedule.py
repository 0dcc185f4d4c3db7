"""When to look closely: the first steps, then log-spaced, denser after a change, never more than MAX_GAP apart."""

from __future__ import annotations

import math

TRACE_RATIO = 1.4  # each traced step is this much later than the one before
SNAPSHOT_RATIO = 1.1
SNAPSHOT_DENSE = 10  # of the first steps, all
MAX_GAP = 1000
FIRST_PAUSE = (
    32  # steps between two changes that are looked into; it grows with each: some trainings jump all day
)
PAUSE_RATIO = 1.5
LEAN_BELOW = (
    10  # steps between two traces: where they are denser, those that the log-spaced plan has not are lean
)
BUDGET = 0.008  # of the step time that looks at parameters may take
FIRST_LOOKS = 8  # steps that are all looked at, whatever that costs
PACE_STEPS = 32  # steps over which the cost is taken from then on
MOST_APART = 64


class Schedule:
    """Says for each step, in rising order, whether it is due.

    Dense at first, then log-spaced. `every` overrules that with a fixed distance. `ask()` begins anew at the next
    step: the always-on tier saw a change.
    """

    def __init__(self, *, ratio: float, every: int | None = None, dense: int = 3) -> None:
        """`dense` is how many of the first steps are all due."""
        self._ratio = ratio
        self._every = every
        self._dense = dense
        self._origin = 0
        self._next = 0
        self._rich = Schedule(ratio=ratio, dense=dense) if every and every < LEAN_BELOW else None
        self._pause = float(FIRST_PAUSE)
        self._asked = False

    def ask(self) -> None:
        """A change was seen: the next step is due, and those after it as densely as at the beginning."""
        self._asked = True
        if self._rich is not None:
            self._rich.ask()

    def full(self, step: int) -> bool:
        """Whether all is to be measured at `step`; else, where `every` makes traces dense, the signal alone."""
        return self._rich is None or self._rich.due(step)

    def due(self, step: int) -> bool:
        """Whether `step` is to be looked at. Has no effect: call `done` when it was."""
        if self._every:
            return step % self._every == 0
        return step >= self._next or (self._asked and step >= self._origin + self._pause)

    def done(self, step: int) -> None:
        """Note that `step` was looked at, and plan the next one."""
        if self._rich is not None and self._rich.due(step):
            self._rich.done(step)
        if self._asked and step >= self._origin + self._pause:
            self._asked = False
            self._origin = step
            self._pause *= PAUSE_RATIO
        since = step - self._origin
        if since < self._dense:
            self._next = step + 1
        else:
            self._next = self._origin + min(max(since + 1, round(since * self._ratio)), since + MAX_GAP)


class Pace:
    """How often the always-on tier looks: at every step where that costs next to nothing, else less often.

    It compares the time that looks take to the time of a step, so that a step of half a millisecond is not slowed
    either. What is measured at a step does not depend on it, only which steps are.
    """

    def __init__(self) -> None:
        """Every step at first."""
        self.every = 1
        self._idle = 0.0  # seconds that a step takes us without a look
        self._window = FIRST_LOOKS
        self._steps = 0
        self._own = 0.0
        self._looks = 0
        self._since: float | None = None

    def due(self, step: int) -> bool:
        """Whether this step is looked at."""
        return step < FIRST_LOOKS or step % self.every == 0

    def spent(self, own: float, now: float, *, looked: bool) -> None:
        """After each step that was not traced: `own` seconds were ours, `now` is the clock."""
        if self._since is None:
            self._since = now
            return
        self._steps += 1
        self._looks += looked
        self._own += own
        if not looked:
            self._idle += (own - self._idle) / 8
        if self._steps < self._window:
            return
        looks = max(0.0, self._own - self._steps * self._idle)
        share = looks / max(now - self._since, 1e-9)
        if share > BUDGET and self._looks:
            self.every = min(MOST_APART, max(self.every + 1, math.ceil(self.every * share / BUDGET)))
        elif share < BUDGET / 3 and self.every > 1:
            self.every //= 2
        self._window = max(PACE_STEPS, 4 * self.every)
        self._steps, self._own, self._looks, self._since = 0, 0.0, 0, now
