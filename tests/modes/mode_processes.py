"""Real processes for modes of many ranks: started once, they wait for one job after the other (gloo, on the CPU)."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import itertools
import multiprocessing
import os
import queue
import tempfile
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

MOST_RANKS = 4
_TIMEOUT = 90.0  # seconds until a job counts as hung


class Processes:
    """MOST_RANKS spawned processes. A job is a function by name, run by the first `ranks` of them as one group."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._tasks: list[Any] = []
        self._workers: list[Any] = []
        self._results: Any = None
        self._numbers = itertools.count()

    def run(self, job: Callable[..., Any], ranks: int, *args: Any) -> list[Any]:
        """What `job(rank, *args)` gives on each rank. AssertionError where one raises, TimeoutError for a hang."""
        if not self._workers:
            self._start()
        number = next(self._numbers)
        with tempfile.TemporaryDirectory() as folder:
            for rank in range(ranks):
                self._tasks[rank].put((number, job.__module__, job.__qualname__, ranks, folder, args))
            out: dict[int, Any] = {}
            while len(out) < ranks:
                try:
                    rank, of, fault, value = self._results.get(timeout=_TIMEOUT)
                except queue.Empty:
                    self.stop()
                    missing = sorted(set(range(ranks)) - set(out))
                    raise TimeoutError(f"ranks {missing} did not come back from {job.__qualname__}") from None
                if of != number:
                    continue
                if fault:
                    self.stop()  # the others wait for it
                    raise AssertionError(f"rank {rank}:\n{fault}")
                out[rank] = value
        return [out[rank] for rank in range(ranks)]

    def _start(self) -> None:
        self._results = self._context.Queue()
        for rank in range(MOST_RANKS):
            tasks = self._context.Queue()
            worker = self._context.Process(target=_work, args=(rank, tasks, self._results), daemon=True)
            worker.start()
            self._tasks.append(tasks)
            self._workers.append(worker)
        atexit.register(self.stop)

    def stop(self) -> None:
        """End all of them; the next job starts new ones."""
        for worker in self._workers:
            worker.kill()
            worker.join()
        self._workers, self._tasks = [], []


PROCESSES = Processes()


def _work(rank: int, tasks: Any, results: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    while True:
        number, module, name, ranks, folder, args = tasks.get()
        try:
            job = getattr(importlib.import_module(module), name)
            with _group(rank, ranks, Path(folder)):
                value = job(rank, *args)
            results.put((rank, number, "", value))
        except BaseException:  # noqa: BLE001 - it is raised again where the job was asked for
            results.put((rank, number, traceback.format_exc(), None))


@contextlib.contextmanager
def _group(rank: int, ranks: int, folder: Path) -> Iterator[None]:
    from torch import distributed

    distributed.init_process_group(
        "gloo",
        init_method=(folder / "meet").as_uri(),
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=_TIMEOUT - 30),
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
