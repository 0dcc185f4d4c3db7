"""The map of trainable depth as an SVG: loss over sw2 and depth, and the 6-xi curve over it. Written by hand."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from science.trainable import MAP_STEPS, Cell

CELL_WIDTH, CELL_HEIGHT, LEFT, TOP, BELOW = 58, 34, 76, 46, 86
LOW, HIGH = (222, 235, 247), (8, 48, 107)  # one hue, light to dark: what learnt, what did not
INK, CURVE = "#1a1a1a", "#d95f02"
Curves = Callable[[float], tuple[float, float]]


def svg(cells: Sequence[Cell], chance: float, curves: Curves) -> str:
    """The picture; deeper nets are further up."""
    columns, depths = sorted({c.sw2 for c in cells}), sorted({c.depth for c in cells})
    width, height = len(columns) * CELL_WIDTH, len(depths) * CELL_HEIGHT
    bottom = TOP + height
    title = f"Which tanh nets train? Loss after {MAP_STEPS} steps; chance is {chance:.2f}"
    parts = [
        _open(LEFT + width + 24, bottom + BELOW),
        f"<title>{title}; the 6-xi curve over it</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(LEFT, 26, title, anchor="start"),
    ]
    for c in cells:
        x, y = LEFT + columns.index(c.sw2) * CELL_WIDTH, bottom - (depths.index(c.depth) + 1) * CELL_HEIGHT
        loss = c.losses[MAP_STEPS]
        share = min(1.0, loss / chance) if math.isfinite(loss) else 1.0
        says = f"<title>sw2 {c.sw2:g}, depth {c.depth}: loss {loss:.3f}</title>"
        paint = f'fill="{_shade(share)}" stroke="#ffffff"'
        parts += [
            f"{_open_rect(x, y, CELL_WIDTH, CELL_HEIGHT)} {paint}>{says}</rect>",
            _text(
                x + CELL_WIDTH / 2,
                y + CELL_HEIGHT / 2 + 4,
                f"{loss:.2f}",
                ink="#fff" if share > 0.5 else INK,
            ),
        ]
    clip = f'<clipPath id="map">{_open_rect(LEFT, TOP, width, height)}/></clipPath>'
    return "\n".join(
        [*parts, *_axes(columns, depths, bottom), clip, *_lines(columns, depths, bottom, curves), "</svg>\n"]
    )


def _open(width: int, height: int) -> str:
    font = 'font-family="system-ui, sans-serif" font-size="12" role="img"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {font}>'


def _open_rect(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}"'


def _text(x: float, y: float, words: str, *, anchor: str = "middle", ink: str = INK, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{ink}"{more}>{words}</text>'


def _shade(share: float) -> str:
    return "rgb({},{},{})".format(*(round(a + share * (b - a)) for a, b in zip(LOW, HIGH, strict=True)))


def _axes(columns: Sequence[float], depths: Sequence[int], bottom: int) -> list[str]:
    under = [_text(LEFT + (i + 0.5) * CELL_WIDTH, bottom + 18, f"{s:g}") for i, s in enumerate(columns)]
    beside = [
        _text(LEFT - 8, bottom - (i + 0.5) * CELL_HEIGHT + 4, str(d), anchor="end")
        for i, d in enumerate(depths)
    ]
    middle = bottom - len(depths) * CELL_HEIGHT / 2
    names = [
        _text(LEFT + len(columns) * CELL_WIDTH / 2, bottom + 38, "sw2 = fan_in Var W (critical: 1.761)"),
        _text(22, middle, "depth, weighted layers", more=f' transform="rotate(-90 22 {middle})"'),
    ]
    return [*under, *beside, *names]


def _lines(columns: Sequence[float], depths: Sequence[int], bottom: int, curves: Curves) -> list[str]:
    """6 xi of what tells two inputs apart, solid; of the gradient, dashed (the same where sw2 is below critical)."""
    steps = 8
    points = [a + (b - a) * k / steps for a, b in pairwise(columns) for k in range(steps)] + [columns[-1]]
    both = [curves(s) for s in points]
    made = []
    y = bottom + 66
    for which, name, dash, x in (
        (0, "6 xi of the gradient", ' stroke-dasharray="6 5"', LEFT + 300),
        (1, "6 xi of two inputs' correlation", "", LEFT),
    ):
        path = " ".join(
            f"{LEFT + (_place(s, columns) + 0.5) * CELL_WIDTH:.1f},"
            f"{bottom - (_place(1 + both[i][which], depths) + 0.5) * CELL_HEIGHT:.1f}"
            for i, s in enumerate(points)
        )
        stroke = f'fill="none" stroke="{CURVE}" stroke-width="3"{dash}'
        made += [
            f'<polyline points="{path}" {stroke} clip-path="url(#map)"/>',
            f'<polyline points="{x},{y} {x + 34},{y}" {stroke}/>',
            _text(x + 42, y + 4, name, anchor="start"),
        ]
    return made


def _place(value: float, marks: Sequence[float]) -> float:
    """Where a value lies between marks, in cells; logarithmically, and a little beyond the ends."""
    if math.isinf(value):
        return float(len(marks))
    i = min(max(bisect_right(marks, value) - 1, 0), len(marks) - 2)
    within = math.log(value / marks[i]) / math.log(marks[i + 1] / marks[i])
    return max(-1.0, min(i + within, float(len(marks))))
