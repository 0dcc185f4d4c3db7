"""benchmarks/science in its short form: fixed seeds, smaller nets, and the same bars. In all under two minutes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from science import run
from science import solutions as five
from science.heatmap import svg
from science.row import Row, estimate, share
from science.trainable import MAP_STEPS, Cell, curves

PAGE = Path(__file__).resolve().parents[2] / "docs" / "science.md"

SLOW = {(5,), (7,), (9,), (15,), (16,), (17,), (20,)}  # more than some seconds each


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(
            numbers, marks=[pytest.mark.slow] if numbers in SLOW else [], id="-".join(map(str, numbers))
        )
        for numbers in run.SECTIONS
    ],
)
def test_a_row_agrees(numbers: tuple[int, ...]) -> None:
    rows = run.measure(numbers, quick=True)
    assert {r.number for r in rows} == set(numbers)
    for row in rows:
        assert row.agrees, f"{row.claim}, {row.setting}: {row.predicted}, measured {row.measured}"


def test_every_row_is_there() -> None:
    assert tuple(range(1, 22)) == run.ALL


@pytest.mark.parametrize("variant", five.variants(), ids=lambda v: v.name)
def test_the_gains_of_the_fixes_are_the_predicted_ones(variant: five.Variant) -> None:
    """Five nets of width 64: 4 % below in the geometric mean, and real rows under the batch norm."""
    one = five.trained(variant, seeds=0)
    assert one.predicted_stuck == variant.stuck
    assert one.measured == pytest.approx(one.predicted, rel=0.12 if "batch norm" in variant.name else 0.07)


@pytest.mark.slow
@pytest.mark.parametrize("variant", five.variants(), ids=lambda v: v.name)
def test_what_stays_stuck_and_what_does_not(variant: five.Variant) -> None:
    one = five.trained(variant, seeds=1, rates=run.QUICK_RATES)
    assert one.as_known, one.losses


def test_the_page_has_what_the_command_writes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for begin, end in run.MARKS.values():
        assert page.index(begin) < page.index(end)
    assert "**disagrees**" not in page
    for number in run.ALL:
        assert f"\n| {number} " in page


def test_deviations() -> None:
    row = Row(number=1, claim="", predicted=1.0, measured=1.5, standard_error=0.1)
    assert row.deviation == pytest.approx(5)
    assert not row.agrees
    assert Row(
        number=1, claim="", predicted=1.0, measured=1.5, standard_error=0.1, tolerance=0.6, why="x"
    ).agrees
    bounds = Row(number=1, claim="", predicted=(0.2, 0.4), measured=0.3, standard_error=0.01)
    assert (bounds.distance, bounds.agrees) == (0.0, True)
    assert Row(
        number=1, claim="", predicted=(0.2, 0.4), measured=0.5, standard_error=0.01
    ).distance == pytest.approx(0.1)
    assert Row(
        number=1, claim="", predicted=(0.2, 0.4), measured=0.1, standard_error=0.01
    ).distance == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="say what for"):
        Row(number=1, claim="", predicted=1.0, measured=1.0, tolerance=0.1)
    with pytest.raises(ValueError, match="needs a standard error"):
        Row(number=1, claim="", predicted=1.0, measured=1.0)
    assert estimate([1.0, 3.0]) == (2.0, pytest.approx(1.0))
    assert share(25, 100) == (0.25, pytest.approx(math.sqrt(0.25 * 0.75 / 100)))


def test_a_net_that_is_not_finite_disagrees() -> None:
    assert not Row(number=1, claim="", predicted=1.0, measured=math.nan, standard_error=0.1).agrees


def test_the_map_is_an_svg_with_a_cell_for_every_net() -> None:
    cells = [
        Cell(sw2=s, depth=d, seed=0, losses={MAP_STEPS: loss})
        for s in (1.0, 1.6, 2.0)
        for d, loss in ((5, 0.1), (20, 1.0), (80, math.nan))
    ]
    picture = ET.fromstring(svg(cells, 2.3, curves))  # noqa: S314 - our own picture
    space = "{http://www.w3.org/2000/svg}"
    assert sum(r.get("stroke") == "#ffffff" for r in picture.iter(f"{space}rect")) == len(cells)
    assert len([p for p in picture.iter(f"{space}polyline") if p.get("clip-path")]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "x"], "takes numbers of rows"),
        (["--rows", "22"], "no row 22"),
        (["--quick", "--write", "x.md"], "all rows"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    with pytest.raises(SystemExit):
        run.main()
    assert said in capsys.readouterr().err
