"""A small run to write, in this process or in a child that gets killed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from array import array
from collections.abc import Sequence
from pathlib import Path

from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    BlockEvent,
    ModelEvent,
    ModelInfo,
    ParameterInfo,
    RunInfo,
    StepEvent,
)

CHILD = """
import os, sys, time
from pathlib import Path
from unvanish.schema.run import StepEvent
from unvanish.store import RunWriter
sys.path.insert(0, {here!r})
from store_helpers import model_event, run_info, step_event
writer = RunWriter(Path({folder!r}), run_info())
writer.write([model_event(3)])
step = 0
while True:
    for _ in range(5):
        event = step_event(step, 3, seconds=time.time())
        writer.write([event])
        step += 1
    print(step, flush=True)
    time.sleep(0.02)
"""


def run_info() -> RunInfo:
    """Where the small run came from: this process."""
    return RunInfo(
        id="r1",
        created="2025-01-01T00:00:00+00:00",
        command=("train.py",),
        script="train.py",
        seed=0,
        versions={},
        device="cpu",
        pid=os.getpid(),
    )


def model_event(parameters: int, name: str = "net") -> ModelEvent:
    """A model of that many parameters."""
    made = tuple(
        ParameterInfo(
            index=i,
            name=f"p{i}",
            shape=(2, 3),
            dtype="float32",
            requires_grad=True,
            optimizer=None,
            sampled=6,
        )
        for i in range(parameters)
    )
    return ModelEvent(info=ModelInfo(index=0, name=name, class_name="Net", parameters=made, optimizers=()))


def step_event(step: int, parameters: int, seconds: float | None = None) -> StepEvent:
    """One step whose numbers tell where they belong: step + parameter / 1000 + statistic / 1e6."""
    rows = tuple(
        tuple(step + p / 1000 + s / 1e6 for s in range(len(PARAMETER_STATISTICS))) for p in range(parameters)
    )
    return StepEvent(
        model=0,
        step=step,
        seconds=float(step) if seconds is None else seconds,
        loss=1 / (step + 1),
        rows=rows,
    )


def start_writer(folder: Path) -> subprocess.Popen[str]:
    """A child process that writes steps, five at a time, until it is killed."""
    code = textwrap.dedent(CHILD).format(here=str(Path(__file__).parent), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def block_event(
    first: int,
    values: Sequence[Sequence[Sequence[float]] | None],
    losses: Sequence[float | None] | None = None,
    kind: str = "f",
) -> BlockEvent:
    """Steps from `first` on: `values` per step [statistics x parameters], None where they were not looked at."""
    steps = range(first, first + len(values))
    measured = [(s, table) for s, table in zip(steps, values, strict=True) if table is not None]
    given = [1 / (s + 1) for s in steps] if losses is None else losses
    return BlockEvent(
        model=0,
        steps=array("q", steps),
        seconds=array("d", [s / 100 for s in steps]),
        losses=array("d", [math.nan if v is None else v for v in given]),
        clips=array("d", [1.0] * len(steps)),
        learning_rates=array("d", [0.1] * len(steps)),
        measured=array("q", [s for s, _ in measured]),
        stats=array(kind, [v for _, table in measured for row in table for v in row]),
        unseen_losses=frozenset(s for s, v in zip(steps, given, strict=True) if v is None),
    )
