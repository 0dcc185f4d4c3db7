"""The paths to a single weight for the terminal: the strongest ones through named units, and what is left."""

from __future__ import annotations

from rich.console import Console

from unvanish.present import words
from unvanish.present.text import Page
from unvanish.schema.explanation import PathStep, ScalarPath, ScalarPaths

MOST_STATIONS = 8


def print_paths(found: ScalarPaths, console: Console) -> None:
    """The gradient of one weight as a sum over paths."""
    page = Page(console=console)
    name = f"{found.parameter}[{','.join(map(str, found.index))}]" if found.index else found.parameter
    page.line(
        f"One weight: {name} = {words.plain(found.weight, 4)}. Its gradient is {words.plain(found.gradient, 6)}",
        "bold",
    )
    if found.total is None:
        page.line(words.sentence(words.capital(found.note)))
        if found.steps:
            page.line(f"Layer by layer instead: {_product(found.steps)} = {words.plain(found.gradient, 6)}.")
        return
    several = "" if found.samples == 1 else f", each summed over the {found.samples} samples of the batch"
    page.line(
        f"It is the sum over {words.count(found.count)} paths from the loss through units of the net{several}."
    )
    if found.paths:
        rows = [
            (str(i + 1), words.plain(p.product, 4), _share(p, found), _route(p, name))
            for i, p in enumerate(found.paths)
        ]
        page.table(("", "Product", "Of the sum", "The strongest paths"), rows, numbers=(0, 1, 2))
    page.line(_sum(found))
    if found.paths:
        page.gap()
        page.line("The strongest path, factor by factor")
        strongest = found.paths[0]
        steps = [(words.shortened(s.label, 60), words.plain(s.value, 4)) for s in strongest.steps]
        page.table(
            ("Factor", "Value"), [*steps, ("= product", words.plain(strongest.product, 4))], numbers=(1,)
        )
        if found.samples > 1:
            page.line(
                "Weights are as they are; the other values are rms over the samples, the product is their exact sum.",
                "dim",
            )
    if found.note:
        page.line(words.sentence(words.capital(found.note)), "dim")


def _share(path: ScalarPath, found: ScalarPaths) -> str:
    return f"{100 * path.product / found.total:.1f} %" if found.total else "-"


def _route(path: ScalarPath, name: str) -> str:
    stations = list(path.route)
    if len(stations) > MOST_STATIONS:
        side = MOST_STATIONS // 2
        stations = [*stations[:side], f"({len(stations) - 2 * side} more)", *stations[-side:]]
    return " -> ".join(["loss", *stations, name])


def _product(steps: tuple[PathStep, ...]) -> str:
    return " x ".join(f"{s.label} {words.plain(s.value, 3)}" for s in steps)


def _sum(found: ScalarPaths) -> str:
    left = found.count - len(found.paths)
    shown = f"Shown {words.plain(found.covered, 6)}"
    rest = f" + the other {words.count(left)} paths {words.plain(found.remainder, 6)}" if left > 0 else ""
    total = found.total or 0.0
    gap, size = abs(total - found.gradient), max(abs(total), abs(found.gradient), 1e-300)
    agreed = f"autograd's gradient to {words.plain(gap / size, 2)} of its size"
    if gap <= 1e-12 * size or gap <= 1e-15 * found.absolute:
        agreed = "autograd's gradient, exactly"
    share = (
        f" With all signs taken away, the shown paths are {words.plain(100 * found.share)} % of the whole."
        if left > 0
        else ""
    )
    return f"{shown}{rest} = {words.plain(total, 6)}: {agreed}.{share}"
