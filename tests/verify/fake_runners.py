"""Runners that train nothing: they return known curves, hang, crash or die."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from unvanish.verify.trial import TrialOutcome, TrialSpec

CHANCE = 2.0


def curve(spec: TrialSpec, last: float, noise: float = 0.02) -> tuple[float, ...]:
    """From chance down to `last`, with noise that depends on the seed alone: paired between candidates."""
    rng = random.Random(spec.seed)
    fall = [CHANCE + (last - CHANCE) * min(1.0, i / (0.8 * spec.steps)) for i in range(spec.steps)]
    return tuple(x + rng.gauss(0, noise) for x in fall)


def by_name(spec: TrialSpec) -> TrialOutcome:
    """Candidates by name; the gain of "lucky" does not move."""
    name = spec.candidate
    if name == "breaks":
        raise RuntimeError("no such\nlayer")
    learns = name in ("learns", "simple", "big", "lucky", "cut") or (
        name == "sometimes" and spec.seed % 2 == 0
    )
    best = spec.learning_rate_factor == 1.0
    losses = curve(spec, (0.2 if best else 0.9) if learns else CHANCE)
    if name == "wild":
        losses = (*losses[:10], float("nan"))
    gains = {"learns": (0.9, 1.0), "simple": (0.9, 1.0), "big": (0.9, 1.0), "cut": (0.02, 0.02)}
    measured, predicted = gains.get(name, (0.02, 1.0 if name == "lucky" else 0.02))
    return TrialOutcome(
        spec=spec,
        losses=losses,
        measured_gain=measured if spec.trace else None,
        predicted_gain=predicted if spec.trace else None,
        depth=3 if name == "cut" else 12,
        learning_rate=0.1 * spec.learning_rate_factor,
        chance=CHANCE,
    )


def troubled(spec: TrialSpec) -> TrialOutcome:
    """Trouble by name; anything else is fine after a tenth of a second."""
    name = spec.candidate
    if name == "exits":
        print("last words of a script", file=sys.stderr, flush=True)
        os._exit(7)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hangs":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if name == "sys.exit":
        sys.exit("bye")
    if name == "nonsense":
        return "not an outcome"  # type: ignore[return-value]
    time.sleep(0.1)
    threads = float(os.environ["OMP_NUM_THREADS"])
    return TrialOutcome(spec=spec, losses=(float(os.getpid()), threads, float(os.getppid())))


def slow(spec: TrialSpec) -> TrialOutcome:
    time.sleep(0.3)
    return by_name(spec)


def ancestor(generations: int) -> int:
    """The process above this one: 1 the supervisor, 2 the reaper, 3 the engine or Ray's worker, 4 Ray's raylet."""
    process = os.getpid()
    for _ in range(generations):
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process


def noted(spec: TrialSpec) -> TrialOutcome:
    """As `by_name`, with a note of each start, and of the raylet, in the file that the script's argument names.

    The first trial of each raylet is slow: there is time to kill it.
    """
    path, raylet = Path(spec.target.arguments[0]), ancestor(4)
    first = not path.exists() or f" {raylet}\n" not in path.read_text()
    with path.open("a") as notes:
        notes.write(f"{spec.candidate} {spec.seed} {raylet}\n")
    time.sleep(3.0 if first else 0.2)
    return by_name(spec)


def kills_the_worker(spec: TrialSpec) -> TrialOutcome:
    """Kills the process that started the supervisor and its reaper: "twice" always, "once" at its first start."""
    notes = Path(spec.target.arguments[0])
    before = notes.read_text().split("\n") if notes.exists() else []
    with notes.open("a") as file:
        file.write(f"{spec.candidate}\n")
    if spec.candidate == "twice" or (spec.candidate == "once" and "once" not in before):
        os.kill(ancestor(3), signal.SIGKILL)
        time.sleep(60)
    return by_name(spec)
