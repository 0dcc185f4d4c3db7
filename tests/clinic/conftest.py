"""Puts the clinic, and the tables that its runner prints with, on the path."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS / "clinic"), str(BENCHMARKS)]
