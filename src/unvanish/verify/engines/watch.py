"""One trial process, watched to its end: by the clock, by its memory, and for what it prints."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from unvanish.verify.engines import machine
from unvanish.verify.engines.trial_process import Begun, Done, Unfit
from unvanish.verify.trial import TrialOutcome, TrialSpec

START_SECONDS = 120.0  # to import torch on a slow disk
_TAIL_BYTES = 4096  # of what a trial prints is kept
_TICK = 0.1  # seconds between two looks at a trial's memory
_TREE_TICKS = 10  # between two looks at what else it started: that reads all of /proc


class Dropped(Exception):  # noqa: N818  # no error: the engine wants no outcome any more
    """The engine has let go of the trial."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """A trial process that runs. `output` is what it and its children print to; `memory_bytes` its limit."""

    spec: TrialSpec
    process: int
    link: Connection[Any, Any]
    output: int
    memory_bytes: int
    since: float = field(default_factory=time.monotonic)
    limit: float = START_SECONDS
    status: int | None = None  # as waitpid gives it, once it has ended
    tail: bytearray = field(default_factory=bytearray)
    ticks: int = 0
    tree: list[int] = field(default_factory=list)
    open: set[Any] = field(default_factory=set)  # of link and output, those that may still say something

    def to_the_end(self, engine: Connection[Any, Any]) -> Done | Unfit | TrialOutcome:
        """What the trial says, or a failed outcome that says why it says nothing. Nothing of it runs afterwards.

        Raises:
            Dropped: the engine sent None.
            EOFError: the engine is gone.
        """
        self.open = {self.link, self.output}
        os.set_blocking(self.output, False)
        try:
            answer = self._listen(engine)
        finally:
            machine.end_below(self.process)
        if isinstance(answer, str):
            self._drain()  # what it said last
            said = last_words(bytes(self.tail))
            why = f"{answer} ({said})" if said else answer
            return TrialOutcome(spec=self.spec, error=why, wall_seconds=self._seconds)
        return answer

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.since

    def _listen(self, engine: Connection[Any, Any]) -> Done | Unfit | str:
        while True:
            for ready in wait([engine, *self.open], timeout=max(0.0, min(_TICK, self.limit - self._seconds))):
                if ready is engine:
                    engine.recv()
                    raise Dropped
                if ready == self.output:
                    self._drain()
                    continue
                message = self._hear()
                if message is not None:
                    return message
            trouble = self._over_time() or self._ended() or self._over_memory()
            if trouble:
                return trouble

    def _hear(self) -> Done | Unfit | str | None:
        try:
            message = self.link.recv()
        except (EOFError, OSError):  # it ended, or a script closed all that is open: see whether it goes on
            self.open.discard(self.link)
            return None
        except Exception as error:  # noqa: BLE001  # an outcome that can't be unpickled here
            return f"the outcome can't be read: {error}"
        if isinstance(message, Begun):
            self.since, self.limit = time.monotonic(), self.spec.seconds
            return None
        return message if isinstance(message, Done | Unfit) else "the process sent nonsense"

    def _over_time(self) -> str | None:
        if self._seconds <= self.limit:
            return None
        return f"took longer than {self.limit:g} s and was ended"

    def _ended(self) -> str | None:
        if self.status is None:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if not ended:
                return None
            self.status = status
        if self.link in self.open and self.link.poll():
            return None  # it said something before it ended
        return death(os.waitstatus_to_exitcode(self.status))

    def _over_memory(self) -> str | None:
        """Quick looks first; the exact one, which costs more, only where they come near the limit."""
        if not machine.HAS_PROC:
            return None
        if self.ticks % _TREE_TICKS == 0:
            self.tree = [self.process, *machine.descendants(self.process)]
        self.ticks += 1
        limit = self.memory_bytes
        if machine.resident_bytes(self.tree) <= limit or machine.held_bytes(self.tree) <= limit:
            return None
        return f"held more than {machine.size_words(limit)} of memory and was ended"

    def _drain(self) -> None:
        """Take what was printed: a script that prints a lot neither waits for us nor fills a disk."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.output, 1 << 16):
                self.tail += piece
                del self.tail[:-_TAIL_BYTES]
                if len(piece) < 1 << 16:
                    return
            self.open.discard(self.output)  # nobody is left who could print


def death(code: int) -> str:
    """What an exit code says, as `subprocess` gives it: below zero a signal."""
    if code >= 0:
        return f"the process ended by itself with code {code}"
    name = signal.Signals(-code).name if -code in {int(s) for s in signal.Signals} else "unknown"
    hint = ": often the system's doing, when memory runs out" if -code == signal.SIGKILL else ""
    return f"the process was killed by signal {-code}, {name}{hint}"


def last_words(printed: bytes) -> str:
    """The last line that is not empty, cut to 200 characters ("" = none)."""
    lines = printed.decode("utf-8", "replace").splitlines()
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
