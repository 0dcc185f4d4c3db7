"""A child process that trains: it records below its parent's run, and says nothing."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

from unvanish.launch.children import Told, await_training
from unvanish.probe.engine import StopTraining
from unvanish.probe.incidents import words
from unvanish.probe.trigger import Trigger
from unvanish.schema.run import RunStatus
from unvanish.session import Role, Session
from unvanish.store.children import ChildPlace, Place, leave_word
from unvanish.store.meeting import Meeting, RankPlace


def watch_child(told: Told, trigger: Trigger) -> None:
    """Watch all that this process trains, to its end. Its folder is made at its first optimizer step.

    Where that can't be, the process trains on, and the run's first process is told.
    """
    place = _Place(_place(told))
    try:
        session = Session(
            out=Path(told.out),
            command=tuple(sys.orig_argv),
            script=sys.argv[0] if sys.argv else None,
            seed=told.seed,
            every=told.every,
            exact=told.exact,
            stop_after=told.steps,
            tell=lambda _: None,  # the first process of the run does the telling
            role=Role(place=place, in_fork=lambda: await_training(told)),
        )
        place.ending = _Ending(session)
        place.ending.register()
        session.start(trigger=trigger)
    except Exception as error:
        if told.folder is not None:
            leave_word(Path(told.folder), f"process {os.getpid()} could not be watched: {words(error)}")
        raise


def _place(told: Told) -> Place:
    if told.folder is not None:
        return ChildPlace(Path(told.folder))
    if told.launch is None:
        raise ValueError("neither a folder nor a launch was told")
    return RankPlace(Meeting(Path(told.out), told.launch))


class _Ending:
    """Closes the record when the process ends, in whichever way python lets it notice."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pid = os.getpid()

    def register(self) -> None:
        """A process of multiprocessing may end by os._exit, past atexit: it keeps a list of its own.

        It empties that when the process's own function begins, which may be later than this.
        """
        atexit.unregister(self.close)
        atexit.register(self.close)
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.Finalize(None, self.close, exitpriority=0)

    def close(self) -> None:
        """Once; not in a process that was forked from this one."""
        if os.getpid() == self._pid:
            self._session.end(*_how_it_ends())


class _Place:
    """The place, asked for when the first step is made: by then multiprocessing has emptied its list."""

    def __init__(self, place: Place) -> None:
        self.ending: _Ending | None = None
        self._place = place

    @property
    def run(self) -> Path | None:
        return self._place.run

    @property
    def said(self) -> str | None:
        return self._place.said

    def find(self, name: str, *, last: bool) -> Path | None:
        if self.ending is not None and not last:
            self.ending.register()
        return self._place.find(name, last=last)

    def end(self) -> None:
        self._place.end()


def _how_it_ends() -> tuple[RunStatus, str | None]:
    """What is being raised (multiprocessing), or was shown (a script): as far as a process knows of itself."""
    error = sys.exc_info()[1] or getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return ("stopped" if isinstance(error, StopTraining) else "finished"), None
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "KeyboardInterrupt"
    if isinstance(error, SystemExit):
        return "crashed", f"exit code {error.code}"
    return "crashed", f"{type(error).__name__}: {error}"
