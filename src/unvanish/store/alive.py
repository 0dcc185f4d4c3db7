"""Is the process that writes a run still there? Asked by the reader of a record that has no end."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

FRESH_SECONDS = 60.0  # on another machine only the file's age can tell; a writer commits about every 0.3 s


def this_host() -> str:
    """The machine's name, as the record keeps it."""
    return platform.node()


def process_started(pid: int) -> str | None:
    """When a live process began, in the kernel's clock ticks since boot; None = dead, or not known here.

    Tells a process from a later one that was given the same number. A zombie counts as dead.
    """
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # what follows the process's name, which may hold anything
    return None if fields[0] in ("Z", "X") else fields[19]


def writer_alive(pid: int, host: str, started: str | None, files: tuple[Path, ...]) -> bool:
    """Whether the process that began the record still runs. This very process counts as not writing."""
    if host != this_host() or os.name != "posix":  # os.kill(pid, 0) is no harmless question elsewhere
        return _age(files) < FRESH_SECONDS
    if pid == os.getpid():
        return False
    if started is not None and Path("/proc/self/stat").exists():
        return process_started(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, but belongs to someone else
        return True
    return True


def _age(files: tuple[Path, ...]) -> float:
    """Seconds since the youngest of the files was written."""
    written = [file.stat().st_mtime for file in files if file.exists()]
    return time.time() - max(written, default=0.0)
