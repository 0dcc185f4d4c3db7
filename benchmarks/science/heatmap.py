"""The map of trainable depth as an SVG: loss over sw2 and depth, and the 6-xi curve over it. Written by hand."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from science.trainable import Cell

CELL_WIDTH, CELL_HEIGHT, LEFT, TOP, BELOW = 58, 34, 76, 46, 104
LOW, HIGH = (222, 235, 247), (8, 48, 107)  # one hue, light to dark: what learnt, what did not
Curves = Callable[[float], tuple[float, float]]


def svg(cells: Sequence[Cell], chance: float, curves: Curves) -> str:
    """The picture; deeper nets are further up."""
    columns, depths = sorted({c.sw2 for c in cells}), sorted({c.depth for c in cells})
    width, height = len(columns) * CELL_WIDTH, len(depths) * CELL_HEIGHT
    bottom = TOP + height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + width + 24} {bottom + BELOW}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        "<title>Loss after training, over sw2 and depth, with the 6-xi curve</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="14" fill="#1a1a1a">Which tanh nets train? Loss after training; '
        f"chance is {chance:.2f}</text>",
    ]
    for c in cells:
        x, y = LEFT + columns.index(c.sw2) * CELL_WIDTH, bottom - (depths.index(c.depth) + 1) * CELL_HEIGHT
        share = min(1.0, c.loss / chance) if math.isfinite(c.loss) else 1.0
        ink = "#ffffff" if share > 0.5 else "#1a1a1a"
        parts += [
            f'<rect x="{x}" y="{y}" width="{CELL_WIDTH}" height="{CELL_HEIGHT}" fill="{_shade(share)}" stroke="#ffffff">'
            f"<title>sw2 {c.sw2:g}, depth {c.depth}: loss {c.loss:.3f}</title></rect>",
            f'<text x="{x + CELL_WIDTH / 2}" y="{y + CELL_HEIGHT / 2 + 4}" text-anchor="middle" fill="{ink}" '
            f'opacity="0.85">{c.loss:.2f}</text>',
        ]
    parts += _axes(columns, depths, bottom, width)
    parts += _lines(columns, depths, bottom, width, height, curves)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shade(share: float) -> str:
    return "rgb({},{},{})".format(*(round(a + share * (b - a)) for a, b in zip(LOW, HIGH, strict=True)))


def _axes(columns: Sequence[float], depths: Sequence[int], bottom: int, width: int) -> list[str]:
    made = [
        f'<text x="{LEFT + (i + 0.5) * CELL_WIDTH}" y="{bottom + 18}" text-anchor="middle" fill="#1a1a1a">{s:g}</text>'
        for i, s in enumerate(columns)
    ]
    made += [
        f'<text x="{LEFT - 8}" y="{bottom - (i + 0.5) * CELL_HEIGHT + 4}" text-anchor="end" fill="#1a1a1a">{d}</text>'
        for i, d in enumerate(depths)
    ]
    middle = TOP + len(depths) * CELL_HEIGHT / 2
    return [
        *made,
        f'<text x="{LEFT + width / 2}" y="{bottom + 40}" text-anchor="middle" fill="#1a1a1a">sw2 = fan_in Var W</text>',
        f'<text x="22" y="{middle}" transform="rotate(-90 22 {middle})" text-anchor="middle" fill="#1a1a1a">'
        "depth, weighted layers</text>",
    ]


def _lines(
    columns: Sequence[float], depths: Sequence[int], bottom: int, width: int, height: int, curves: Curves
) -> list[str]:
    """6 xi of what tells two inputs apart, solid; of the gradient, dashed (the same where sw2 is below critical)."""
    steps = 8
    points = [a + (b - a) * k / steps for a, b in pairwise(columns) for k in range(steps)] + [columns[-1]]
    both = [curves(s) for s in points]
    made = [f'<clipPath id="map"><rect x="{LEFT}" y="{TOP}" width="{width}" height="{height}"/></clipPath>']
    for which, dash in ((0, ' stroke-dasharray="6 5"'), (1, "")):
        path = " ".join(
            f"{LEFT + (_place(s, columns) + 0.5) * CELL_WIDTH:.1f},"
            f"{bottom - (_place(1 + both[i][which], depths) + 0.5) * CELL_HEIGHT:.1f}"
            for i, s in enumerate(points)
        )
        made.append(
            f'<polyline points="{path}" fill="none" stroke="#d95f02" stroke-width="3"{dash} clip-path="url(#map)"/>'
        )
    y = bottom + 66
    return [
        *made,
        f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + 34}" y2="{y}" stroke="#d95f02" stroke-width="3"/>',
        f'<text x="{LEFT + 42}" y="{y + 4}" fill="#1a1a1a">6 xi, the correlation of two inputs</text>',
        f'<line x1="{LEFT + 300}" y1="{y}" x2="{LEFT + 334}" y2="{y}" stroke="#d95f02" stroke-width="3" '
        'stroke-dasharray="6 5"/>',
        f'<text x="{LEFT + 342}" y="{y + 4}" fill="#1a1a1a">6 xi, the gradient</text>',
    ]


def _place(value: float, marks: Sequence[float]) -> float:
    """Where a value lies between marks, in cells; logarithmically, and a little beyond the ends."""
    if math.isinf(value):
        return float(len(marks))
    i = min(max(bisect_right(marks, value) - 1, 0), len(marks) - 2)
    within = math.log(value / marks[i]) / math.log(marks[i + 1] / marks[i])
    return max(-1.0, min(i + within, float(len(marks))))
