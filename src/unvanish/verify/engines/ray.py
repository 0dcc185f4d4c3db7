"""Trials on a Ray cluster. Nothing of Ray is imported here.

Ray is spoken to by a process of its own (cluster.py), since in ours it would take over signals, write to stdout, and
end the process when the cluster is lost. Closing the socket between the two ends everything.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, TYPE_CHECKING, Any

from unvanish.errors import UsageError
from unvanish.verify.engines.local import check_numbers
from unvanish.verify.engines.supervisor import BOOT
from unvanish.verify.engines.trial_process import Runner
from unvanish.verify.engines.watch import last_words
from unvanish.verify.engines.worker import absolute, address_of, await_end
from unvanish.verify.trial import TrialOutcome, TrialSpec

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from 3.11 on

_CONNECT_SECONDS = 180.0
_DROP_SECONDS = 10.0
_END_SECONDS = 15.0
_LAST_BYTES = 4096
_KNOCK_SECONDS = 10.0
CORRECT = "correct RAY_ADDRESS, or unset it to use this machine alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """What the process that speaks to Ray has to know. `address` "local" starts a cluster for us alone."""

    address: str
    runner: str
    workers: int | None
    threads: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Connected:
    """The cluster is there, with room for so many trials at a time."""

    workers: int


@dataclass(frozen=True, slots=True)
class Refused:
    """It can't be done at all: an error's two halves."""

    mistake: str
    mend: str


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one of the specs that were ordered."""

    index: int
    outcome: TrialOutcome


class Drop:
    """End what was ordered."""


class Dropped:
    """No more results of it will come."""


class RayEngine:
    """Runs trials on a Ray cluster: the one named by `address` or RAY_ADDRESS, else one started here for the purpose.

    The same outcomes as LocalEngine's: each trial runs in processes below a Ray actor, with the same limits, threads
    and start. A trial whose worker or machine is lost is tried once more elsewhere; one that loses two counts as
    failed. Each takes `threads` of the cluster's CPUs and, where there are GPUs, the share of one that lets all CPUs
    be used.

    Machines need the same versions of Python, torch and unvanish. The script is taken where it lies, if it lies at
    the same path there; else its folder is sent, up to 64 MiB (parcel.py). Environment variables are those of the
    machine.
    """

    def __init__(
        self,
        workers: int | None,
        runner: Runner | str,
        *,
        threads: int = 1,
        memory_bytes: int | None = None,
        address: str | None = None,
    ) -> None:
        """As LocalEngine; `workers` None takes all that the cluster has room for.

        Raises:
            UsageError: Ray is not installed, the cluster can't be reached, or as LocalEngine.
        """
        if importlib.util.find_spec("ray") is None:
            raise UsageError(
                "the engine ray needs Ray, which is not installed", "pip install 'unvanish[ray]'"
            )
        check_numbers(1 if workers is None else workers, threads, memory_bytes)
        self._job = ClusterJob(
            address=address or os.environ.get("RAY_ADDRESS") or "local",
            runner=address_of(runner),
            workers=workers,
            threads=threads,
            memory_bytes=memory_bytes,
        )
        self._link: Connection[Any, Any] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._running = False
        self._count = 0
        self._connect()

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

        A cluster that is lost altogether makes failed outcomes of what was left.

        Raises:
            UsageError: machines with other versions, a script that can't be sent to them, no room on the cluster, or
                an earlier iterator of this engine that is not at its end.
        """
        if self._running:
            raise UsageError("this engine is running trials already", "close the other iterator first")
        self._running = True
        left = dict(enumerate(specs))
        try:
            link = self._link or self._connect()
            link.send([replace(spec, target=absolute(spec.target)) for spec in left.values()])
            while left:
                message = link.recv()
                if isinstance(message, Refused):
                    left.clear()
                    raise UsageError(message.mistake, message.mend)
                if isinstance(message, Result):
                    yield replace(message.outcome, spec=left.pop(message.index))
        except (EOFError, ConnectionError):
            why = f"the Ray cluster was lost ({self._last_words()})"
            self.close()
            yield from (TrialOutcome(spec=spec, error=why) for spec in left.values())
            left.clear()
        except KeyboardInterrupt:  # may have come in the middle of a message
            self.close()
            raise
        finally:
            self._running = False
            if left and self._link is not None:
                self._drop(self._link)

    def close(self) -> None:
        """End all that runs, and a cluster that was started here. `run` would connect again."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            await_end(self._process, _END_SECONDS)
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    # --- inside ---------------------------------------------------------------------------------------------

    def _connect(self) -> Connection[Any, Any]:
        _knock(self._job.address)
        near, far = Pipe()
        self._link, self._log = near, tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT.format("cluster"), str(far.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[far.fileno()],
                start_new_session=True,
            )
        try:
            near.send(self._job)
            answer = near.recv() if near.poll(_CONNECT_SECONDS) else None
        except (EOFError, ConnectionError):
            answer = None
        except BaseException:
            self.close()
            raise
        if isinstance(answer, Connected):
            self._count = answer.workers
            return near
        said = self._last_words()
        self.close()
        if isinstance(answer, Refused):
            raise UsageError(answer.mistake, answer.mend)
        raise UsageError(
            f"Ray at {self._job.address} did not start ({said})", "see whether `ray status` answers"
        )

    def _drop(self, link: Connection[Any, Any]) -> None:
        until = time.monotonic() + _DROP_SECONDS
        try:
            link.send(Drop())
            while link.poll(max(0.0, until - time.monotonic())):
                if isinstance(link.recv(), Dropped):
                    return
        except (EOFError, ConnectionError):
            pass
        self.close()  # it does not answer

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LAST_BYTES))
        return last_words(self._log.read()) or "it said nothing"


def _knock(address: str) -> None:
    """Whether anyone is there at all: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a form that Ray will know
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"there is no Ray cluster at {address}: {error}", CORRECT) from None
