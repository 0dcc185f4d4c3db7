"""Several runs beside each other: where their signal maps differ most, and a table of what each came to."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from unvanish.present import words
from unvanish.present.series import spread
from unvanish.present.signal import NAN, UNMEASURED, ZERO, Cell
from unvanish.present.text import NAME, Page

COLUMNS = 400
MOST_LAYERS = 8  # that the table of differences names
_HEAD = ("Run", "Verdict", "First layer", "Signal there", "Loss first", "last", "Steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDifference:
    """A layer of two maps, at the last step that both have measured. `decades`: of the second run over the first."""

    layer: str
    first: Cell
    second: Cell
    decades: float | None  # None: one of them is no number


def differences(views: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The maps of the other runs less that of the first one, model by model; what is drawn as difference maps.

    Each has `a` and `b` (the runs' ids), `model`, `rows`, `steps`, `cells` [rows x steps]: decades of b over a, or
    the mark of what is no number. `aligned` says whether rows are matched by "name", or by "position" where the two
    have as many layers and no name in common; without either there are no rows. `only_a`, `only_b`: unmatched rows.
    """
    found = []
    for view in views[1:]:
        for mine, other in _pairs(views[0]["models"], view["models"]):
            difference = map_difference(mine["signal"], other["signal"])
            names = {"a": views[0]["run"]["id"], "b": view["run"]["id"], "model": mine["name"]}
            found.append({**names, **difference})
    return found


def map_difference(mine: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The second map less the first, at the steps that both of them span."""
    pairs, aligned = _matched(mine["rows"], other["rows"])
    steps = _common_steps(mine["steps"], other["steps"])
    columns = [(_column(mine["steps"], s), _column(other["steps"], s)) for s in steps]
    cells = [
        [_less(other["cells"][j][theirs], mine["cells"][i][ours]) for ours, theirs in columns]
        for i, j in pairs
    ]
    return {
        "rows": [mine["rows"][i] for i, _ in pairs],
        "rows_b": [other["rows"][j] for _, j in pairs],
        "steps": steps,
        "cells": cells,
        "aligned": aligned,
        "only_a": _others(mine["rows"], {i for i, _ in pairs}),
        "only_b": _others(other["rows"], {j for _, j in pairs}),
    }


def comparison(views: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page and --json hold of several runs."""
    return {"kind": "compare", "runs": list(views), "differences": differences(views)}


def layer_differences(first: dict[str, Any], second: dict[str, Any]) -> list[LayerDifference]:
    """The layers of two views by how far apart they end up, the farthest first. Marks come before numbers."""
    found = []
    for mine, other in _pairs(first["models"], second["models"])[:1]:
        pairs, _ = _matched(mine["signal"]["rows"], other["signal"]["rows"])
        ours, theirs = mine["signal"]["profile"], other["signal"]["profile"]
        for i, j in pairs:
            less = _less(theirs[j], ours[i])
            decades = less if isinstance(less, float) else None
            if decades is not None or UNMEASURED not in (ours[i], theirs[j]):
                found.append(
                    LayerDifference(
                        layer=mine["signal"]["rows"][i], first=ours[i], second=theirs[j], decades=decades
                    )
                )
    return sorted(found, key=lambda d: -math.inf if d.decades is None else -abs(d.decades))


def print_comparison(views: Sequence[dict[str, Any]], console: Console) -> None:
    """A row for every model of every run, then where the others differ most from the first."""
    page = Page(console=console)
    rows = [row for view in views for row in _rows(view)]
    page.table(_HEAD, rows, numbers=(3, 4, 5, 6))
    page.line(
        "Signal there: decades of backprop signal at the first layer over that at the output, "
        "at the last traced step.",
        "dim",
    )
    for view in views[1:]:
        page.gap()
        _differences_of(views[0], view, page)


def _rows(view: dict[str, Any]) -> list[tuple[str, ...]]:
    name = words.shortened(view["run"]["id"], NAME)
    if not view["models"]:
        return [(name, "no model was trained", "-", "-", "-", "-", "0")]
    several = len(view["models"]) > 1
    rows: list[tuple[str, ...]] = []
    for model in view["models"]:
        loss, signal = model["loss"], model["signal"]
        kinds = list(dict.fromkeys(f["kind"].replace("_", " ") for f in model["findings"]))
        told = words.VERDICT_WORDS[model["verdict"]]
        if kinds and model["verdict"] in ("sick", "not_learning"):
            told += f": {words.listed(kinds, 2)}"
        rows.append(
            (
                f"{name}, {words.shortened(model['name'], NAME // 2)}" if several else name,
                told,
                words.shortened(signal["rows"][0], NAME // 2) if signal["rows"] else "-",
                _cell(signal["profile"][0]) if signal["profile"] else "-",
                words.plain(loss["first"], 4),
                words.plain(loss["last"], 4),
                f"{loss['recorded']:,}",
            )
        )
    return rows


def _differences_of(first: dict[str, Any], second: dict[str, Any], page: Page) -> None:
    a, b = (words.shortened(v["run"]["id"], NAME) for v in (first, second))
    found = layer_differences(first, second)
    if not found:
        page.line(f"{b} and {a} have no traced layers to compare.")
        return
    apart = [d for d in found if d.decades is None or abs(d.decades) >= 0.1]
    if not apart:
        page.line(f"Every layer of {b} gets what it gets in {a}, within a tenth of a decade.")
        return
    page.line(f"Where {b} differs most from {a}:", "bold")
    rows = [
        (words.shortened(d.layer, NAME), _cell(d.first), _cell(d.second), words.decades(d.decades))
        for d in apart[:MOST_LAYERS]
    ]
    page.table(("Layer", "First", "Second", "Decades"), rows, numbers=(1, 2, 3))


def _cell(cell: Cell) -> str:
    marks = {NAN: "NaN", ZERO: "zero", UNMEASURED: "-"}
    return marks[cell] if isinstance(cell, str) else words.decades(float(cell))


def _pairs(
    mine: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Models of the same name; where no name is common, in their order."""
    by_name = {m["name"]: m for m in others}
    found = [(m, by_name[m["name"]]) for m in mine if m["name"] in by_name]
    return found or list(zip(mine, others, strict=False))


def _matched(mine: Sequence[str], others: Sequence[str]) -> tuple[list[tuple[int, int]], str]:
    """Pairs of rows by name, in the order of the first map."""
    places = {name: j for j, name in enumerate(others)}
    pairs = [(i, places[name]) for i, name in enumerate(mine) if name in places]
    if not pairs and len(mine) == len(others):
        return [(i, i) for i in range(len(mine))], "position"
    return pairs, "name"


def _others(rows: Sequence[str], matched: set[int]) -> list[str]:
    return [name for i, name in enumerate(rows) if i not in matched]


def _common_steps(mine: Sequence[int], others: Sequence[int]) -> list[int]:
    if not mine or not others:
        return []
    low, high = max(mine[0], others[0]), min(mine[-1], others[-1])
    steps = sorted({s for s in (*mine, *others) if low <= s <= high})
    return [steps[i] for i in spread(len(steps), COLUMNS)]


def _column(steps: Sequence[int], step: int) -> int:
    """The last column that was measured by then."""
    return max(bisect_right(steps, step) - 1, 0)


def _less(other: Cell, mine: Cell) -> Cell:
    for bad in (NAN, ZERO, UNMEASURED):
        if bad in (other, mine):
            return bad
    return round(float(other) - float(mine), 2)
