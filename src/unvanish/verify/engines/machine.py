"""The machine that trials run on: what a trial's processes hold in memory, how all of them are ended.

Linux tells of all this in /proc (man 5 proc), and lets a process adopt the orphans below it, so that nothing that a
script started can slip away. Elsewhere a trial's process group is what can be reached, and memory is not measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

HAS_PROC = sys.platform == "linux" and Path("/proc/self/stat").exists()
SHARE = 0.8  # of the machine's memory is for trials

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_TIDY_SECONDS = 0.5  # for those who clean up after others: multiprocessing's resource tracker does
_KILL_SECONDS = 5.0  # a process that waits for a disk can't be killed; it is not waited for
_PAUSE = 0.01
_HELD = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")  # not Pss_File: the page cache gives that back


def adopt_orphans() -> None:
    """Let the processes that lose their parent below this one become its children (Linux; man 2 prctl)."""
    if HAS_PROC:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """The processes below `root` that are not yet dead, parents before their children. Empty without /proc."""
    if not HAS_PROC:
        return []
    below: dict[int, list[int]] = {}
    dead = set()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            # after the name, which may hold anything: state, parent, ...
            state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            below.setdefault(int(parent), []).append(int(entry.name))
            if state in b"ZX":
                dead.add(int(entry.name))
    found = list(below.get(root, ()))
    for process in found:  # grows as it is walked
        found += below.get(process, ())
    return [process for process in found if process not in dead]


def end_below(leader: int) -> None:
    """End the trial whose first process is `leader`, and all that it started; wait until they are gone.

    The leader is killed at once. The others hear SIGTERM first: what keeps shared memory or semaphores for others
    removes them when it is alone, and would leave them for ever if it were killed.
    """
    _send(leader, signal.SIGKILL)
    begun = time.monotonic()
    told: set[int] = set()
    while not _all_reaped(leader):
        seconds = time.monotonic() - begun
        if seconds > _TIDY_SECONDS + _KILL_SECONDS:
            return
        for process in descendants(os.getpid()) if HAS_PROC else [-leader]:
            if seconds > _TIDY_SECONDS:
                _send(process, signal.SIGKILL)
            elif process not in told and process != leader:
                told.add(process)
                _send(process, signal.SIGTERM)
        time.sleep(_PAUSE)


def end_children() -> None:
    """End everything below this process."""
    end_below(0)


def _all_reaped(leader: int) -> bool:
    """Whether nothing is left; takes the status of what has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return False  # some child, or an orphan that became one, still runs
    if HAS_PROC or not leader:
        return True
    with contextlib.suppress(OSError):
        os.killpg(leader, 0)
        return False
    return True


def _send(process: int, number: signal.Signals) -> None:
    """A signal to a process, or to a group (negative); 0 is nobody."""
    with contextlib.suppress(OSError):
        if process:
            os.kill(process, number)


def resident_bytes(processes: Iterable[int]) -> int:
    """What they have in memory: an upper bound, as pages that they share count for each; quick to read."""
    page = os.sysconf("SC_PAGE_SIZE")
    pages = 0
    for process in processes:
        with contextlib.suppress(OSError):
            pages += int((_PROC / str(process) / "statm").read_bytes().split()[1])
    return pages * page


def held_bytes(processes: Iterable[int]) -> int:
    """The memory that would be free without them: a page that n processes share counts 1/n for each.

    So what forks share (the data of a DataLoader with many workers) counts once, and files mapped into memory do not
    count. Slower than `resident_bytes`: the kernel walks their page tables.
    """
    total = 0
    for process in processes:
        try:
            lines = (_PROC / str(process) / "smaps_rollup").read_text().splitlines()
        except OSError:  # ended, or an older kernel
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_HELD))
    return total


def machine_bytes() -> int:
    """This machine's memory, or the part of it that this process's control group may use."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([whole, *_group_limits()])


def _group_limits() -> list[int]:
    """Limits on memory of all control groups around this process (versions 1 and 2; "max" is none)."""
    limits = []
    with contextlib.suppress(OSError):
        for line in (_PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                top, name = _GROUPS, "memory.max"
            elif "memory" in controllers.split(","):
                top, name = _GROUPS / "memory", "memory.limit_in_bytes"
            else:
                continue
            folder = top / path.lstrip("/")
            for place in (folder, *folder.parents):
                if place.is_relative_to(top):
                    with contextlib.suppress(OSError, ValueError):
                        limits.append(int((place / name).read_text()))
    return limits


def share_bytes(workers: int) -> int:
    """What one of so many trials at a time may hold."""
    return int(SHARE * machine_bytes()) // workers


def size_words(count: int) -> str:
    """A size as people say it: 512 MiB, 6.4 GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
