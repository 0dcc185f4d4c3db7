"""The folder that takes what a script writes: gone when the script is, also where its process was killed."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unvanish.launch.isolation.mounted import mounted
from unvanish.launch.isolation.zones import is_below

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows has none
    fcntl = importlib.import_module("fcntl")

_PREFIX = "unvanish-scratch-"
_LOCK = "lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder, removed at the end. What killed processes have left is removed at the beginning."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    owner = os.getpid()
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)  # forks hold it as well, until the last of them has ended
        yield folder
    finally:
        if os.getpid() == owner:
            with contextlib.suppress(OSError):  # a script may close what it has not opened
                os.close(lock)
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, folders without any permission too.

    Not where anything is mounted in it: that is no scratch.
    """
    if any(is_below(point, os.path.realpath(folder)) for point, _ in mounted()):
        return

    def again(function: Any, path: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            if function in (os.scandir, os.open, os.listdir, os.lstat):
                Path(path).chmod(0o700)
                shutil.rmtree(path, ignore_errors=True)
            else:
                function(path)

    given: Any = {"onexc" if sys.version_info >= (3, 12) else "onerror": again}  # another name from 3.12 on
    shutil.rmtree(folder, **given)


def _sweep() -> None:
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # in use
                continue
            finally:
                os.close(lock)
            remove(folder)
