"""Run a user's script in this process, to its end, just as plain python would run it."""

# ruff: noqa: PTH109, PTH120, PTH123 - python joins and resolves these paths in just this way
from __future__ import annotations

import importlib.machinery
import os
import runpy
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unvanish.launch.ending import Exit, Terminated, exit_of
from unvanish.launch.importing import seed_everything
from unvanish.launch.target import Target

_COMMAND = sys.argv[0] if sys.argv else ""


def run_target(
    target: Target,
    *,
    seed: int | None = None,
    is_stop: Callable[[BaseException], bool] = lambda _: False,
) -> Exit:
    """Run `target` to its end; tells how it ended. Takes over ``__main__``, sys.argv, sys.path[0] for good.

    `seed` seeds python at once, numpy and torch when the script imports them. `is_stop` knows the exception
    by which the watching ends a script on purpose: that is a clean end with code 0. Raises ScriptError when
    there is nothing to start; whatever the script itself raises is shown here, as plain python shows it.
    """
    target.check()
    owner = os.getpid()
    if seed is not None:
        seed_everything(seed)
    with _sigterm_as_exception():
        error = _raised_by(lambda: _execute(target))
        forked = os.getpid() != owner
        if not forked:
            # python calls this at exit, where a second call does nothing: it lets executors say farewell and
            # joins the threads that are no daemons, which may be training still
            error = error or _raised_by(getattr(threading, "_shutdown", lambda: None))
        ended = exit_of(error, is_stop)
    return Exit(code=ended.code, status=ended.status, message=ended.message, forked=forked)


def _raised_by(action: Callable[[], None]) -> BaseException | None:
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - all that python itself would have handled at top level
        return error
    return None


def _execute(target: Target) -> None:
    main, folder = _new_main(), target.folder
    sys.orig_argv = [
        *sys.orig_argv[:1],
        *(["-m"] if target.is_module else []),
        target.name,
        *target.arguments,
    ]
    if target.is_module:
        sys.argv = ["-m", *target.arguments]  # runpy puts the module's path in, once it is found
        _set_path0(folder)
        _run_module_as_main(target.name, alter_argv=True)
        return
    sys.argv = [target.name, *target.arguments]
    if target.is_container:
        _set_path0(folder, always=True)
        _run_module_as_main("__main__", alter_argv=False)
        return
    _set_path0(folder)
    exec(_code_of(target.path, main), main.__dict__)  # noqa: S102 - the user's own script


def _run_module_as_main(name: str, *, alter_argv: bool) -> None:
    # python's own `-m` calls this very function: the script's traceback then shows the same runpy frames
    start: Callable[[str, bool], object] = getattr(runpy, "_run_module_as_main")  # noqa: B009 - not in the stubs
    start(name, alter_argv)


def _new_main() -> types.ModuleType:
    """A fresh ``__main__`` with the globals, in the order, that python gives a script."""
    main = types.ModuleType("__main__")
    if sys.version_info < (3, 14):
        setattr(main, "__annotations__", {})  # noqa: B010 - the stubs say that it is there already
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    return main


def _code_of(path: str, main: types.ModuleType) -> types.CodeType:
    main.__dict__["__file__"] = path
    if sys.version_info < (3, 15):
        main.__dict__["__cached__"] = None
    if path.endswith(".pyc"):
        bytecode = importlib.machinery.SourcelessFileLoader("__main__", path)
        main.__loader__ = bytecode
        code = bytecode.get_code("__main__")
        assert code is not None  # noqa: S101 - it raises where there is none
        return code
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _set_path0(folder: str, *, always: bool = False) -> None:
    """Put the script's folder where python put the folder of our own command."""
    if getattr(sys.flags, "safe_path", False):  # python -P: no folder of ours was put there
        if always:
            sys.path.insert(0, folder)
        return
    ours = {"", os.getcwd(), os.path.dirname(os.path.realpath(_COMMAND))}
    if sys.path and sys.path[0] in ours:
        sys.path[0] = folder
    else:
        sys.path.insert(0, folder)


@contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """While the script runs, SIGTERM ends it through its finally blocks; a second one kills, as always.

    Only where nobody has set a handler, and in this process only: forked children die of it as usual.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(_number: int, _frame: types.FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    def restore() -> None:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, end)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=restore)
    try:
        yield
    finally:
        restore()
