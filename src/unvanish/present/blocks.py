"""The signal map and the loss in block characters: the same colours and limits as on the page, folded to fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from rich.console import Console
from rich.style import Style
from rich.text import Text

from unvanish.present import words
from unvanish.present.signal import NAN, UNMEASURED, ZERO, Cell
from unvanish.present.text import visible

SPARKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
SHADES = " \u2591\u2592\u2593\u2588"  # where there is no colour: the more signal, the darker
_MARKS = {NAN: ("!", "bold red"), ZERO: ("0", "bold red"), UNMEASURED: ("\u00b7", "dim")}
# from starved to strong, readable on light and dark, told apart without red and green (after Crameri's "lapaz")
_RAMP = ((94, 35, 110), (64, 74, 158), (46, 125, 163), (86, 164, 140), (186, 196, 118), (240, 229, 160))
_ABOVE = (214, 96, 40)  # more than the output layer
NAME_SHARE = 0.3
MOST_COLUMNS, MAP_HEIGHT = 100, 22


def map_lines(signal: dict[str, Any], width: int, height: int, *, colour: bool = True) -> list[Text]:
    """The map of a view in `height` lines at most, the last of which is its scale; none where nothing was traced.

    Rows are layers from the input down to the output, folded by their worst cell; columns are traced steps.
    """
    rows, cells = signal["rows"], signal["cells"]
    if not rows or width < 20 or height < 3:
        return []
    groups = _folded(len(rows), height - 1)
    labels = [visible(_label([rows[i] for i in group])) for group in groups]
    room = min(max(map(len, labels)), max(8, int(width * NAME_SHARE)))
    columns = _folded(len(signal["steps"]), width - room - 1)
    low, high = signal["low"], signal["high"]
    lines = []
    for group, label in zip(groups, labels, strict=True):
        line = Text(f"{words.shortened(label, room):<{room}} ")
        for column in columns:
            cell = worst([cells[i][j] for i in group for j in column], high)
            line.append(*_drawn(cell, low, high, colour=colour))
        if len(columns) < width - room - 1:
            line.append(
                f" {_said(worst([cells[i][columns[-1][-1]] for i in group], high))}"[: width - len(line)]
            )
        lines.append(line)
    lines.append(_scale(signal, room, width, colour=colour))
    return lines


def sparkline(values: Sequence[float | None], width: int) -> str:
    """A series in one line of blocks; a column stands for the mean of its part, a blank for no number."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known or width < 1:
        return ""
    low, high = min(known), max(known)
    drawn = []
    for part in _folded(len(values), width):
        there = [v for v in (values[i] for i in part) if v is not None and math.isfinite(v)]
        if not there:
            drawn.append(" ")
            continue
        mean = sum(v / len(there) for v in there)  # divided first: the sum of large losses may overflow
        share = 0.0 if high == low else (mean / 2 - low / 2) / (high / 2 - low / 2)
        drawn.append(SPARKS[min(max(int(share * len(SPARKS)), 0), len(SPARKS) - 1)])
    return "".join(drawn)


def worst(cells: Sequence[Cell], high: float) -> Cell:
    """What is told of several cells: NaN, then zero, then the number that is farthest from the scale's strong end."""
    for mark in (NAN, ZERO):
        if mark in cells:
            return mark
    numbers = [c for c in cells if isinstance(c, float | int)]
    if not numbers:
        return UNMEASURED
    least, most = min(numbers), max(numbers)
    return most if most > 1.0 and most >= high > -least else least


def print_maps(view: dict[str, Any], console: Console) -> None:
    """Every model's loss and signal map, in half a screen each; on paper and in pipes as shades."""
    colour = console.is_terminal and console.color_system is not None and not console.no_color
    width = min(console.width - 1, MOST_COLUMNS) if console.is_terminal else MOST_COLUMNS
    for model in view["models"]:
        loss, lines = model["loss"], map_lines(model["signal"], width, MAP_HEIGHT, colour=colour)
        console.print()
        if len(view["models"]) > 1:
            console.print(Text(visible(model["name"]), style="bold"), soft_wrap=True)
        spark = sparkline(loss["values"], min(60, width - 40))
        text = f"Loss     {spark} {words.plain(loss['first'], 4)} to {words.plain(loss['last'], 4)}"
        console.print(Text(text if spark else "Loss     none was recorded"), soft_wrap=True)
        if lines:
            console.print(
                Text("Signal   of each layer over that of the output, step by step"), soft_wrap=True
            )
        for line in lines:
            line.rstrip()
            console.print(line, soft_wrap=True)


def _folded(count: int, most: int) -> list[range]:
    """`count` places in at most `most` parts of nearly equal size, in order."""
    bounds = np.linspace(0, count, min(count, max(most, 1)) + 1).astype(int).tolist()
    return [range(a, b) for a, b in pairwise(bounds)]


def _label(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} \u2026 {names[-1]}"


def _drawn(cell: Cell, low: float, high: float, *, colour: bool) -> tuple[str, str | Style]:
    if isinstance(cell, str):
        sign, style = _MARKS[cell]
        return sign, style if colour else ""
    share = (min(max(cell, low), 0.0) - low) / -low if low < 0 else 1.0
    if not colour:
        return SHADES[min(1 + int(share * (len(SHADES) - 1)), len(SHADES) - 1)], ""
    if cell > 0.5 and high > 0:
        return "\u2588", Style(color=_mixed(_RAMP[-1], _ABOVE, min(cell / high, 1.0)))
    place = share * (len(_RAMP) - 1)
    left = min(int(place), len(_RAMP) - 2)
    return "\u2588", Style(color=_mixed(_RAMP[left], _RAMP[left + 1], place - left))


def _mixed(a: tuple[int, int, int], b: tuple[int, int, int], share: float) -> str:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _said(cell: Cell) -> str:
    return {NAN: "NaN", ZERO: "zero", UNMEASURED: ""}[cell] if isinstance(cell, str) else words.decades(cell)


def _scale(signal: dict[str, Any], room: int, width: int, *, colour: bool) -> Text:
    low, high, steps = signal["low"], signal["high"], signal["steps"]
    line = Text(" " * (room + 1))
    line.append(f"step {steps[0]} to {steps[-1]}   ", "dim" if colour else "")
    line.append(f"{words.decades(low)} ")
    for i in range(10):
        line.append(*_drawn(low + (0 - low) * (i + 0.5) / 10, low, high, colour=colour))
    line.append(" 0")
    if high > 0.5:
        line.append(" ")
        for i in range(3):
            line.append(*_drawn(high * (i + 1.5) / 4, low, high, colour=colour))
        line.append(f" {words.decades(high)}")
    line.append(" decades", "dim" if colour else "")
    line.truncate(width)
    return line
