"""Trials on this machine: a pool of processes of our own, since one crash breaks the standard one as a whole."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from unvanish.errors import UsageError
from unvanish.verify.engines import machine
from unvanish.verify.engines.trial_process import Job, Runner
from unvanish.verify.engines.worker import Worker, address_of
from unvanish.verify.trial import TrialOutcome, TrialSpec

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from 3.11 on

_DROP_SECONDS = 8.0


class LocalEngine:
    """Runs trials in `workers` processes at a time, with `threads` torch threads each; they live until close().

    Each trial begins in a process as it is after the import of the runner, whatever ran before. A trial that takes
    too long or holds too much memory is ended, one that takes its process with it is noticed; both become
    outcomes with an error, and everything that they started is ended, too.
    """

    def __init__(
        self,
        workers: int,
        runner: Runner | str,
        *,
        threads: int = 1,
        memory_bytes: int | None = None,
        fork: bool = sys.platform == "linux",
    ) -> None:
        """`runner` is a function that can be imported by name, or "module:function".

        `memory_bytes` limits all processes of a trial together, where its spec does not (None: 80 % of the
        machine's memory, shared by the workers; measured on Linux only). `fork` False starts an interpreter for each
        trial, as is done anyway where a fork of the one that imported the runner would not be safe.

        Raises:
            UsageError: no workers, a runner that other processes can't import, or an operating system without fork.
        """
        check_numbers(workers, threads, memory_bytes)
        self._count = workers
        limit = machine.share_bytes(workers) if memory_bytes is None else memory_bytes
        self._job = Job(runner=address_of(runner), threads=threads, memory_bytes=limit, fork=fork)
        self._pool: list[Worker] = []
        self._running = False

    @property
    def workers(self) -> int:
        """How many trials run at the same time."""
        return self._count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, specs: Iterable[TrialSpec]) -> Iterator[TrialOutcome]:
        """Run all; outcomes come as they are ready. Leaving early (by Ctrl-C, say) ends what is running.

        Raises:
            UsageError: an earlier iterator of this engine is not at its end.
        """
        if self._running:
            raise UsageError("this engine is running trials already", "close the other iterator first")
        self._running = True
        queue = deque(specs)
        try:
            while queue or self._busy():
                while len(self._pool) < min(self._count, len(queue) + len(self._busy())):
                    self._pool.append(Worker(self._job))
                for worker in self._pool:
                    if queue and worker.ready and worker.spec is None:
                        worker.hand_over(queue.popleft())
                yield from self._collect(queue)
        except KeyboardInterrupt:  # may have come in the middle of a message
            for worker in self._busy():
                self._end(worker)
            raise
        finally:
            self._running = False
            self._drop()

    def close(self) -> None:
        """End all workers."""
        for worker in self._pool:
            worker.let_go()  # all at once, then one after the other
        while self._pool:
            self._end(self._pool[-1])

    # --- inside ---------------------------------------------------------------------------------------------

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._pool if worker.spec is not None]

    def _collect(self, queue: deque[TrialSpec]) -> Iterator[TrialOutcome]:
        """Wait for news: outcomes and deaths."""
        patience = max(0.0, min(1.0, *(w.seconds_left for w in self._pool)))
        wait([w.pipe for w in self._pool], timeout=patience)
        for worker in list(self._pool):
            outcome, useless = worker.hear()
            if useless:
                # one that never came up would be started over for ever: it takes a trial with it
                if outcome is None and queue and not worker.ready:
                    outcome = worker.failed("the worker process did not come up", queue.popleft())
                self._end(worker)
            if outcome is not None:
                yield outcome

    def _drop(self) -> None:
        """End the trials that run; the workers stay, as to start them takes seconds."""
        for worker in self._busy():
            worker.drop()
        until = time.monotonic() + _DROP_SECONDS
        try:
            while self._busy() and time.monotonic() < until:
                wait([w.pipe for w in self._busy()], timeout=max(0.0, until - time.monotonic()))
                for worker in self._busy():
                    _, useless = worker.hear()
                    if useless:
                        self._end(worker)
        finally:  # those that did not answer, or an impatient second Ctrl-C
            for worker in self._busy():
                self._end(worker)

    def _end(self, worker: Worker) -> None:
        self._pool.remove(worker)
        worker.end()


def check_numbers(workers: int, threads: int, memory_bytes: int | None) -> None:
    """Refuse what no engine can do.

    Raises:
        UsageError: it says what.
    """
    if workers < 1 or threads < 1:
        raise UsageError(f"{workers} workers with {threads} threads can't run anything", "ask for 1 or more")
    if memory_bytes is not None and memory_bytes < 1:
        raise UsageError(f"{memory_bytes} bytes of memory are too few for a trial", "leave out the limit")
    if os.name != "posix":
        raise UsageError("trials need fork and process groups", "run them on Linux, in WSL or on macOS")
