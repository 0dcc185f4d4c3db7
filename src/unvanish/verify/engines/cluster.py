"""The process that speaks to Ray: it keeps the seats of the cluster busy, and tells the engine what comes of it."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray.exceptions import RayError

from unvanish.errors import UsageError
from unvanish.verify.engines import parcel
from unvanish.verify.engines.connect import connect, room
from unvanish.verify.engines.ray import ClusterJob, Connected, Drop, Dropped, Refused, Result
from unvanish.verify.engines.seat import Lacking, Place, Seat, check
from unvanish.verify.engines.watch import START_SECONDS
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

_ATTEMPTS = 2
_TICK = 0.1  # seconds between two looks at the engine
_ROOM_SECONDS = 300.0  # a cluster that has no room for so long will have none: it may be starting machines
_BAD_STARTS = 3  # in a row: it is not the machine
_CLOSE_SECONDS = 3.0


def main(descriptor: int) -> None:
    """Serve the engine at the other end of the socket until that closes it or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which ends us
    link: Connection[Any, Any] = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        job: ClusterJob = link.recv()
        try:
            connect(job)
            pool = _Pool(job, link)
        except UsageError as error:
            link.send(Refused(error.mistake, error.mend))
            return
        try:
            link.send(Connected(pool.count))
            while True:
                order = link.recv()
                if isinstance(order, Drop):  # what was to be dropped was done
                    link.send(Dropped())
                    continue
                try:
                    pool.run(order)
                except UsageError as error:
                    link.send(Refused(error.mistake, error.mend))
        finally:
            pool.close()
            ray.shutdown()


@dataclass(slots=True, kw_only=True, eq=False)
class _Seat:
    """A seat, what it is at, and since when. `index` None while it comes up or is idle."""

    actor: Any
    ref: Any
    host: str | None = None  # None: not yet up
    index: int | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> bool:
        return self.host is not None and self.ref is None


class _Pool:
    def __init__(self, job: ClusterJob, link: Connection[Any, Any]) -> None:
        """Look at what the cluster has.

        Raises:
            UsageError: no room for a single trial.
        """
        self._job, self._link = job, link
        rooms, share = room(job.threads)
        if not rooms:
            raise UsageError(
                f"no machine of the Ray cluster has {job.threads} CPUs",
                "ask for fewer threads, or add machines",
            )
        self.count = sum(rooms) if job.workers is None else min(job.workers, sum(rooms))
        options = {"num_cpus": job.threads, "num_gpus": share, "max_restarts": 0, "max_task_retries": 0}
        self._class = ray.remote(**options)(Seat)
        self._neighbours = min(self.count, max(rooms))
        self._seats: list[_Seat] = []
        self._bad_starts = 0

    def run(self, specs: Sequence[TrialSpec]) -> None:
        """Send a Result for each, or Dropped when the engine has enough.

        Raises:
            UsageError: it can't go on.
        """
        self._specs = specs
        self._queue = deque(range(len(specs)))
        self._lost: Counter[int] = Counter()
        self._digests: dict[Target, str | None] = {}
        self._parcels: dict[Target, Any] = {}
        self._idle_since = time.monotonic()
        try:
            while self._queue or any(seat.index is not None for seat in self._seats):
                self._fill()
                refs = {seat.ref: seat for seat in self._seats if seat.ref is not None}
                done, _ = ray.wait(list(refs), timeout=_TICK)
                for ref in done:
                    self._hear(refs[ref])
                self._look_at_the_clock()
                if self._link.poll():
                    self._link.recv()
                    self._drop()
                    self._link.send(Dropped())
                    return
        except BaseException:
            self._drop()
            raise

    def close(self) -> None:
        """End all seats: the idle ones may tidy up first."""
        idle = [seat.actor.close.remote() for seat in self._seats if seat.idle]
        if idle:
            with contextlib.suppress(RayError):
                ray.wait(idle, num_returns=len(idle), timeout=_CLOSE_SECONDS)
        for seat in list(self._seats):
            self._end(seat)

    # --- inside ---------------------------------------------------------------------------------------------

    def _busy(self) -> list[tuple[_Seat, int]]:
        """The seats that have a trial, and which."""
        return [(seat, seat.index) for seat in self._seats if seat.index is not None]

    def _fill(self) -> None:
        while len(self._seats) < min(self.count, len(self._queue) + len(self._busy())):
            job = self._job
            actor = self._class.remote(job.runner, job.threads, job.memory_bytes, self._neighbours, sys.path)
            self._seats.append(_Seat(actor=actor, ref=actor.place.remote()))
        for seat in self._seats:
            if self._queue and seat.idle:
                seat.since = time.monotonic()
                self._start(seat, self._queue.popleft())

    def _start(self, seat: _Seat, index: int, send: bool = False) -> None:
        seat.index = index
        spec = self._specs[index]
        target = spec.target
        if target not in self._digests:
            self._digests[target] = parcel.fingerprint(target)
        if send and target not in self._parcels:
            self._parcels[target] = ray.put(parcel.pack(target))
        folders = self._parcels[target] if send else None
        seat.ref = seat.actor.run.remote(spec, self._digests[target], folders)

    def _hear(self, seat: _Seat) -> None:
        try:
            message = ray.get(seat.ref)
        except RayError as error:
            self._lose(seat, _reason(error))
            return
        seat.ref = None
        if isinstance(message, Place):
            check(message)
            seat.host, self._bad_starts = message.host, 0
        elif seat.index is not None and isinstance(message, Lacking):
            self._start(seat, seat.index, send=True)
        elif seat.index is not None:
            index, seat.index = seat.index, None
            self._link.send(Result(index, message))

    def _lose(self, seat: _Seat, why: str) -> None:
        """A seat is gone; its trial goes to the front of the queue, once."""
        self._end(seat)
        if seat.index is None:
            self._bad_starts += 1
            if self._bad_starts >= _BAD_STARTS:
                raise UsageError(
                    f"no worker comes up on the Ray cluster: {why}",
                    "see whether `python -c 'import unvanish'` works on its machines",
                )
            return
        self._lost[seat.index] += 1
        if self._lost[seat.index] < _ATTEMPTS:
            self._queue.appendleft(seat.index)
        else:
            self._fail(seat, seat.index, f"its worker on the cluster was lost {_ATTEMPTS} times: {why}")

    def _fail(self, seat: _Seat, index: int, why: str) -> None:
        seconds = time.monotonic() - seat.since
        outcome = TrialOutcome(spec=self._specs[index], error=why, wall_seconds=seconds)
        self._link.send(Result(index, outcome))

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for seat, index in self._busy():
            # the trial's own limit is kept beside it; this one is for a machine that does not answer
            if now - seat.since > self._specs[index].seconds + 2 * START_SECONDS:
                self._end(seat)
                self._fail(seat, index, "its worker on the cluster does not answer any more and was ended")
        if any(seat.host is not None for seat in self._seats):
            self._idle_since = now
        elif now - self._idle_since > _ROOM_SECONDS:
            raise UsageError(
                f"the Ray cluster has had no room for a trial for {_ROOM_SECONDS:g} s",
                "see `ray status` for what takes its CPUs",
            )

    def _drop(self) -> None:
        for seat, _ in self._busy():
            self._end(seat)

    def _end(self, seat: _Seat) -> None:
        """End it at once, with all that runs below it: the supervisor sees its socket closed."""
        self._seats.remove(seat)
        with contextlib.suppress(Exception):
            ray.kill(seat.actor, no_restart=True)


def _reason(error: Exception) -> str:
    """The sentence of Ray's many that says what happened."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    telling = [
        line for line in lines if "because" in line or line.startswith(("ModuleNotFound", "ImportError"))
    ]
    return (telling or lines or [type(error).__name__])[-1].partition(". ")[0][:200]
