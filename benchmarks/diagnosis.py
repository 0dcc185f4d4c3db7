"""How long does the diagnosis of a run of 1,000 layers x 10,000 steps take, and how much memory?

    python benchmarks/diagnosis.py [--steps 10000] [--repeats 5] [--write docs/performance.md]

Each run is written by the store's own RunWriter, fed with events as the probe hands them over: every step measured
(2,000 parameters, the most that there can be to read), traces of 3,000 operations and snapshots when the default
schedule asks for them. Then fresh processes open the record and diagnose it. Rules stop early on a net that learns,
so there are three: one that learns, one whose signal vanishes, one that is stuck, which all rules look at.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from record_scale import LAYERS, Plan, Stream, size
from tables import put_between, table

import unvanish
from unvanish.schema.architecture import LayerSpec
from unvanish.schema.graph import OperationStats, Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    ArchitectureEvent,
    BlockEvent,
    Event,
    ModelEvent,
    RunInfo,
)
from unvanish.store import RunWriter
from unvanish.store.ladder import Limits

MARKS = ("<!-- diagnosis: begin (written by benchmarks/diagnosis.py) -->", "<!-- diagnosis: end -->")
CHANCE = 2.3026  # ten classes
STEP_SIZE = 1e-3  # |dw| / |w|
LOOK = """
import json, resource, sys, time
began = time.perf_counter()
from unvanish import session
ready = time.perf_counter()
run = session.load(sys.argv[1])
opened = time.perf_counter()
diagnosis = session.diagnose(run)
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = [(f.kind, f.cause) for m in diagnosis.models for f in m.findings]
broken = [s.why for m in diagnosis.models for s in m.skipped if s.why.startswith("the rule failed")]
print(json.dumps({"imports": ready - began, "open": opened - ready, "diagnose": done - opened,
                  "peak": peak / (2**20 if sys.platform == "darwin" else 2**10), "found": found, "broken": broken,
                  "verdict": diagnosis.models[0].verdict, "torch": "torch" in sys.modules}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """One run to be diagnosed, and what is to be found.

    Its loss begins at `level` times chance and falls by the share `fall`; `lost`: decades of signal, over the depth.
    """

    title: str
    level: float
    fall: float
    lost: float
    found: list[list[str]]


NETS = {
    "learns": Net(title="learns", level=1.0, fall=0.9, lost=0.5, found=[]),
    "vanishing": Net(
        title="its signal vanishes",
        level=1.0,
        fall=0.0,
        lost=30.0,
        found=[["vanishing_gradients", "too_deep"]],
    ),
    "stuck": Net(
        title="stuck, for no reason that is known",
        level=1.4,
        fall=0.0,
        lost=0.5,
        found=[["plateau", "unknown"]],
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Medians over the processes: seconds to open and to diagnose, MiB at most, seconds and MiB of the imports."""

    net: Net
    record: float  # MB on disk
    opened: float
    diagnosed: float
    whole: float  # seconds of the process, its start and its imports included
    peak: float


class Training(Stream):
    """The events of one training whose numbers are those of a net, instead of arbitrary ones."""

    def __init__(self, plan: Plan, net: Net) -> None:
        super().__init__(plan)
        self.net = net
        rng = np.random.default_rng(1)
        shape = (len(self.pool), plan.parameters)
        values = {
            "gradient_rms": 1e-3 * np.exp(0.3 * rng.normal(size=shape)),
            "gradient_absmax": 4e-3 * np.exp(0.3 * rng.normal(size=shape)),
            "gradient_zeros": np.zeros(shape),
            "gradient_nonfinite": np.zeros(shape),
            "weight_rms": 0.06 * np.exp(0.1 * rng.normal(size=shape)),
            "update_rms": 0.06 * STEP_SIZE * np.exp(0.3 * rng.normal(size=shape)),
            "update_changed": np.ones(shape),
            # in all, ten times the loss: the steps should have brought it down
            "first_order": 10 * CHANCE / plan.steps / plan.parameters * np.exp(rng.normal(size=shape)),
            "adam_suppression": np.full(shape, np.nan),
        }
        self.pool[:] = np.stack([values[name] for name in PARAMETER_STATISTICS], axis=1)
        self.noise = 0.02 * CHANCE * rng.normal(size=len(self.pool))

    def begin(self) -> list[Event]:
        """As the store's own benchmark, with what is known of the layers."""
        model, graph = super().begin()
        assert isinstance(model, ModelEvent)
        parameters = tuple(replace(p, optimizer=0) for p in model.info.parameters)
        layers = tuple(
            LayerSpec(
                name=f"blocks.{i}.linear", fan_in=256, fan_out=256, weight_variance=1.0, bias_variance=0.0,
                norm="layer", activation="sigmoid", input_second_moment=1.0, input_variety=0.5, input_disparity=0.3,
                unit_variety=0.99,
            )
            for i in range(LAYERS)
        )  # fmt: skip
        event = ModelEvent(info=replace(model.info, parameters=parameters))
        return [event, graph, ArchitectureEvent(model=0, layers=layers)]

    def loss(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """About `chance`, or on its way down from there."""
        level = CHANCE * self.net.level * (1 - self.net.fall * (1 - np.exp(-4 * steps / self.plan.steps)))
        return np.asarray(level + self.noise[steps % len(self.noise)])

    def block(self, first: int, last: int) -> BlockEvent:
        """Steps `first` up to before `last`."""
        steps = np.arange(first, last)
        return replace(super().block(first, last), losses=array("d", self.loss(steps).tobytes()),
                       stats=array("f", self.pool[steps % len(self.pool)].tobytes()))  # fmt: skip

    def trace(self, step: int) -> Trace:
        """The last operation is the loss; the output is the one before it."""
        last = len(self.stats) - 1
        loss = float(self.loss(np.array([step]))[0])
        return Trace(
            model=0, step=step, backward=0, graph="g", loss=loss, output=last - 1, chance=CHANCE,
            stats=tuple(self._at(s, step, last) for s in self.stats),
        )  # fmt: skip

    def _at(self, stats: OperationStats, step: int, last: int) -> OperationStats:
        """All of what is lost is lost in the sigmoids, evenly over the depth."""
        layers_behind = (last - stats.operation) // 3
        norm = 10 ** (-self.net.lost * layers_behind / LAYERS) * (1 + 0.01 * np.cos(step + stats.operation))
        kind = stats.operation % 3
        passed = norm * 10 ** (-self.net.lost / LAYERS) if kind == 2 else norm
        return replace(stats, norm=norm, absmax=norm / 10, output_std=1.0, output_rms=1.0, output_mean=0.0,
                       edge_norms=(passed,) if stats.operation else (),
                       parameter_norms=(norm, norm) if kind == 0 else ())  # fmt: skip


def write(steps: int, net: Net, folder: Path) -> float:
    """Write the run; gives MB on disk."""
    plan = Plan(2 * LAYERS, steps, 1, Limits(), traced=True)
    info = RunInfo(
        id="diagnosis", created="", command=(), script=None, seed=None, versions={}, device="cpu", pid=os.getpid()
    )  # fmt: skip
    training = Training(plan, net)
    writer = RunWriter(folder, info)
    writer.write(training.begin())
    for _, events in training.writes():
        writer.write(events)
    writer.close("finished")
    return size(folder)


def look(net: Net, folder: Path, record: float, repeats: int) -> Cost:
    """Open and diagnose it in fresh processes. The first one, which only warms the disk's cache, does not count."""
    seen = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        said = subprocess.run(
            [sys.executable, "-c", LOOK, str(folder)], check=True, capture_output=True, text=True
        )
        seen.append({**json.loads(said.stdout), "whole": time.perf_counter() - began})
    for one in seen:
        assert one["found"] == net.found, one
        assert not one["broken"], one
        assert not one["torch"], one
    medians = {
        k: statistics.median(one[k] for one in seen[1:]) for k in ("open", "diagnose", "whole", "peak")
    }
    return Cost(net=net, record=record, opened=medians["open"], diagnosed=medians["diagnose"],
                whole=medians["whole"], peak=medians["peak"])  # fmt: skip


def page(costs: Sequence[Cost], steps: int, repeats: int) -> str:
    """The section of docs/performance.md."""
    head = [
        "net",
        "record, MB",
        "open, s",
        "diagnose, s",
        "both, s",
        "the whole process, s",
        "memory at most, MiB",
    ]
    rows = [
        [
            *(c.net.title, f"{c.record:.0f}", f"{c.opened:.2f}", f"{c.diagnosed:.2f}"),
            *(f"{c.opened + c.diagnosed:.2f}", f"{c.whole:.2f}", f"{c.peak:.0f}"),
        ]
        for c in costs
    ]
    date = datetime.now(timezone.utc).date().isoformat()
    lead = (
        f"Measured on {date} by `python benchmarks/diagnosis.py`, on {os.cpu_count()} cores ({platform.machine()}, "
        f"{platform.system()}), Python {platform.python_version()}, unvanish {unvanish.__version__}: runs of "
        f"{LAYERS:,} layers (2,000 parameters, 3,000 operations) x {steps:,} steps, all of them measured."
    )
    reading = (
        f"Medians of {repeats} processes. Each opens the record and diagnoses it; its peak resident size includes "
        "Python and NumPy."
    )
    return "\n\n".join(["## Diagnosing a large run", lead, table([head, *rows]), reading])


def measured(steps: int, repeats: int, names: Sequence[str]) -> Iterator[Cost]:
    """One net after the other."""
    for name in names:
        folder = Path(tempfile.mkdtemp(prefix="unvanish-diagnosis-"))
        try:
            record = write(steps, NETS[name], folder / "run")
            yield look(NETS[name], folder / "run", record, repeats)
        finally:
            shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=NETS, help="one of the nets")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the runs there, and do no more")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the section between the marks of this page"
    )
    options = parser.parse_args()
    names = [options.only] if options.only else list(NETS)
    if options.keep:
        for name in names:
            print(f"{name}: {write(options.steps, NETS[name], options.keep / name):.0f} MB")
        return
    text = page(list(measured(options.steps, options.repeats, names)), options.steps, options.repeats)
    print(text)
    if options.write:
        put_between(options.write, MARKS, text)


if __name__ == "__main__":
    main()
