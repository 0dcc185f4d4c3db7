"""A small run to write, in this process or in a child that gets killed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from unvanish.schema.run import PARAMETER_STATISTICS, ModelEvent, ModelInfo, ParameterInfo, RunInfo, StepEvent

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
