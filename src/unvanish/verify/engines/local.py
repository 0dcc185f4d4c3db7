"""Trials on this machine: a pool of our own, since one crash breaks the standard one as a whole."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import tempfile
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

from unvanish.errors import UsageError
from unvanish.verify.engines.worker import last_words, serve
from unvanish.verify.trial import TrialOutcome, TrialSpec

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from 3.11 on

START_SECONDS = 120.0  # to import torch on a slow disk
Runner = Callable[[TrialSpec], TrialOutcome]


@dataclass(slots=True, kw_only=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    log: str
    ready: bool = False
    spec: TrialSpec | None = None
    since: float = 0.0  # when the trial (or, before it is ready, the start) began

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    @property
    def limit(self) -> float:
        """Seconds that it may take from `since` on."""
        if not self.ready:
            return START_SECONDS
        return float("inf") if self.spec is None else self.spec.seconds


class LocalEngine:
    """Runs trials in `workers` spawned processes with `threads` torch threads each; they live until close().

    A trial that hangs past its limit, or takes its process with it, becomes an outcome with an error, and
    a new process takes its place. The caller's own script is not run again in the workers.
    """

    def __init__(self, workers: int, runner: Runner | str, *, threads: int = 1) -> None:
        """`runner` is a function that can be imported by name, or "module:function".

        Raises:
            UsageError: no workers, or a runner that other processes can't import.
        """
        if workers < 1 or threads < 1:
            raise UsageError(
                f"{workers} workers with {threads} threads can't run anything", "ask for 1 or more"
            )
        self._runner = runner if isinstance(runner, str) else _address(runner)
        self._count = workers
        self._threads = threads
        self._pool: list[_Worker] = []
        self._logs = tempfile.TemporaryDirectory(prefix="unvanish-trials-")
        self._started = 0

    @property
    def workers(self) -> int:
        """How many trials run at the same time."""
        return self._count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, specs: Iterable[TrialSpec]) -> Iterator[TrialOutcome]:
        """Run all; outcomes come as they are ready. Leaving early (by Ctrl-C, say) ends what is running."""
        queue = deque(specs)
        try:
            while queue or any(w.spec is not None for w in self._pool):
                while len(self._pool) < min(
                    self._count, len(queue) + sum(w.spec is not None for w in self._pool)
                ):
                    self._pool.append(self._start())
                for worker in self._pool:
                    if queue and worker.ready and worker.spec is None:
                        self._hand_over(worker, queue.popleft())
                yield from self._collect(queue)
        finally:
            for worker in [w for w in self._pool if w.spec is not None]:
                self._end(worker)

    def close(self) -> None:
        """End all workers and remove their logs."""
        for worker in list(self._pool):
            self._end(worker)
        self._logs.cleanup()

    # --- inside ---------------------------------------------------------------------------------------------

    def _start(self) -> _Worker:
        self._started += 1
        log = str(Path(self._logs.name) / f"worker-{self._started}.log")
        context = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        process = context.Process(target=serve, args=(far, self._runner, self._threads, log), daemon=True)
        with _nameless_main():
            process.start()
        far.close()
        return _Worker(process=process, pipe=near, log=log, since=time.monotonic())

    def _hand_over(self, worker: _Worker, spec: TrialSpec) -> None:
        worker.spec, worker.since = spec, time.monotonic()
        with contextlib.suppress(OSError):  # it just died: _collect sees that and says so
            worker.pipe.send(spec)

    def _collect(self, queue: deque[TrialSpec]) -> Iterator[TrialOutcome]:
        """Wait for news: outcomes, deaths and time-outs."""
        patience = max(0.0, min(1.0, *(w.limit - w.seconds for w in self._pool)))
        wait([w.pipe for w in self._pool] + [w.process.sentinel for w in self._pool], timeout=patience)
        for worker in list(self._pool):
            outcome, dead = self._hear(worker)
            if dead:
                # one that never came up would be started over for ever: it takes a trial with it
                if outcome is None and worker.spec is None and queue and not worker.ready:
                    outcome = self._failed(worker, queue.popleft(), "the worker process did not come up")
                self._end(worker)
            if outcome is not None:
                yield outcome

    def _hear(self, worker: _Worker) -> tuple[TrialOutcome | None, bool]:
        """What a worker has to say, and whether it is of no more use."""
        try:
            if worker.pipe.poll():
                message = worker.pipe.recv()
                if message is None:
                    worker.ready = True
                    return None, False
                worker.spec = None
                return message, False
        except (EOFError, OSError):
            pass
        except Exception as error:  # noqa: BLE001  # an outcome that does not unpickle here
            return self._failed(worker, worker.spec, f"the outcome can't be read: {error}"), True
        if worker.process.exitcode is not None or not worker.process.is_alive():
            return self._failed(worker, worker.spec, _death(worker.process.exitcode)), True
        if worker.seconds > worker.limit:
            return self._failed(
                worker, worker.spec, f"took longer than {worker.limit:g} s and was ended"
            ), True
        return None, False

    def _failed(self, worker: _Worker, spec: TrialSpec | None, why: str) -> TrialOutcome | None:
        if spec is None:
            return None
        said = last_words(worker.log)
        return TrialOutcome(spec=spec, error=f"{why} ({said})" if said else why, wall_seconds=worker.seconds)

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        worker.process.close()
        self._pool.remove(worker)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process was killed by signal {-code}"
    return f"the process ended by itself with code {code}"


def _address(runner: Runner) -> str:
    """The name by which another process can import this function."""
    module, name = getattr(runner, "__module__", None), getattr(runner, "__qualname__", "")
    found = getattr(sys.modules.get(module or ""), name, None)
    if module in (None, "__main__") or found is not runner:
        raise UsageError(
            "the runner can't be imported by other processes", "use a function at the top level of a module"
        )
    return f"{module}:{name}"


_MAIN_LOCK = threading.Lock()


@contextlib.contextmanager
def _nameless_main() -> Iterator[None]:
    """Hide __main__ while a process is spawned: the child would run the caller's script over again."""
    with _MAIN_LOCK:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
