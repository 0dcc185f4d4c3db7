"""When to look closely: the first steps, then log-spaced, denser after a change, never more than MAX_GAP apart."""

from __future__ import annotations

TRACE_RATIO = 1.4  # each traced step is this much later than the one before
SNAPSHOT_RATIO = 1.1
SNAPSHOT_DENSE = 10  # of the first steps, all
MAX_GAP = 1000
FIRST_PAUSE = (
    32  # steps between two changes that are looked into; it grows with each, for training that jumps all day
)
PAUSE_RATIO = 1.5
BUDGET = 0.012  # of the step time that the always-on tier may take
COPIES_IN_FULL = 8  # of one piece of a model; the other copies are the same numbers, looked at now and then
COPY_PACE = 64
TRACING_RANKS = 64  # of those that work on other samples; more are traced at the first step only
PACE_STEPS = 32  # steps over which its cost is taken


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
        self._pause = float(FIRST_PAUSE)
        self._asked = False

    def ask(self) -> None:
        """A change was seen: the next step is due, and those after it as densely as at the beginning."""
        self._asked = True

    def due(self, step: int) -> bool:
        """Whether `step` is to be looked at. Has no effect: call `done` when it was."""
        if self._every:
            return step % self._every == 0
        return step >= self._next or (self._asked and step >= self._origin + self._pause)

    def done(self, step: int) -> None:
        """Note that `step` was looked at, and plan the next one."""
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

    It compares its own time to the time of a step, so that a step of half a millisecond is not slowed either. The
    first steps are all looked at. What is measured at a step does not depend on it, only which steps are.
    """

    def __init__(self) -> None:
        """Every step at first."""
        self.every = 1
        self.least = 1  # looks are at least so many steps apart
        self._steps = 0
        self._own = 0.0
        self._looks = 0
        self._since: float | None = None

    def due(self, step: int) -> bool:
        """Whether this step is looked at."""
        return step % max(self.every, self.least) == 0

    def spent(self, own: float, now: float, *, looked: bool) -> None:
        """After each step that was not traced: `own` seconds were ours, `now` is the clock."""
        if self._since is None:
            self._since = now
            return
        self._steps += 1
        self._own += own
        self._looks += looked
        if self._steps < max(PACE_STEPS, 4 * self.every):
            return
        share = self._own / max(now - self._since, 1e-9)
        if share > BUDGET and self._looks > 1:
            self.every = min(64, self.every * 2)
        elif share < BUDGET / 3 and self.every > 1:
            self.every //= 2
        self._steps, self._own, self._looks, self._since = 0, 0.0, 0, now
