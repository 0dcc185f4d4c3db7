"""The innermost process: it runs one trial and ends."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from unvanish.verify.trial import TrialOutcome, TrialSpec

try:
    import resource
except ImportError:  # Windows, where the engines refuse to work; they can be imported to say so
    resource = None  # type: ignore[assignment]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# large packages whose import draws no numbers and starts no threads: worth to be there before the next trial begins
WORTH_KEEPING = frozenset({"torch", "torchvision", "numpy", "scipy", "sklearn", "pandas"})

Runner = Callable[[TrialSpec], TrialOutcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How trials are to be run. `runner` is "module:function"; `memory_bytes` holds where the spec names no limit."""

    runner: str
    threads: int
    memory_bytes: int
    fork: bool


class Begun:
    """The script is about to run: the time limit counts from here on."""


class Unfit:
    """This process can't run a trial as a fresh one could: CUDA was touched before it was forked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The trial's outcome, and which modules worth keeping it imported, in order."""

    outcome: TrialOutcome
    imported: tuple[str, ...]


def load(runner: str) -> Runner:
    """The function named "module:function".

    Raises:
        Exception: whatever the import raises.
    """
    module, _, name = runner.partition(":")
    found: Runner = getattr(importlib.import_module(module), name)
    return found


def main(descriptor: int) -> NoReturn:
    """In a fresh interpreter: hear what to run, run it."""
    link: Connection[Any, Any] = Connection(descriptor)
    job, spec = link.recv()
    perform(link, load(job.runner), spec, job.threads)


def perform(link: Connection[Any, Any], run: Runner, spec: TrialSpec, threads: int) -> NoReturn:
    """Run one trial in this process, say what came of it, and end without a look back.

    What the script registered for the end (atexit), its threads and its children get no say: the supervisor ends
    what is left. A process that the script forked comes by here, too, and goes silently.
    """
    _prepare(threads)
    torch: Any = sys.modules.get("torch")
    if torch is not None and getattr(torch.cuda, "_is_in_bad_fork", bool)():
        link.send(Unfit())
        os._exit(0)
    known, me, start = set(sys.modules), os.getpid(), time.perf_counter()
    link.send(Begun())
    outcome = guarded(run, spec, start)
    if os.getpid() != me:
        os._exit(0)
    with contextlib.suppress(Exception):  # closed by the script, perhaps
        sys.stdout.flush()
    try:
        link.send(Done(outcome=outcome, imported=_worth_keeping(known)))
    except OSError:  # the script closed what it did not open: the supervisor sees that no outcome came
        os._exit(1)
    except Exception as error:  # noqa: BLE001  # an outcome that can't be pickled
        failed = _failed(spec, f"the outcome can't be sent: {error}", start)
        link.send(Done(outcome=failed, imported=()))
    os._exit(0)


def guarded(run: Runner, spec: TrialSpec, start: float) -> TrialOutcome:
    """Run one trial; whatever it raises becomes an outcome (sys.exit and Ctrl-C of a script too)."""
    try:
        outcome = run(spec)
        if not isinstance(outcome, TrialOutcome):
            raise TypeError(f"the runner returned a {type(outcome).__name__}, not a TrialOutcome")
    except BaseException as error:  # noqa: BLE001  # a trial's fault is an outcome
        return failure(spec, error, start)
    return outcome


def failure(spec: TrialSpec, error: BaseException, start: float) -> TrialOutcome:
    """What an exception comes to, in one line."""
    text = " ".join(str(error).split())
    return _failed(spec, f"{type(error).__name__}: {text}" if text else type(error).__name__, start)


def _failed(spec: TrialSpec, why: str, start: float) -> TrialOutcome:
    return TrialOutcome(spec=spec, error=why[:300], wall_seconds=time.perf_counter() - start)


def _prepare(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(
        OSError
    ):  # when the machine runs out of memory, a trial goes, and not its supervisor
        Path("/proc/self/oom_score_adj").write_text("1000")
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _worth_keeping(known: set[str]) -> tuple[str, ...]:
    """New modules of installed packages; one of the same name that lies beside the script is the script's own."""
    found = []
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if name in known or top not in WORTH_KEEPING:
            continue
        place = getattr(sys.modules.get(top), "__file__", None) or ""
        if "site-packages" in place or "dist-packages" in place:
            found.append(name)
        del module
    return tuple(found)
