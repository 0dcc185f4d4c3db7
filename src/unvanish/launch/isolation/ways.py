"""Running a script without harm: by the kernel where it lets us, else by leading python's own functions."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from unvanish.errors import ScriptError, UnvanishError, UsageError
from unvanish.launch.isolation.mounts import mount_overlays
from unvanish.launch.isolation.redirect import Redirect, end_all
from unvanish.launch.isolation.scratch import scratch_folder
from unvanish.launch.isolation.view import View
from unvanish.launch.isolation.zones import zones_for

WAYS = ("mounts", "python")
ASKED = "UNVANISH_ISOLATION"  # in the environment: one of the ways, or none
_TICK = 0.1  # seconds
_PATIENCE = 0.5  # seconds until a Ctrl-C that only we have heard is handed on

T = TypeVar("T")


def isolate(scratch: Path, folders: Iterable[str | Path]) -> str:
    """From here on, and for good, what this process writes in the user's folders goes to `scratch`. Gives the way.

    `folders` are the script's own: they are protected wherever they are; temporary folders else are not.

    Raises:
        UsageError: the way that the environment asks for is not open here, or is none.
    """
    asked = os.environ.get(ASKED, "").strip()
    if asked == "none" or os.name != "posix":
        return "none"
    if asked and asked not in WAYS:
        raise UsageError(
            f"{ASKED}={asked[:40]} is no way to isolate", f"choose from {', '.join((*WAYS, 'none'))}"
        )
    zones = zones_for(folders, scratch)
    if asked in ("", "mounts"):
        try:
            mount_overlays(zones, scratch)
        except OSError as error:
            if asked:
                raise UsageError(
                    f"this system does not let a trial have a file system of its own: {error}",
                    f"leave out {ASKED}",
                ) from None
        else:
            return "mounts"
    Redirect(View(zones, scratch)).begin()
    return "python"


@contextlib.contextmanager
def isolated(folders: Iterable[str | Path]) -> Iterator[None]:
    """In a process that ends afterwards: what it writes meanwhile is gone at the end."""
    with scratch_folder() as scratch:
        try:
            isolate(scratch, folders)
            yield
        finally:
            end_all()  # what we remove is to be removed


@contextlib.contextmanager
def redirected(scratch: Path, folders: Iterable[str | Path]) -> Iterator[None]:
    """While this lasts, by python's own functions alone: what can be taken back."""
    with Redirect(View(zones_for(folders, scratch), scratch)).at_work():
        yield


def apart(work: Callable[[], T], folders: Iterable[str | Path]) -> T:
    """What `work` gives, run in an isolated fork of this process; where it is not Linux, in this process, redirected.

    A fork is what mounts need, and not safe with the frameworks of macOS. Windows has neither.

    Raises:
        UnvanishError: what `work` raises of these. ScriptError: the process did not come to its end.
    """
    if os.name != "posix" or os.environ.get(ASKED, "").strip() == "none":
        return work()
    with scratch_folder() as scratch:
        if not sys.platform.startswith("linux") or threading.active_count() > 1:
            with redirected(scratch, folders):
                return work()
        near, far = Pipe(duplex=False)
        child = os.fork()
        if not child:
            near.close()
            _become(work, folders, scratch, far)
        far.close()
        with _hands_on_signals(child), near:
            said, status = _answer(near, child)
    if said is None:
        raise ScriptError(
            f"the script ended its process (code {os.waitstatus_to_exitcode(status)})",
            "see whether plain python runs it",
        )
    kind, value = said
    if kind == "error":
        raise value
    given: T = value
    return given


def _answer(link: Connection[Any, Any], child: int) -> tuple[tuple[str, Any] | None, int]:
    """(what the fork says, None if nothing; its status). What it has started itself may outlive it, pipe in hand."""
    said = None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if said is None and link.poll(0 if ended else _TICK):
            with contextlib.suppress(EOFError):
                said = link.recv()
        if ended:
            return said, status
        if said is not None:
            return said, os.waitpid(child, 0)[1]


def _become(
    work: Callable[[], Any], folders: Iterable[str | Path], scratch: Path, link: Connection[Any, Any]
) -> NoReturn:
    """In the fork. A process that the script forks from it, and that comes by here, says nothing."""
    me = os.getpid()
    try:
        try:
            isolate(scratch, folders)
            answer: tuple[str, Any] = ("value", work())
        except UnvanishError as error:
            answer = ("error", error)
        if os.getpid() == me:
            link.send(answer)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001 - shown as python shows it
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(Exception):  # closed by the script, perhaps
                if stream is not None:
                    stream.flush()
        os._exit(1 if os.getpid() == me else 0)


@contextlib.contextmanager
def _hands_on_signals(child: int) -> Iterator[None]:
    """Whoever ends us, means the fork."""
    ended = threading.Event()

    def hand_on(number: int, _: Any) -> None:
        def later() -> None:
            if number == signal.SIGINT:
                time.sleep(_PATIENCE)  # from a terminal, both hear it
            if not ended.is_set():
                with contextlib.suppress(OSError):
                    os.kill(child, number)

        threading.Thread(target=later, daemon=True).start()

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)
