"""What does a run of 1,000 layers x 1,000,000 steps cost on disk, to write and to read?

    python benchmarks/record_scale.py [--steps 1000000] [--part all|whole|paced|narrow]

Every figure comes out of the store's own RunWriter, fed with events as the probe hands them over (blocks of
steps, a trace and snapshots when the schedule asks for them). 1,000 layers are 2,000 parameters, 3,000 operations.

whole   every step measured, 2,000 parameters, as far as a tenth of the steps: 72 kB of numbers a step
paced   all steps, 2,000 parameters, measured at every 64th step, which is the least that the probe ever does
narrow  all steps, all of them measured, 20 parameters and limits of a hundredth: row for row the same rungs as
        2,000 parameters have, so that its statistics times 100 are theirs. The rest of the sum is that of `paced`.

In each, one-step spikes and onsets are put in and looked for. Figures of 2 cores stand in docs/run-record.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import shutil
import sqlite3
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unvanish.probe.schedule import SNAPSHOT_DENSE, SNAPSHOT_RATIO, TRACE_RATIO, Schedule
from unvanish.schema.graph import EXPONENT_BINS, Graph, Operation, OperationStats, Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    BlockEvent,
    Event,
    GraphEvent,
    ModelEvent,
    ModelInfo,
    ModelRun,
    ParameterInfo,
    RunInfo,
    Snapshot,
    TraceEvent,
)
from unvanish.store import RunWriter, read_run
from unvanish.store.ladder import Limits

LAYERS = 1000
STEPS_A_WRITE = 16  # of 20 ms each: the recorder writes about three times a second
WINDOW = 50
OVERVIEW = 200  # rows
POOL = 256  # tables of statistics that are made once and used again
SPIKE, LOSS_SPIKE = 1e6, 1e3
SHARE = PARAMETER_STATISTICS.index("gradient_nonfinite")
ABSMAX = PARAMETER_STATISTICS.index("gradient_absmax")


@dataclass(frozen=True)
class Plan:
    """One run to be written."""

    parameters: int
    steps: int
    every: int  # steps from one that is measured to the next
    limits: Limits
    traced: bool

    @property
    def spikes(self) -> list[int]:
        """Early, in the middle and late: steps with one gradient, and a loss, far above all others."""
        return [self.every * (at // self.every) for at in (self.steps // 50, self.steps // 2, self.steps - 9)]

    @property
    def onset(self) -> int:
        """From here on a tenth of one gradient is NaN."""
        return self.every * (self.steps * 2 // 3 // self.every)


class Stream:
    """The events of a run, write by write."""

    def __init__(self, plan: Plan) -> None:
        rng = np.random.default_rng(0)
        self.plan = plan
        shape = (POOL, len(PARAMETER_STATISTICS), plan.parameters)
        self.pool: NDArray[np.float32] = np.exp(rng.normal(size=shape)).astype(np.float32)
        self.pool[:, SHARE] = 0.0
        self.losses = 2 + rng.random(POOL)
        self.graph = Graph(key="g", operations=tuple(_operations(plan.parameters)))
        self.stats = tuple(_operation_stats(o.index) for o in self.graph.operations)
        self.traces = Schedule(ratio=TRACE_RATIO)
        self.shots = Schedule(ratio=SNAPSHOT_RATIO, dense=SNAPSHOT_DENSE)

    def begin(self) -> list[Event]:
        """What comes before the first step."""
        parameters = tuple(
            ParameterInfo(
                index=i,
                name=f"blocks.{i // 2}.linear.{'weight' if i % 2 == 0 else 'bias'}",
                shape=(256, 256) if i % 2 == 0 else (256,),
                dtype="float32",
                requires_grad=True,
                optimizer=0,
                sampled=64,
            )
            for i in range(self.plan.parameters)
        )
        info = ModelInfo(index=0, name="net", class_name="Net", parameters=parameters, optimizers=())
        return [ModelEvent(info=info), GraphEvent(model=0, graph=self.graph)]

    def writes(self) -> Iterator[tuple[int, list[Event]]]:
        """(steps so far, events of one write)."""
        for first in range(0, self.plan.steps, STEPS_A_WRITE):
            last = min(first + STEPS_A_WRITE, self.plan.steps)
            events: list[Event] = [self.block(first, last)]
            for step in range(first, last) if self.plan.traced else ():
                if self.traces.due(step):
                    self.traces.done(step)
                    events.append(TraceEvent(trace=self.trace(step)))
                if step % self.plan.every == 0 and self.shots.due(step):
                    self.shots.done(step)
                    events += self._snapshots(step)
            yield last, events

    def block(self, first: int, last: int) -> BlockEvent:
        """Steps `first` up to before `last`."""
        plan = self.plan
        steps = np.arange(first, last)
        measured = steps[steps % plan.every == 0]
        stats = self.pool[measured % POOL]
        losses = self.losses[steps % POOL]
        losses[np.isin(steps, plan.spikes)] = LOSS_SPIKE
        stats[np.isin(measured, plan.spikes), ABSMAX, plan.parameters // 2] = SPIKE
        stats[measured >= plan.onset, SHARE, plan.parameters // 3] = 0.1
        return BlockEvent(
            model=0,
            steps=array("q", steps.tobytes()),
            seconds=array("d", (steps * 0.02).tobytes()),
            losses=array("d", losses.tobytes()),
            clips=array("d", np.ones(len(steps)).tobytes()),
            learning_rates=array("d", np.full(len(steps), 1e-3).tobytes()),
            measured=array("q", measured.tobytes()),
            stats=array("f", stats.tobytes()),
        )

    def trace(self, step: int) -> Trace:
        """The trace of one step."""
        return Trace(model=0, step=step, backward=0, graph="g", loss=2.0, stats=self.stats, output=0)

    def _snapshots(self, step: int) -> list[Snapshot]:
        levels = (-2.0, -1.6, -0.7, 0.0, 0.7, 1.6, 2.0)
        return [
            Snapshot(model=0, step=step, parameter=i, norm=16.0, quantiles=levels)
            for i in range(self.plan.parameters)
        ]


def _operations(parameters: int) -> Iterator[Operation]:
    """Three operations a layer: a linear one, a norm, an activation."""
    kinds = (("Addmm", "weight"), ("NativeLayerNorm", "norm"), ("Sigmoid", "activation"))
    for index in range(3 * parameters // 2):
        name, kind = kinds[index % 3]
        layer = f"blocks.{index // 3}"
        yield Operation(
            index=index,
            name=name,
            kind=kind,  # type: ignore[arg-type]
            module=layer,
            module_class="Block",
            call=0,
            parents=(index - 1,) if index else (),
            parameters=(f"{layer}.linear.weight", f"{layer}.linear.bias") if index % 3 == 0 else (),
        )


def _operation_stats(index: int) -> OperationStats:
    rng = random.Random(index)
    counts = tuple(rng.randrange(400) if 40 < b < 52 else 0 for b in range(EXPONENT_BINS))
    return OperationStats(
        operation=index,
        count=65_536,
        norm=rng.random(),
        absmax=rng.random(),
        zeros=0,
        nonfinite=0,
        edge_norms=(rng.random(),) if index else (),
        parameter_norms=(rng.random(), rng.random()) if index % 3 == 0 else (),
        output_count=65_536,
        output_std=rng.random(),
        output_rms=rng.random(),
        units=256 if index % 3 == 2 else None,
        closed_units=0 if index % 3 == 2 else None,
        output_mean=rng.random(),
        unit_bits="0" * 128 if index % 3 == 2 else "",
        total=rng.random(),
        sampled=4096,
        exponents=counts,
    )


def write(plan: Plan, folder: Path) -> None:
    """Write it, and say how long it took and how large it is at powers of ten."""
    info = RunInfo(
        id="scale", created="", command=(), script=None, seed=None, versions={}, device="cpu", pid=os.getpid()
    )
    stream = Stream(plan)
    writer = RunWriter(folder, info, limits=plan.limits)
    writer.write(stream.begin())
    taken: list[float] = []
    cpu, peak, marks = 0.0, 0.0, {10**k for k in range(3, 8)}
    for done, events in stream.writes():
        before, before_cpu = time.perf_counter(), time.thread_time()
        writer.write(events)
        taken.append(time.perf_counter() - before)
        cpu += time.thread_time() - before_cpu
        if done % 1000 < STEPS_A_WRITE:
            peak = max(peak, size(folder))
        passed = {m for m in marks if m <= done}
        marks -= passed
        for mark in passed or ([plan.steps] if done == plan.steps else []):
            p50, p95, worst = (1e3 * float(v) for v in np.quantile(taken, [0.5, 0.95, 1.0]))
            print(
                f"  {mark:9,} steps {size(folder):7.1f} MB (most so far {peak:.1f}); "
                f"us a step {1e6 * sum(taken) / done:.0f}, of a core {1e6 * cpu / done:.0f}; "
                f"ms a write p50 {p50:.1f}, p95 {p95:.1f}, most {worst:.0f}",
                flush=True,
            )
    writer.close("finished")
    print(f"  closed: {size(folder):.1f} MB in {len(list(folder.iterdir()))} file")


def size(folder: Path) -> float:
    """MB on disk, with what is not yet folded into the file."""
    return sum(p.stat().st_size for p in folder.iterdir()) / 1e6


def timed(action: Callable[[], object], times: int) -> tuple[float, float]:
    """(p50, p95) in ms."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken), float(np.quantile(taken, 0.95))


def read(plan: Plan, folder: Path) -> None:
    """Windows at both ends and in the middle, then all of it; what was put in is looked for."""
    rng = random.Random(0)
    inner = plan.steps - WINDOW
    for name, low, high in (
        ("the first", 0, 0),
        ("early", 0, inner // 100),
        ("in the middle", inner * 2 // 5, inner * 3 // 5),
        ("late", inner - inner // 1000, inner),
        ("the last", inner, inner),
    ):
        said = []
        for detail in (False, True):

            def window(low: int = low, high: int = high, *, detail: bool = detail) -> None:
                first = rng.randint(low, high)
                read_run(folder, steps=(first, first + WINDOW - 1), detail=detail)

            window()
            said.append("p50 {:.0f} ms, p95 {:.0f} ms".format(*timed(window, 20)))
        print(f"  {WINDOW} steps, {name:13}: {said[0]}; with graph, traces and snapshots {said[1]}")
    start = time.perf_counter()
    short = read_run(folder, rows=OVERVIEW, detail=False).models[0]
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"  an overview of {len(short.parameter_steps)} rows: {took:.1f} s, {peak:.0f} MB of memory at most so far"
    )
    del short
    start = time.perf_counter()
    model = read_run(folder).models[0]
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"  all of it: {took:.1f} s, {peak:.0f} MB of memory at most; {len(model.steps):,} steps, "
        f"{len(model.parameter_steps):,} rows of statistics, {len(model.traces)} traces, "
        f"{len({s.step for s in model.snapshots})} steps with snapshots"
    )
    look_for(plan, model)


def look_for(plan: Plan, model: ModelRun) -> None:
    """Find what was put in again, and say how exactly."""
    until = model.parameter_until or model.parameter_steps
    rows = list(zip(model.parameter_steps, until, strict=True))
    extremes = {name: model.parameter_extremes.get(name, (plane, plane)) for name, plane in (
        (n, model.parameter_stats[n]) for n in PARAMETER_STATISTICS
    )}  # fmt: skip
    largest = np.frombuffer(extremes["gradient_absmax"][1]).reshape(len(rows), -1)
    share = np.frombuffer(extremes["gradient_nonfinite"][1]).reshape(len(rows), -1)
    found = [rows[i] for i in np.flatnonzero(largest[:, plan.parameters // 2] == np.float32(SPIKE))]
    assert len(found) == 3
    for step, (low, high) in zip(plan.spikes, found, strict=True):
        assert low <= step <= high
        print(f"  a spike at step {step:,} is in the row of steps {low:,} to {high:,}")
    low, high = rows[int(np.flatnonzero(share[:, plan.parameters // 3])[0])]
    assert low <= plan.onset <= high
    print(f"  an onset at step {plan.onset:,} begins in the row of steps {low:,} to {high:,}")
    losses = np.frombuffer(model.losses)
    assert [model.steps[i] for i in np.flatnonzero(losses == LOSS_SPIKE)] == plan.spikes
    whole = [low == high for low, high in rows]
    head = next((i for i, one in enumerate(whole) if not one), len(rows))
    tail = next((i for i, one in enumerate(reversed(whole)) if not one), len(rows))
    print(f"  spikes of the loss: to the step; whole rows: the first {head} and the last {tail}")


def bytes_of(folder: Path) -> dict[str, float]:
    """MB of the statistics' blocks, and of all the rest."""
    record = sqlite3.connect(folder / "run.sqlite")
    names = ("steps", "until", "counts", "mean", "smallest", "largest")
    parts = " + ".join(f"coalesce(length({name}), 0)" for name in names)
    (stats,) = record.execute(f"SELECT sum({parts}) / 1e6 FROM stat_blocks").fetchone()  # noqa: S608 - ours
    record.close()
    return {"statistics": stats, "rest": size(folder) - stats}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--part", choices=("all", "whole", "paced", "narrow"), default="all")
    options = parser.parse_args()
    full, share = Limits(), 100
    narrow = Limits(
        recent_bytes=full.recent_bytes // share,
        level_bytes=full.level_bytes // share,
        stat_head=full.stat_head,
    )
    wide = 2 * LAYERS
    plans = {
        "whole": Plan(wide, options.steps // 10, 1, full, traced=True),
        "paced": Plan(wide, options.steps, 64, full, traced=True),
        "narrow": Plan(wide // share, options.steps, 1, narrow, traced=False),
    }
    print(f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, {STEPS_A_WRITE} steps a write")
    sizes = {}
    for name, plan in plans.items():
        if options.part not in ("all", name):
            continue
        print(f"{name}: {plan.parameters:,} parameters, {plan.steps:,} steps, every {plan.every} measured")
        folder = Path(tempfile.mkdtemp(prefix="unvanish-scale-"))
        try:
            write(plan, folder / "run")
            sizes[name] = bytes_of(folder / "run")
            print("  " + ", ".join(f"{part} {mb:.1f} MB" for part, mb in sizes[name].items()))
            read(plan, folder / "run")
        finally:
            shutil.rmtree(folder)
    if options.part == "all":
        stats, rest = share * sizes["narrow"]["statistics"], sizes["paced"]["rest"]
        print(
            f"{wide:,} parameters x {options.steps:,} steps, all measured: {share} x the statistics of narrow"
        )
        print(f"  {stats:.0f} MB + the rest of paced {rest:.0f} MB = {stats + rest:.0f} MB")


if __name__ == "__main__":
    main()
