"""A worker of an engine: one process (and those below it) that runs trials, as the engine sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from unvanish.errors import UsageError
from unvanish.verify.engines.supervisor import BOOT, Ready
from unvanish.verify.engines.trial_process import THREAD_VARIABLES, Job, Runner
from unvanish.verify.engines.watch import START_SECONDS, death, last_words
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

_LAST_BYTES = 4096
_END_SECONDS = 8.0  # for the supervisor to end what runs; longer than it gives that
# an `unvanish run` around us watches the python processes that are started below it; it must not watch trials
_WATCHED = ("UNVANISH_RUN", "UNVANISH_SEED")


class Worker:
    """Starts at once; is ready when `hear` says so. One trial at a time."""

    def __init__(self, job: Job) -> None:
        """Start the processes; nothing is waited for."""
        near, far = Pipe()
        self.pipe: Connection[Any, Any] = near
        self.ready = False
        self.spec: TrialSpec | None = None
        self._since = time.monotonic()  # of the trial or, before it is ready, of the start
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the worker
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT.format("supervisor"), str(far.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[far.fileno()],
                start_new_session=True,
                env=_environment(job.threads),
            )
        with contextlib.suppress(OSError):  # it just died: `hear` will say so
            self.pipe.send(job)

    def hand_over(self, spec: TrialSpec) -> None:
        """Let it run this trial."""
        self.spec, self._since = spec, time.monotonic()
        with contextlib.suppress(OSError):  # as above
            self.pipe.send(replace(spec, target=absolute(spec.target)))

    @property
    def seconds_left(self) -> float:
        """Until even the supervisor is not believed to be alive. It keeps the trial's own limit itself."""
        limit = START_SECONDS
        if self.ready:
            limit = float("inf") if self.spec is None else self.spec.seconds + START_SECONDS
        return limit - (time.monotonic() - self._since)

    def hear(self) -> tuple[TrialOutcome | None, bool]:
        """An outcome, if there is one, and whether this worker is of no more use. Does not wait."""
        try:
            while self.pipe.poll():
                message = self.pipe.recv()
                if isinstance(message, Ready):
                    self.ready = True
                    continue
                spec, self.spec = self.spec, None
                if spec is not None and message is not None:
                    return replace(message, spec=spec), False
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)  # the reaper ends what is left
            return self.failed(death(self._process.returncode or 0)), True
        except Exception as error:  # noqa: BLE001  # an outcome that can't be unpickled here
            return self.failed(f"the outcome can't be read: {error}"), True
        if self.seconds_left < 0:
            return self.failed("its process does not answer any more and was ended"), True
        return None, False

    def failed(self, why: str, spec: TrialSpec | None = None) -> TrialOutcome | None:
        """The outcome of the trial that it had (or of `spec`, which it never got), with its last words."""
        spec = spec or self.spec
        if spec is None:
            return None
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LAST_BYTES))
        said = last_words(self._log.read())
        error = f"{why} ({said})" if said else why
        return TrialOutcome(spec=spec, error=error, wall_seconds=time.monotonic() - self._since)

    def drop(self) -> None:
        """End the trial that runs; the worker stays. Its answer has to be awaited by `hear`."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)

    def let_go(self) -> None:
        """Tell it to end, and wait for nothing."""
        self.pipe.close()

    def end(self) -> None:
        """End it and all that runs below it."""
        self.let_go()
        await_end(self._process, _END_SECONDS)
        self._log.close()


def await_end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process that leads a group; if it takes longer, SIGTERM, and at last SIGKILL to all of the group."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            elif number:
                process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def absolute(target: Target) -> Target:
    """The same script for a process that stands in another directory."""
    return replace(target, directory=str(Path(target.directory).absolute()))


def address_of(runner: Runner | str) -> str:
    """The name by which another process can import this function, "module:function".

    Raises:
        UsageError: it can't.
    """
    if isinstance(runner, str):
        return runner
    module, name = getattr(runner, "__module__", None), getattr(runner, "__qualname__", "")
    found = getattr(sys.modules.get(module or ""), name, None)
    if module in (None, "__main__") or found is not runner:
        raise UsageError(
            "the runner can't be imported by other processes", "use a function at the top level of a module"
        )
    return f"{module}:{name}"


def _environment(threads: int) -> dict[str, str]:
    """The engine's own, with the limit on threads (read once, at an import) and one order of sets for all trials."""
    own = {name: value for name, value in os.environ.items() if name not in _WATCHED}
    own.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    if not own.get("PYTHONHASHSEED", "").isdigit():
        own["PYTHONHASHSEED"] = (
            "0"  # a vocabulary made from a set of words has the same order in each process
        )
    return own
