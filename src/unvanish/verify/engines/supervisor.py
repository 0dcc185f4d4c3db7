"""The process beside the trials: it starts them, keeps their limits, and leaves nothing of them behind.

Three processes serve one worker of an engine. The *supervisor* has imported the runner (and torch with it) and forks
a *trial process* for each trial: a trial begins in milliseconds, as if nothing had run before it, and whatever its
script does to its process (os._exit, a segmentation fault, threads, monkey patches, another working directory, its
own modules) is gone with it. The *reaper* waits for the supervisor, and ends what is left should that be killed.

Where forking is not safe (macOS' frameworks; threads that an import started; CUDA that an import touched), each trial
gets a fresh interpreter instead, which has to import torch first.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from unvanish.verify.engines import machine
from unvanish.verify.engines.trial_process import Done, Job, Runner, Unfit, failure, load, perform
from unvanish.verify.engines.watch import Dropped, Watch
from unvanish.verify.trial import TrialOutcome, TrialSpec

# how a fresh interpreter gets to `main` of a module here: the engine's sys.path is not its own
BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from unvanish.verify.engines.{} import main; main(int(sys.argv[1]))"
)
_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"


class Ready:
    """The runner is imported, as far as it can be; trials may come."""


def main(descriptor: int) -> NoReturn:
    """The reaper and, below it, the supervisor, which serves the engine at the other end of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which ends us
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # one who ignores it, as Ray's processes may, can't wait for children
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    machine.adopt_orphans()
    supervisor = os.fork()
    if supervisor:
        os.close(descriptor)
        _reap(supervisor)
    machine.adopt_orphans()  # not inherited
    _Supervisor(Connection(descriptor)).serve()
    os._exit(0)


def _reap(supervisor: int) -> NoReturn:
    """Wait for the supervisor, end what it left, and tell how it ended. SIGTERM kills it first."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(supervisor, signal.SIGKILL))
    _, status = os.waitpid(supervisor, 0)
    machine.end_children()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # by the same signal
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(abs(code))


class _Supervisor:
    def __init__(self, engine: Connection[Any, Any]) -> None:
        """`engine` sends a Job and then specs, or None for "drop it"; it hears Ready and then outcomes."""
        self._engine = engine
        self._job: Job
        self._run: Runner | None = None
        self._broken: Exception | None = None
        self._fork = False

    def serve(self) -> None:
        """Answer each spec with an outcome, until the engine closes the socket or is gone."""
        with contextlib.suppress(EOFError, ConnectionError):
            self._job = self._engine.recv()
            if self._job.fork:
                self._load()
            self._engine.send(Ready())
            while True:
                spec = self._engine.recv()
                if spec is not None:  # None: dropped, but it was done already
                    self._engine.send(self._outcome(spec))

    def _outcome(self, spec: TrialSpec) -> TrialOutcome | None:
        """The trial's; None: dropped."""
        if self._broken is not None:
            return failure(spec, self._broken, time.perf_counter())
        try:
            answer = self._trial(spec)
            if isinstance(answer, Unfit):
                self._fork = False
                answer = self._trial(spec)
        except Dropped:
            return None
        if isinstance(answer, TrialOutcome):
            return answer
        if isinstance(answer, Unfit):
            return failure(spec, RuntimeError("a fresh process says that it was forked"), time.perf_counter())
        if self._fork:
            self._keep(answer.imported)
        return answer.outcome

    def _trial(self, spec: TrialSpec) -> Done | Unfit | TrialOutcome:
        near, far = Pipe()
        output, sink = os.pipe()
        limit = self._job.memory_bytes if spec.memory_bytes is None else spec.memory_bytes
        try:
            process = os.fork()
            if not process:
                self._become(spec, far, sink, drop=(near.fileno(), output))
            far.close()
            os.close(sink)
            if not self._fork:
                near.send((self._job, spec))
            watch = Watch(spec=spec, process=process, link=near, output=output, memory_bytes=limit)
            return watch.to_the_end(self._engine)
        finally:
            near.close()
            os.close(output)

    def _become(
        self, spec: TrialSpec, link: Connection[Any, Any], sink: int, drop: Iterable[int]
    ) -> NoReturn:
        """In the forked process: be the trial. What goes wrong here must not go on as a second supervisor."""
        try:
            os.setsid()  # a group of its own, no terminal: what a script does to its group stays there
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            for descriptor in (*drop, sink, self._engine.fileno()):
                os.close(descriptor)
            if self._fork and self._run is not None:
                perform(link, self._run, spec, self._job.threads)
            os.set_inheritable(link.fileno(), True)
            boot = BOOT.format("trial_process")
            words = [sys.executable, "-c", boot, str(link.fileno()), *sys.path]
            os.execv(sys.executable, words)  # noqa: S606  # python itself
        except BaseException:  # noqa: BLE001  # the supervisor reads what is printed here
            traceback.print_exc()
        finally:
            os._exit(1)

    # --- what is there before a trial begins ----------------------------------------------------------------

    def _load(self) -> None:
        with _quiet_imports():
            try:
                self._run = load(self._job.runner)
                torch: Any = sys.modules.get("torch")
                if torch is not None:
                    torch.set_num_threads(1)  # threads would not be there in a fork
                    # the first optimizer of a process imports torch._dynamo: longer than torch itself takes
                    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
            except Exception as error:  # noqa: BLE001  # each trial will say so
                self._broken = error
        self._fork = _alone()

    def _keep(self, modules: Iterable[str]) -> None:
        """Import what the last trial had to import; the next ones will want it too."""
        new = [name for name in modules if name not in sys.modules]
        if not new:
            return
        with _quiet_imports():
            for name in new:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        self._fork = _alone()


@contextlib.contextmanager
def _quiet_imports() -> Iterator[None]:
    """Import into the supervisor. Is there a GPU? is asked without starting CUDA, which would not survive a fork."""
    before = os.environ.get(_NVML)
    os.environ[_NVML] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NVML]
        else:
            os.environ[_NVML] = before
    gc.collect()
    gc.freeze()  # memory that the collector leaves alone stays shared with the trials


def _alone() -> bool:
    """Whether this process has one thread: others, and the locks that they hold, would not be there in a fork."""
    tasks = Path("/proc/self/task")
    return not tasks.exists() or len(list(tasks.iterdir())) == 1
