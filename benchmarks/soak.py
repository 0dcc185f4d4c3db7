"""Does a long training stand being watched? A tiny net for 100,000 steps, faults at random, beside itself unwatched.

Injected, by a seed: exceptions in the probe's functions, batches with NaN, writes that fail, writes that take their
time, threads that die, Ctrl-C in the middle of a trace (the loop makes the step again, as a notebook's user would).
Shown: memory after a warm-up (resident, blocks of python's allocator, objects) with the slope per step of its floor,
whether weights and random state are those of the unwatched training, what the run holds, and how often the
user was told. The floor, for what waits for the disk comes and goes.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import random
import re
import sqlite3
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

import unvanish
from unvanish import session
from unvanish.errors import UnvanishWarning
from unvanish.probe import engine  # noqa: F401 - so that its functions can be found
from unvanish.schema.run import DROPPED, Run

WARM_UP = 0.3  # of the steps: until then caches, rings and the allocator fill
NAN_EVERY = 500  # steps
TRACE_EVERY = 50
DIGESTS = 50  # times that the two trainings are compared on the way
SAMPLES = 800  # times that memory is looked at

# per call; the places are called at every step, at every traced one, for every operation, or four times a second
EXCEPTIONS = {
    "unvanish.probe.parameters.ParameterRing.look_before": 1e-3,
    "unvanish.probe.parameters.ParameterRing.look_gradients": 1e-3,
    "unvanish.probe.parameters.ParameterRing.look_after": 1e-3,
    "unvanish.probe.parameters.ParameterRing.reduce": 2e-2,
    "unvanish.probe.models.Watched.consider": 1e-3,
    "unvanish.probe.seams.LossScale.of": 1e-3,
    "unvanish.probe.backward.explore": 2e-2,
    "unvanish.probe.engine.site": 2e-2,
    "unvanish.probe.backward.take": 2e-3,
    "unvanish.probe.forward.take": 2e-3,
    "unvanish.probe.forward.ForwardWatch.enter": 2e-3,
    "unvanish.probe.sites.stats_of": 2e-2,
    "unvanish.probe.parameters.quantiles": 2e-2,
    "unvanish.probe.steps.StepLog._pack": 2e-2,
}
INTERRUPTS = {
    "unvanish.probe.backward.explore": 1e-2,
    "unvanish.probe.forward.take": 1e-3,
    "unvanish.probe.backward.take": 1e-3,
}
WRITE_FAILS, WRITE_IS_SLOW, SLOW_SECONDS, MOST_DEATHS = 0.05, 0.03, 0.7, 2
PARTS = 8  # of the samples of memory
WRITE = "unvanish.store.write.RunWriter.write"


# --- faults -------------------------------------------------------------------------------------------------


@dataclass
class Faults:
    """Raises at random, and counts what it raised."""

    rng: random.Random
    raised: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def injected(self) -> Iterator[None]:
        """While this lasts, in the whole process."""
        with ExitStack() as stack:
            for place in dict.fromkeys([*EXCEPTIONS, *INTERRUPTS]):
                stack.enter_context(mock.patch(place, self._sometimes(place, _resolve(place))))
            stack.enter_context(mock.patch(WRITE, self._writes(_resolve(WRITE))))
            yield

    def _sometimes(self, place: str, original: Callable[..., Any]) -> Callable[..., Any]:
        fails, interrupts = EXCEPTIONS.get(place, 0.0), INTERRUPTS.get(place, 0.0)
        kinds = (ZeroDivisionError, MemoryError, RuntimeError)

        def function(*args: Any, **kwargs: Any) -> Any:
            drawn = self.rng.random()
            if drawn < fails:
                self.raised["exceptions"] += 1
                raise kinds[self.raised["exceptions"] % len(kinds)]("injected")
            if drawn < fails + interrupts:
                self.raised["interrupts"] += 1
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return function

    def _writes(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            drawn = self.rng.random()
            if drawn < WRITE_FAILS:
                self.raised["writes that failed"] += 1
                raise sqlite3.OperationalError("injected: database or disk is full")
            if drawn < WRITE_FAILS + WRITE_IS_SLOW:
                self.raised["slow writes"] += 1
                time.sleep(SLOW_SECONDS)
            elif drawn > 0.99 and self.raised["threads that died"] < MOST_DEATHS:
                self.raised["threads that died"] += 1
                raise SystemExit("injected")
            return original(*args, **kwargs)

        return write


def _resolve(place: str) -> Any:
    parts = place.split(".")
    for size in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:size]))
        if module is not None:
            found: Any = module
            for part in parts[size:]:
                found = getattr(found, part)
            return found
    raise LookupError(place)


# --- the training -------------------------------------------------------------------------------------------


class Training:
    """A net with dropout, Adam behind a gradient scaler, clipping; every so often a batch with NaN in it."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Dropout(0.1), nn.Linear(12, 3))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=NAN_EVERY - 50)
        self.interrupted = 0

    def step(self, number: int) -> None:
        """One step, made again where Ctrl-C ended it."""
        before = torch.get_rng_state()
        while True:
            try:
                self._gradients(number)
                break
            except KeyboardInterrupt:
                self.interrupted += 1
                torch.set_rng_state(before)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _gradients(self, number: int) -> None:
        x, y = torch.randn(8, 6), torch.randint(3, (8,))
        if number % NAN_EVERY == NAN_EVERY - 1:
            x[0, 0] = float("nan")
        self.optimizer.zero_grad()
        self.scaler.scale(F.cross_entropy(self.model(x), y)).backward()

    @property
    def made(self) -> int:
        """Optimizer steps that the scaler did not leave out."""
        return int(next(iter(self.optimizer.state.values()))["step"])

    def digest(self) -> str:
        """Of the weights, Adam's memory and the random state."""
        hashed = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
        for parameter in self.model.parameters():
            for tensor in (parameter, *self.optimizer.state[parameter].values()):
                hashed.update(tensor.detach().numpy().tobytes())
        return hashed.hexdigest()


# --- memory -------------------------------------------------------------------------------------------------


class Memory:
    """Samples along the way. They lie in an array made beforehand: what is looked at must not grow by the looking."""

    def __init__(self, most: int) -> None:
        """`most`: samples."""
        self._samples = np.zeros((most, 4))
        self._count = 0

    def sample(self, step: int) -> None:
        """Now."""
        gc.collect()
        objects = len(gc.get_objects())
        self._samples[self._count] = (step, _resident(), sys.getallocatedblocks(), objects)
        self._count += 1

    def slope(self, column: int) -> float:
        """Of python's blocks (2) or its objects (3), per step."""
        return slope(self._samples[: self._count, [0, column]])

    @property
    def leak(self) -> float:
        """Of the resident bytes, per step."""
        return steady_slope(self._samples[: self._count, [0, 1]])

    @property
    def growth(self) -> float:
        """Resident bytes, from the first sample to the last."""
        return float(self._samples[self._count - 1, 1] - self._samples[0, 1])


def _resident() -> int:
    """Bytes of this process that are in memory."""
    fields = Path("/proc/self/statm").read_text().split()  # Linux
    return int(fields[1]) * 4096


def slope(samples: NDArray[np.float64]) -> float:
    """How fast the floor of rows (step, value) rises, per step: the least of the second half against the first's.

    Over the distance of the halves: a leak has its least values where they begin. Where there is none, the two may
    lie side by side, and what comes and goes between them is no slope.
    """
    half = len(samples) // 2
    rise = samples[half:, 1].min() - samples[:half, 1].min()
    return float(rise / (samples[half, 0] - samples[0, 0]))


def steady_slope(samples: NDArray[np.float64]) -> float:
    """How fast rows (step, value) rise all the time, per step: the lower quartile over PARTS stretches, by floors.

    What waits for a slow disk (buffer.RETRY_BYTES and more) leaves its mark on a process: it is not given back to the
    system. That is a jump now and then, where a leak goes on in every stretch.
    """
    parts = [part[part[:, 1].argmin()] for part in np.array_split(samples, PARTS)]
    rises = np.diff(np.array(parts), axis=0)
    return float(np.quantile(rises[:, 1] / rises[:, 0], 0.25))


# --- the soak -----------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What was seen."""

    steps: int
    seconds_unwatched: float
    seconds_watched: float
    identical: bool
    differs_from: int | None  # the first comparison that failed
    resident_slope: float  # bytes a step that it rises steadily, after the warm-up
    resident_growth: float  # bytes, from the warm-up to the end
    blocks_slope: float  # a step that python's allocator holds, of up to 512 bytes each
    objects_slope: float  # objects a step
    injected: dict[str, int]
    told: int
    incidents: int  # that the run keeps
    counted: int  # faults that they stand for
    recorded: int
    given_up: int
    traces: int
    record_bytes: int
    threads_left: int

    def wrong(self) -> list[str]:
        """What must not be."""
        checks = {
            "the weights or the random state differ from the unwatched training's": self.identical,
            "resident memory grows": self.resident_slope < 40 or self.resident_growth < 3 * 2**20,
            "python's memory grows": self.blocks_slope < 0.02,
            "objects pile up": self.objects_slope < 0.01,
            "the user was not told once": self.told == 1,
            "incidents pile up": self.incidents <= 60,
            "faults are not accounted for": self.counted >= self.injected["exceptions"],
            "steps are neither recorded nor counted as given up": self.recorded + self.given_up >= self.steps,
            "hardly anything was recorded": self.recorded > 0.5 * self.steps and self.traces > 3,
            "the record is too large": self.record_bytes < 200 * self.steps + 2**22,
            "a thread is left": self.threads_left == 0,
        }
        return [what for what, well in checks.items() if not well]


def soak(steps: int, seed: int, out: Path) -> Report:
    """Train unwatched, then watched."""
    every, look = max(1, steps // DIGESTS), max(1, steps // SAMPLES)
    plain, began = Training(seed), time.perf_counter()
    digests = []
    for number in range(steps):
        plain.step(number)
        if number % every == every - 1:
            digests.append(plain.digest())
    unwatched = time.perf_counter() - began

    gc.collect()
    gc.freeze()  # what is there already need not be looked at at each sample
    training, memory, faults = Training(seed), Memory(steps // look + 2), Faults(random.Random(seed))
    began, differs = time.perf_counter(), None
    with warnings.catch_warnings(record=True) as caught, faults.injected():
        warnings.simplefilter("always", UnvanishWarning)
        w = unvanish.watch(training.model, training.optimizer, out=out, every=TRACE_EVERY)
        for number in range(steps):
            training.step(number)
            if (
                differs is None
                and number % every == every - 1
                and training.digest() != digests[number // every]
            ):
                differs = number
            if number >= WARM_UP * steps and number % look == 0:
                memory.sample(number)
        w.close()
    gc.unfreeze()
    watched = time.perf_counter() - began
    return _report(
        w.run(),
        Path(w.path),
        training.made,
        faults,
        memory,
        differs,
        (unwatched, watched),
        len(_ours(caught)),
    )


def _ours(caught: list[warnings.WarningMessage]) -> list[warnings.WarningMessage]:
    return [c for c in caught if issubclass(c.category, UnvanishWarning)]


def _report(
    run: Run, path: Path, made: int, faults: Faults, memory: Memory, differs: int | None,
    seconds: tuple[float, float], told: int,
) -> Report:  # fmt: skip
    (model,) = run.models
    session.diagnose(run)
    return Report(
        steps=made,
        seconds_unwatched=seconds[0],
        seconds_watched=seconds[1],
        identical=differs is None,
        differs_from=differs,
        resident_slope=memory.leak,
        resident_growth=memory.growth,
        blocks_slope=memory.slope(2),
        objects_slope=memory.slope(3),
        injected=dict(faults.raised),
        told=told,
        incidents=len(run.incidents),
        counted=sum(_times(i.what) for i in run.incidents),
        recorded=len(model.steps),
        given_up=_given_up(run),
        traces=len(model.traces),
        record_bytes=sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
        threads_left=sum(t.name.startswith("unvanish") for t in threading.enumerate()),
    )


def _times(what: str) -> int:
    """How many faults an incident stands for: the first of its kind, or those that came after it."""
    found = re.search(r": (once|[0-9,]+ times) more", what)
    if found is None:
        return 1
    return 1 if found[1] == "once" else int(found[1].split()[0].replace(",", ""))


def _given_up(run: Run) -> int:
    said = next((s.why for s in run.skipped if s.what == DROPPED), "")
    found = re.search(r"([0-9,]+) steps", said)
    return int(found[1].replace(",", "")) if found else 0


def text(report: Report) -> str:
    """For people."""
    injected = ", ".join(f"{count:,} {what}" for what, count in sorted(report.injected.items()))
    same = "bit for bit those" if report.identical else f"NOT those (from step {report.differs_from})"
    r = report
    lines = [
        f"{r.steps:,} steps: {r.seconds_unwatched:.0f} s unwatched, {r.seconds_watched:.0f} s watched",
        f"injected         {injected}",
        f"weights, RNG     {same} of the unwatched training",
        f"resident memory  {r.resident_slope:+.2f} bytes a step; {r.resident_growth / 1024:+,.0f} KiB in all",
        f"python's memory  {r.blocks_slope:+.4f} blocks a step",
        f"objects          {r.objects_slope:+.5f} a step",
        f"told             {r.told} time(s); {r.incidents} incidents kept, for {r.counted:,} faults",
        f"recorded         {r.recorded:,} steps; {r.given_up:,} given up and counted; {r.traces:,} traces",
        f"size on disk     {r.record_bytes / 2**20:.1f} MiB",
    ]
    return "\n".join([*lines, *(f"WRONG: {what}" for what in report.wrong())])


def main() -> int:
    """Print the report; 1 where something in it must not be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the run here (default: a folder that is deleted)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = soak(options.steps, options.seed, options.out or Path(folder))
    print(text(report))
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(report) | {"wrong": report.wrong()}, indent=2) + "\n")
    return 1 if report.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
