"""A long training with faults at random: benchmarks/soak.py, here for a short while, and once in full."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


def soak(steps: int, tmp_path: Path) -> dict[str, Any]:
    """In a process of its own: its memory is what is looked at."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "soak.py"), f"--steps={steps}", "--json", str(tmp_path / "soak.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (tmp_path / "soak.json").exists(), done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "soak.json").read_text())
    return found


@needs_proc
def test_a_few_thousand_steps_with_faults(tmp_path: Path) -> None:
    """Too short for memory to settle: its slope is looked at in the long one."""
    report = soak(
        8_000, tmp_path
    )  # how many of the calls fail is a matter of time: a busy machine traces fewer steps
    assert report["identical"], report["differs_from"]
    assert report["told"] == 1 and report["injected"]["exceptions"] > 3
    assert report["recorded"] + report["given_up"] == report["steps"]
    assert report["counted"] >= report["injected"]["exceptions"]
    assert report["resident_growth"] < 16 * 2**20
    assert report["threads_left"] == 0


@pytest.mark.parametrize(
    ("bytes_a_step", "jumps", "least", "most"),
    [
        (0, {}, -1, 1),
        (0, {40_000: 3 * 2**20, 80_000: 5 * 2**20}, -1, 1),  # what had waited for a slow disk
        (60, {}, 59, 61),
        (60, {50_000: 4 * 2**20}, 59, 61),
    ],
)
def test_a_leak_is_told_from_a_jump(
    bytes_a_step: float, jumps: dict[int, int], least: float, most: float
) -> None:
    steady_slope = runpy.run_path(str(ROOT / "benchmarks" / "soak.py"))["steady_slope"]
    steps = np.arange(30_000, 100_000, 125)
    memory = 3e8 + bytes_a_step * steps + sum(size * (steps >= at) for at, size in jumps.items())
    memory += np.where(steps % 1_000 == 0, 2**19, 0)  # comes and goes
    assert least < steady_slope(np.column_stack([steps, memory])) < most


@pytest.mark.parametrize("leak", [0.0, 0.01, 0.05])
def test_a_leak_of_objects_is_told_from_what_comes_and_goes(leak: float) -> None:
    """The least value of each half may lie where they meet: the distance of the two is no measure."""
    slope = runpy.run_path(str(ROOT / "benchmarks" / "soak.py"))["slope"]
    steps = np.arange(30_000, 100_000, 125)
    objects = 3_000 + leak * steps + 200 * np.sin(steps / 700)
    objects[len(steps) // 2 - 1] -= 1_000 * (leak == 0)
    objects[len(steps) // 2] -= 900 * (leak == 0)
    assert slope(np.column_stack([steps, objects])) == pytest.approx(leak, abs=0.004)


@pytest.mark.slow
@needs_proc
def test_a_hundred_thousand_steps_with_faults(tmp_path: Path) -> None:
    report = soak(100_000, tmp_path)
    assert report["wrong"] == [], report
