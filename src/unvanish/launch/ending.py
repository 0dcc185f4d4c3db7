"""How a script ended: its exit code, and its traceback as plain python shows it, without our frames."""

from __future__ import annotations

import os
import sys
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unvanish.schema.run import RunStatus

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports
TERMINATED = 143  # 128 + SIGTERM
_LAUNCH = str(Path(__file__).parent) + os.sep
_PACKAGE = str(Path(__file__).parent.parent) + os.sep


class Abort(BaseException):
    """Raised by a callback of ``when_imported`` to end the script: it can't be watched."""


class Terminated(BaseException):
    """SIGTERM arrived. No Exception, so that a script's ``except Exception`` does not keep it alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a script ended. `code` is its own exit code, as plain python would give it to the system.

    `message` is its last words (None when it ended well). `forked` is true in a child process that the script
    forked and that ran to the script's end: what comes after the script is its parent's business.
    """

    code: int
    status: RunStatus
    message: str | None = None
    forked: bool = False


def exit_of(error: BaseException | None, is_stop: Callable[[BaseException], bool]) -> Exit:
    """Say how the script ended by what came out of it, and show that where python would.

    Must be called outside of any except block: python shows an uncaught exception with no other one at hand.
    """
    if error is None:
        return Exit(code=0, status="finished")
    if isinstance(error, Abort) or is_stop(error):
        return Exit(code=0, status="stopped")
    if isinstance(error, Terminated):
        return Exit(code=TERMINATED, status="interrupted", message="SIGTERM")
    if isinstance(error, SystemExit):
        code = _system_exit_code(error)
        if code == 0:
            return Exit(code=0, status="finished")
        return Exit(code=code, status="crashed", message=f"exit code {code}")
    message = traceback.format_exception_only(type(error), error)[-1].strip()
    code = _show(error)
    if isinstance(error, KeyboardInterrupt):
        return Exit(code=INTERRUPTED, status="interrupted", message=message)
    return Exit(code=code, status="crashed", message=message)


def _system_exit_code(error: SystemExit) -> int:
    """What python makes of sys.exit(x): None is 0, a number itself, anything else is printed and is 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return int(error.code)
    _print_to_stderr(error.code)
    return 1


def _show(error: BaseException) -> int:
    """Show an uncaught exception as python does, through the script's sys.excepthook; gives the code."""
    _forget_our_frames(error)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    failed: BaseException | None = None
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException as again:  # noqa: BLE001 - the script's hook may raise anything, python shows it too
        failed = again
    if failed is None:
        return 1
    if isinstance(failed, SystemExit):
        return _system_exit_code(failed)
    _forget_our_frames(failed)
    _print_to_stderr("Error in sys.excepthook:")
    sys.__excepthook__(type(failed), failed, failed.__traceback__)
    _print_to_stderr("\nOriginal exception was:")
    sys.__excepthook__(type(error), error, error.__traceback__)
    return 1


def _print_to_stderr(what: object) -> None:
    if sys.stderr is not None:
        print(what, file=sys.stderr)  # noqa: T201 - in python's place, on the script's own stream


def _forget_our_frames(error: BaseException) -> None:
    """Take our frames out of a traceback, out of its causes and contexts, and of a group's members."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _without_our_frames(one.__traceback__)
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _without_our_frames(tb: types.TracebackType | None) -> types.TracebackType | None:
    """The same traceback without frames that plain python would not have."""
    entries: list[types.TracebackType] = []
    while tb is not None:
        entries.append(tb)
        tb = tb.tb_next
    drop = _frames_to_drop([entry.tb_frame.f_code.co_filename for entry in entries])
    kept: types.TracebackType | None = None
    for index in range(len(entries) - 1, -1, -1):
        if index not in drop:
            entry = entries[index]
            kept = types.TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept


def _frames_to_drop(files: list[str]) -> set[int]:
    """Which entries of a traceback are ours, by the files of its frames, outermost first.

    Frames of launch always go, and the import machinery's around one of them. Other frames of unvanish go
    where they stand between two of the script's (a hook); at the inner end they stay: the script called us.
    """
    last = max((i for i, name in enumerate(files) if not name.startswith(_PACKAGE)), default=-1)
    launch = {i for i, name in enumerate(files) if name.startswith(_LAUNCH)}
    drop = launch | {i for i in range(last) if files[i].startswith(_PACKAGE)}
    for index in launch:
        for step in (-1, 1):
            near = index + step
            while 0 <= near < len(files) and files[near].startswith("<frozen importlib"):
                drop.add(near)
                near += step
    return drop
