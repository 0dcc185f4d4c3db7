"""A long training with faults at random: benchmarks/soak.py, here for a short while, and once in full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    report = soak(3_000, tmp_path)
    assert report["identical"], report["differs_from"]
    # how many calls there are that can fail is a matter of time: fewer steps are traced where the machine is busy
    assert report["told"] == 1 and sum(report["injected"].values()) > 0
    assert report["recorded"] + report["given_up"] == report["steps"]
    assert report["counted"] >= report["injected"]["exceptions"]
    assert report["resident_growth"] < 16 * 2**20
    assert report["threads_left"] == 0


@pytest.mark.slow
@needs_proc
def test_a_hundred_thousand_steps_with_faults(tmp_path: Path) -> None:
    report = soak(100_000, tmp_path)
    assert report["wrong"] == [], report
