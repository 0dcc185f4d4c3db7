"""docs/modes.md: one row a mode, with what was measured of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mode_base import STEPS, Mode
from mode_measure import Errors, check_skipped, differences, errors, overhead, watched_run

COLUMNS = ("mode", "error against the twin", "bit-identical", "overhead", "note")
MISSING = "—"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one mode; None = could not be, or was not."""

    mode: Mode
    errors: Errors | None
    fault: str  # why the numbers could not be held against the twin
    differences: tuple[str, ...]
    overhead: float | None

    def cells(self) -> tuple[str, ...]:
        """The text of the row's cells, in the order of COLUMNS."""
        same = "yes" if not self.differences else f"no: {', '.join(self.differences[:3])}"
        notes = [self.mode.note, f"**wrong in this version:** {self.mode.wrong}" if self.mode.wrong else ""]
        cost = MISSING if self.overhead is None else f"{self.overhead:.2f}"
        return self.mode.name, self._error(), same, cost, "; ".join(n for n in notes if n)

    def _error(self) -> str:
        found = self.errors
        if found is None:
            return self.fault
        signal = f"{found.signal:.0e}" if found.signals else MISSING
        return f"{found.gradient:.0e}, {found.update:.0e}, {signal}, {found.loss:.0e}"


def measure(mode: Mode, *, clock: bool) -> Row:
    """Run one mode: against the twin, bit by bit, and against the clock."""
    found, fault = None, ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = watched_run(mode, Path(folder))
        found = errors(mode, run)
        check_skipped(mode, run, found)
    except AssertionError as error:
        fault = "not comparable" if mode.wrong else f"failed: {error}".splitlines()[0][:120]
    changed = {*differences(mode, every=1), *differences(mode, every=None)}
    cost = overhead(mode) if clock and mode.timed and mode.ranks == 1 else None
    return Row(mode=mode, errors=found, fault=fault, differences=tuple(sorted(changed)), overhead=cost)


def page(rows: Sequence[Row], *, where: str) -> str:
    """The whole page; `where` says on what it was measured."""
    lines = [HEAD.format(where=where, steps=STEPS), f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row.cells())} |" for row in rows]
    return "\n".join(lines) + "\n"


def names_in(text: str) -> list[str]:
    """The modes that a page lists, in its order."""
    rows = re.findall(r"^\| (.+?) \| ", text, re.MULTILINE)
    return [name for name in rows if name != COLUMNS[0]]


HEAD = """# Modes of training

Written by `python tools/modes.py`; `tests/modes` runs the same modes and checks that none is missing here.
Measured with {where}.

- **error against the twin**: the largest relative errors of, in this order, gradient rms and update rms (per parameter and
  step), of the traced signal dL/d(output) (L2 norm, per call of every module) and of the loss. The twin is the same training in
  float64 without autocast, scaler, fused kernels or recomputation, with every module's output kept; {steps} steps are compared.
  {missing} = not compared, and the note says why. Large tensors are sampled, and have the error of a sample.
- **bit-identical**: weights, buffers and optimizer state after 50 steps, and the state of torch's, numpy's and Python's random
  generators, watched beside unwatched; once with every step traced and once with the default schedule.
- **overhead**: median step time watched over unwatched, in turn in one process, on small nets (192 wide, 128 rows) and with the
  default schedule. A rough figure that moves by several per cent from run to run; performance.md has the careful ones.
""".replace("{missing}", MISSING)
