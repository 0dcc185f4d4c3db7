"""What a trial costs in each engine, beside `python script.py`: the same script, all in turn.

    python benchmarks/trials.py [--rounds N] [--steps N] [--no-ray]

All run on one thread. A trial does more than the script (it keeps the losses), but finds torch imported. "first" is
the time until an engine's first outcome: what it costs to start the engine, its processes and torch.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tables import table

from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.engines.ray import RayEngine
from unvanish.verify.trial import Engine, Target, TrialSpec

RUNNER = "unvanish.launch.trial:run_trial"
SCRIPT = """
import torch
from torch import nn
torch.manual_seed(0)
x, y = torch.randn(512, 64), torch.randint(0, 10, (512,))
net = nn.Sequential(*(m for _ in range(11) for m in (nn.Linear(64, 64), nn.Sigmoid())), nn.Linear(64, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range({steps}):
    rows = torch.randint(0, 512, (64,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
    optimizer.step()
"""


@dataclass
class Side:
    """One way to run the script; `first` is its first time, with all that had to be started for it."""

    name: str
    once: Callable[[], None]
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)


def trial(engine: Engine, script: Path, steps: int) -> None:
    """One trial, which has to succeed."""
    target = Target(program=str(script), directory=str(script.parent))
    spec = TrialSpec(
        candidate="baseline", prescriptions=(), target=target, seed=0, steps=steps + 1, seconds=600.0
    )
    (outcome,) = engine.run([spec])
    assert outcome.error is None, outcome.error
    assert len(outcome.losses) == steps


def plain(script: Path) -> None:
    """The script by itself, on one thread."""
    # in a session of its own, as trials are: the scheduler shares the machine out to sessions
    command, one_thread = [sys.executable, str(script)], {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=one_thread, start_new_session=True)


def timed(act: Callable[[], object]) -> float:
    """Its seconds."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(sides: list[Side], rounds: int) -> None:
    """All sides in turn, so many times, each round in another order."""
    for side in sides:
        side.first += timed(side.once)
    for i in range(rounds):
        for side in sides[i % len(sides) :] + sides[: i % len(sides)]:
            side.seconds.append(timed(side.once))


def rows(sides: list[Side]) -> list[list[str]]:
    """The table: medians, and each round's ratio to the plain run of the same round."""
    lines = [["", "first, s", "each, s", "over plain", "rounds from .. to"]]
    for side in sides:
        ratios = sorted(a / b for a, b in zip(side.seconds, sides[0].seconds, strict=True))
        lines.append(
            [
                side.name,
                f"{side.first:.2f}",
                f"{statistics.median(side.seconds):.2f}",
                f"x {statistics.median(ratios):.2f}",
                f"x {ratios[0]:.2f} .. {ratios[-1]:.2f}",
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--no-ray", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        script = Path(folder, "script.py")
        script.write_text(SCRIPT.format(steps=options.steps))
        sides = [Side("`python script.py`", lambda: plain(script))]

        def add(name: str, make: Callable[[], contextlib.AbstractContextManager[Engine]]) -> None:
            engines: list[Engine] = []
            first = timed(lambda: engines.append(stack.enter_context(make())))
            sides.append(Side(name, lambda: trial(engines[0], script, options.steps), first=first))

        add("local, forked", lambda: LocalEngine(1, RUNNER))
        add("local, a fresh interpreter each", lambda: LocalEngine(1, RUNNER, fork=False))
        if not options.no_ray:
            add("Ray, a cluster of this machine", lambda: RayEngine(1, RUNNER))
        measure(sides, options.rounds)
        print(table(rows(sides)))


if __name__ == "__main__":
    main()
