"""Faults of ours: the first of each kind is kept, the others are counted, and the user is told once."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable

import torch

from unvanish.schema.run import DROPPED, Event, Incident, Skipped

MOST_KINDS = 20  # that are kept; more are counted together


class Incidents:
    """What went wrong, and what was given up, of one run. Called from any thread; never raises."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell` shows the user one line. It is called at the first fault, and then no more."""
        self._tell = tell
        self._told = False
        self._lock = threading.RLock()
        self._fresh: deque[Event] = deque()  # to be written
        self._again: Counter[tuple[str, str]] = Counter()  # by place and kind, those after the first
        self._last: dict[tuple[str, str], int] = {}
        self._known: set[tuple[str, str]] = set()
        self._dropped: Counter[str] = Counter()
        self.step = 0  # the clock, set by the engine

    @property
    def dropped(self) -> int:
        """How many events were given up."""
        return self._dropped.total()

    def drop(self, what: str, count: int = 1) -> None:
        """Count what was given up because the record could not keep up; `what` in the plural."""
        if count:
            with self._lock:
                self._dropped[what] += count

    def fault(self, where: str, error: BaseException, step: int | None = None) -> None:
        """Keep a fault."""
        with contextlib.suppress(
            Exception
        ):  # at the end of the stack or of memory there is nothing left to say it
            self._fault(where, error, self.step if step is None else step)

    def _fault(self, where: str, error: BaseException, step: int) -> None:
        what = words(error)
        kind = (where, type(error).__name__)
        with self._lock:
            if kind in self._known or len(self._known) >= MOST_KINDS:
                kind = kind if kind in self._known else ("other places", "faults of several kinds")
                self._again[kind] += 1
                self._last[kind] = step
                return
            self._known.add(kind)
            self._fresh.append(Incident(step=step, where=where, what=what))
            told, self._told = self._told, True
        if not told:
            self._tell(
                f"a fault inside unvanish at step {step} ({where}: {what}); training goes on untouched, "
                "the diagnosis says what was not measured"
            )

    def take(self) -> list[Event]:
        """What is to be written now."""
        with self._lock:
            fresh, self._fresh = list(self._fresh), deque()
        return fresh

    def farewell(self) -> list[Event]:
        """At the end: how often each fault came again, and what was given up."""
        with self._lock:
            again, self._again = self._again, Counter()
            lost = ", ".join(f"{count:,} {what}" for what, count in self._dropped.items())
        events: list[Event] = [
            Incident(step=self._last[kind], where=kind[0], what=f"{kind[1]}: {_times(count)}, the last here")
            for kind, count in again.items()
        ]
        if lost:
            why = f"the record could not keep up (a slow or a full disk): {lost} are missing"
            events.append(Skipped(model=None, what=DROPPED, why=why))
        return events


def words(error: BaseException) -> str:
    """An error on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, on a device or in the process."""
    kind = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
    return isinstance(error, kind | MemoryError) or "not enough memory" in str(error)


def _times(count: int) -> str:
    return "once more" if count == 1 else f"{count:,} times more"
