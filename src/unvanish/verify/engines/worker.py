"""The far side of the local engine: a process that runs one trial after the other."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from unvanish.verify.trial import TrialOutcome, TrialSpec

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def serve(pipe: Connection, runner: str, threads: int, log: str) -> None:
    """Answer every TrialSpec on the pipe with a TrialOutcome, until None comes or the pipe closes.

    `runner` is "module:function". It is imported here, after the thread limits are set, which torch reads
    once. What the trials print goes to the file `log`, not to the user's terminal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    _redirect(log)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    module, _, name = runner.partition(":")
    run = getattr(importlib.import_module(module), name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    pipe.send(None)  # ready: time limits count from here on
    while True:
        try:
            spec = pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        if spec is None:
            return
        start = time.perf_counter()
        outcome = _guarded(run, spec, start)
        try:
            pipe.send(outcome)
        except (BrokenPipeError, OSError):
            return


def _guarded(run: object, spec: TrialSpec, start: float) -> TrialOutcome:
    """Run one trial; whatever it raises becomes an outcome (sys.exit of a script too)."""
    try:
        outcome = run(spec)  # type: ignore[operator]  # importable by name, checked by the engine
        if not isinstance(outcome, TrialOutcome):
            raise TypeError(f"the runner returned a {type(outcome).__name__}, not a TrialOutcome")
    except BaseException as error:  # noqa: BLE001  # a trial's fault must not end the worker
        text = " ".join(str(error).split())
        why = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return TrialOutcome(spec=spec, error=why[:300], wall_seconds=time.perf_counter() - start)
    return outcome


def _redirect(log: str) -> None:
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)


def last_words(log: str) -> str:
    """The last line that a worker printed, for the error of a crash ("" = none)."""
    try:
        with Path(log).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
