"""Run every mode of training in tests/modes and write docs/modes.md.

    .venv/bin/python tools/modes.py [--no-clock] [--only TEXT]

With --only, the rows whose names hold TEXT are printed and nothing is written.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "modes"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402 - after the number of threads is set
from mode_registry import MODES  # noqa: E402 - after the path is set
from mode_table import measure, page  # noqa: E402


def main() -> None:
    """Measure, tell the progress, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-clock", action="store_true", help="leave the overhead out")
    parser.add_argument(
        "--only", default="", help="only modes whose names hold this text; prints, does not write"
    )
    arguments = parser.parse_args()
    rows = []
    for mode in MODES:
        if arguments.only in mode.name:
            rows.append(measure(mode, clock=not arguments.no_clock))
            print(" | ".join(rows[-1].cells()), file=sys.stderr, flush=True)  # noqa: T201 - this is its output
    where = (
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} thread, "
        f"{datetime.now(timezone.utc):%Y-%m-%d}"
    )
    if not arguments.only:
        (ROOT / "docs" / "modes.md").write_text(page(rows, where=where), encoding="utf-8")


if __name__ == "__main__":  # spawned workers of DataLoader import this file again
    main()
