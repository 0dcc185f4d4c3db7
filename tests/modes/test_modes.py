"""Every mode of training: its numbers against the float64 twin, and itself bit by bit against an unwatched run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mode_base import Mode
from mode_measure import check_skipped, differences, errors, watched_run
from mode_registry import MODES
from mode_table import COLUMNS, names_in

ROOT = Path(__file__).resolve().parents[2]


def _cases(*, numbers: bool) -> list[object]:
    """One case a mode; what is known to be wrong must fail until it is mended."""
    return [
        pytest.param(
            mode,
            id=re.sub(r"\W+", "-", mode.name),
            marks=[pytest.mark.xfail(reason=mode.wrong)] if mode.wrong and numbers else [],
        )
        for mode in MODES
        if mode.here
    ]


@pytest.mark.parametrize("mode", _cases(numbers=True))
def test_the_numbers_are_those_of_the_twin(mode: Mode, tmp_path: Path) -> None:
    run = watched_run(mode, tmp_path)
    assert not run.incidents
    found = errors(mode, run)
    check_skipped(mode, run, found)
    if mode.check is not None:
        mode.check(run)
    assert found.gradients > 0 and found.updates > 0
    assert found.signals_each >= mode.signals, "fewer modules were compared than there are"
    assert found.gradient <= found.allowed(mode.tolerance)
    assert found.update <= found.allowed(mode.update_tolerance)
    assert found.signal <= mode.tolerance
    assert found.loss <= mode.tolerance


@pytest.mark.parametrize("every", [1, None], ids=["every step traced", "defaults"])
@pytest.mark.parametrize("mode", _cases(numbers=False))
def test_training_is_the_same_bit_by_bit(mode: Mode, every: int | None) -> None:
    assert differences(mode, every=every) == []


def test_names_are_unique() -> None:
    assert len({mode.name for mode in MODES}) == len(MODES)


def test_modes_without_signals_say_why() -> None:
    assert [m.name for m in MODES if not m.signals and not m.note] == []


def test_the_table_in_the_docs_has_exactly_these_modes() -> None:
    page = (ROOT / "docs" / "modes.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(COLUMNS)} |" in page
    assert names_in(page) == [mode.name for mode in MODES]
