"""Runners that do to their process what scripts do, and worse. `spec.candidate` names the deed; none needs torch.

What they leave running is `sleep` with an odd number of seconds, `spec.steps`, by which a test finds it again.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import mmap
import multiprocessing
import multiprocessing.pool
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path

from unvanish.verify.trial import TrialOutcome, TrialSpec

MEGABYTE = 2**20
DEEDS: dict[str, Callable[[TrialSpec], object]] = {}
kept: list[object] = []  # what a script would hold in its globals


def run(spec: TrialSpec) -> TrialOutcome:
    """The deed, then an outcome that says which process did it, and who was the parent."""
    DEEDS.get(spec.candidate, lambda _: None)(spec)
    return TrialOutcome(spec=spec, losses=(float(os.getpid()), float(os.getppid())))


def _deed(act: Callable[[TrialSpec], object]) -> Callable[[TrialSpec], object]:
    DEEDS[act.__name__] = act
    return act


def _sleep(spec: TrialSpec, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", str(spec.steps)], **options)  # type: ignore[call-overload, no-any-return]


# --- ends that are none -------------------------------------------------------------------------------------


@_deed
def segfaults(_: TrialSpec) -> None:
    ctypes.string_at(0)


@_deed
def aborts(_: TrialSpec) -> None:
    os.abort()


@_deed
def interrupts(_: TrialSpec) -> None:
    raise KeyboardInterrupt


@_deed
def hangs_with_the_lock(_: TrialSpec) -> None:
    ctypes.PyDLL(None).sleep(600)  # python's lock is held: no thread of ours could do anything


@_deed
def stops(_: TrialSpec) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@_deed
def asks(_: TrialSpec) -> None:
    input("Go on? ")


@_deed
def kills_its_parent(spec: TrialSpec) -> None:
    _sleep(spec, start_new_session=True)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


@_deed
def kills_its_group(_: TrialSpec) -> None:
    os.kill(0, signal.SIGKILL)
    time.sleep(600)


@_deed
def unpicklable(spec: TrialSpec) -> None:
    raise _OddError(threading.Lock())


class _OddError(Exception):
    pass


# --- what is left running -----------------------------------------------------------------------------------


@_deed
def leaves_a_child(spec: TrialSpec) -> None:
    _sleep(spec)


@_deed
def leaves_a_daemon(spec: TrialSpec) -> None:
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.environ.clear()
            os.execvp("sleep", ["sleep", str(spec.steps)])  # noqa: S606
        os._exit(0)
    time.sleep(0.2)


@_deed
def leaves_a_stubborn_child(spec: TrialSpec) -> None:
    subprocess.Popen(["sh", "-c", f"trap '' TERM HUP; sleep {spec.steps} & wait; sleep {spec.steps}"])
    time.sleep(0.2)


@_deed
def hangs_with_children(spec: TrialSpec) -> None:
    _sleep(spec)
    _sleep(spec, start_new_session=True)
    time.sleep(600)


@_deed
def exits_with_children(spec: TrialSpec) -> None:
    _sleep(spec, start_new_session=True)
    os._exit(3)


@_deed
def leaves_a_pool(spec: TrialSpec) -> None:
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.apply_async(os.system, (f"sleep {spec.steps}",))
    kept.append(pool)
    time.sleep(0.2)


@_deed
def leaves_threads(_: TrialSpec) -> None:
    for _ in range(4):
        threading.Thread(target=time.sleep, args=(600,)).start()  # no daemons: python would wait for them


@_deed
def leaves_shared_memory(spec: TrialSpec) -> None:
    kept.append(shared_memory.SharedMemory(name=f"unvanish-{spec.steps}", create=True, size=4096))
    time.sleep(600)


@_deed
def leaves_an_exit_handler(_: TrialSpec) -> None:
    atexit.register(time.sleep, 600)


# --- streams ------------------------------------------------------------------------------------------------


@_deed
def prints_100_megabytes(_: TrialSpec) -> None:
    for _ in range(100):
        os.write(1, b"x" * MEGABYTE)
    subprocess.run(["head", "-c", "1000000", "/dev/zero"], check=True)


@_deed
def prints_and_exits(_: TrialSpec) -> None:
    prints_100_megabytes(_)
    os.write(2, b"\nthe very last words\n")
    os._exit(5)


@_deed
def closes_its_streams(_: TrialSpec) -> None:
    sys.stdout.close()
    sys.stderr.close()
    os.closerange(0, 3)


@_deed
def closes_all(_: TrialSpec) -> None:
    os.closerange(0, 4096)


@_deed
def forks(_: TrialSpec) -> None:
    if os.fork():  # and both go on
        time.sleep(0.3)


# --- memory -------------------------------------------------------------------------------------------------


@_deed
def takes_200_megabytes(_: TrialSpec) -> None:
    kept.append(b"x" * (200 * MEGABYTE))
    time.sleep(30)  # ended long before


@_deed
def children_take_200_megabytes(_: TrialSpec) -> None:
    for _ in range(4):
        if not os.fork():
            kept.append(b"x" * (50 * MEGABYTE))
            time.sleep(60)
    time.sleep(30)


@_deed
def children_share_60_megabytes(_: TrialSpec) -> None:
    kept.append(b"x" * (60 * MEGABYTE))
    for _ in range(4):
        if not os.fork():
            time.sleep(60)
    time.sleep(1.2)


@_deed
def maps_a_file_of_200_megabytes(_: TrialSpec) -> None:
    with tempfile.TemporaryFile() as file:
        for _ in range(200):
            file.write(b"x" * MEGABYTE)
        file.flush()
        view = mmap.mmap(file.fileno(), 0)
        assert sum(view[i] for i in range(0, len(view), 4096))
        time.sleep(1.2)


# --- state that the next trial must not see -----------------------------------------------------------------


@_deed
def leaves_its_state(spec: TrialSpec) -> None:
    os.chdir("/")
    os.umask(0o777)
    os.environ["LEFT_BEHIND"] = "yes"
    os.environ.pop("HOME", None)
    sys.path.insert(0, str(Path(spec.target.program).parent))
    sys.modules["json"] = None  # type: ignore[assignment]
    sys.setrecursionlimit(77_777)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    multiprocessing.set_start_method("spawn", force=True)
    tempfile.tempdir = "/nowhere"
    time.sleep = None  # type: ignore[assignment]
    kept.append("something")


@_deed
def finds_no_state(spec: TrialSpec) -> None:
    assert Path.cwd() != Path("/")
    assert os.umask(0o22) != 0o777
    assert "LEFT_BEHIND" not in os.environ and "HOME" in os.environ
    assert sys.modules.get("json", sys) is not None and sys.getrecursionlimit() < 77_777
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert multiprocessing.get_start_method(allow_none=True) != "spawn"
    assert tempfile.tempdir != "/nowhere" and time.sleep is not None and not kept


def order_of_a_set(spec: TrialSpec) -> TrialOutcome:
    """What a vocabulary comes to that a script makes from a set of words."""
    words = {f"word {i}" for i in range(50)}
    return TrialOutcome(spec=spec, losses=tuple(float(w.split()[1]) for w in words))


# --- what the next trial may find imported ------------------------------------------------------------------


def imports(spec: TrialSpec) -> TrialOutcome:
    """Imports the modules named by the candidate; the losses say which of them were there already."""
    sys.path.insert(0, spec.target.directory)
    names = spec.candidate.split()
    before = [float(name in sys.modules) for name in names]
    for name in names:
        importlib.import_module(name)
    return TrialOutcome(spec=spec, losses=(*before, float(os.getppid())))


def script(spec: TrialSpec) -> TrialOutcome:
    """The script of the target, and the PRODUCT that it comes to."""
    target = spec.target
    os.chdir(target.directory)
    sys.path.insert(0, str(Path(target.program).absolute().parent))
    found = runpy.run_path(target.program)
    return TrialOutcome(spec=spec, losses=(float(found["PRODUCT"]),))
