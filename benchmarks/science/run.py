"""Every published figure that unvanish rests on, predicted and measured: writes docs/science.md.

    python benchmarks/science/run.py [--rows 1,2] [--quick] [--map] [--only rows|solutions|map]
        [--write docs/science.md]

Rows are numbered as on the page. The table of the five solutions follows them, and --map adds the map of trainable
depth (some minutes more). --quick takes smaller nets, fewer seeds and fewer rates: what the tests run. Exits with 1
where a row disagrees.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tables import put_between, table

import unvanish
from science import adam, batch_norm, dead_relu, finite_width, mean_field, residual, tailored, trainable
from science import solutions as five
from science.heatmap import svg
from science.row import SURE, Row
from science.task import chance

MARKS = {
    part: (f"<!-- {part}: begin (written by benchmarks/science/run.py) -->", f"<!-- {part}: end -->")
    for part in ("rows", "solutions", "map")
}
PICTURE = Path("images") / "trainable-depth.svg"  # beside the page
SECTIONS: dict[tuple[int, ...], Callable[..., list[Row]]] = {
    (1,): mean_field.critical_lines,
    (2,): mean_field.default_variance,
    (3, 4): mean_field.default_gains,
    (5,): mean_field.tanh_gains,
    (6,): mean_field.relu_gains,
    (7,): batch_norm.relu,
    (8,): batch_norm.linear,
    (9,): batch_norm.smooth,
    (10,): dead_relu.one_ray,
    (11,): dead_relu.whole_net,
    (12,): finite_width.log_norms,
    (13,): finite_width.spectra,
    (14,): finite_width.glorot,
    (15,): residual.growth,
    (16,): residual.norm_placement,
    (17,): tailored.slopes,
    (18,): adam.constant_gradients,
    (19,): adam.half_precision,
    (20,): trainable.six_xi,
    (21,): adam.overshoot,
}
ALL = tuple(sorted(n for numbers in SECTIONS for n in numbers))
ROUNDING = 1e-4
QUICK_RATES = (0.1, 1.0)
CRITICAL = 1.761  # sw2 of tanh at sb2 = .05: row 1


def measure(numbers: Sequence[int], *, quick: bool) -> list[Row]:
    """The rows of these numbers."""
    found = []
    for those, section in SECTIONS.items():
        if set(those) & set(numbers):
            began = time.perf_counter()
            found += [row for row in section(quick=quick) if row.number in numbers]
            spent = time.perf_counter() - began
            print(f"  row {' and '.join(map(str, those))}: {spent:.1f} s", file=sys.stderr, flush=True)
    return found


def measure_solutions(*, quick: bool) -> list[five.Trained]:
    """The table of the five solutions and three half-fixes."""
    found = []
    for variant in five.variants():
        one = five.trained(variant, seeds=1, rates=QUICK_RATES) if quick else five.trained(variant)
        print(f"  {variant.name}: stuck on {one.stuck} of {len(one.losses)}", file=sys.stderr, flush=True)
        found.append(one)
    return found


# --- the page ---------------------------------------------------------------------------------------------------


def rows_section(rows: Sequence[Row], how: str) -> str:
    """Predicted, measured, deviation."""
    head = ["row", "claim", "setting", "predicted", "measured", "deviation", ""]
    body = [
        [str(r.number), r.claim, r.setting, _predicted(r), _measured(r), _deviation(r), _verdict(r)]
        for r in rows
    ]
    right = sum(r.agrees for r in rows)
    summary = f"{right} of {len(rows)} agree. {how}"
    return f"{summary}\n\n{table([head, *body])}"


def _number(value: float) -> str:
    """Five digits that count; plain where that is short."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.5g}"
    return f"{value:.4g}"


def _predicted(row: Row) -> str:
    if isinstance(row.predicted, tuple):
        return "[{}, {}]".format(*map(_number, row.predicted))
    return _exact(row.predicted) if row.standard_error is None else _number(row.predicted)


def _measured(row: Row) -> str:
    if row.standard_error is None:
        return _exact(row.measured)
    return f"{_number(row.measured)} ± {row.standard_error:.2g}"


def _exact(value: float) -> str:
    """Where nothing is drawn, more digits."""
    return f"{value:.10g}"


def _deviation(row: Row) -> str:
    """In standard errors; where nothing is drawn, the difference."""
    if row.deviation is not None:
        return f"{row.deviation:+.1f} s.e."
    return f"{row.distance:+.1g}" if row.distance else "0"


def _verdict(row: Row) -> str:
    if not row.agrees:
        return "**disagrees**"
    sampled = SURE * (row.standard_error or 0.0)
    if abs(row.distance) <= max(sampled, ROUNDING * abs(row.measured), 1e-12):
        return "agrees"
    return f"within {row.tolerance:.2g}: {row.why}"


def solutions_section(trained: Sequence[five.Trained], how: str) -> str:
    """The five solutions and the half-fixes."""
    head = ["variant", "gain per layer, predicted", "measured", "deviation", "signal left", "best-rate loss",
            "best rates", "stuck"]  # fmt: skip
    body = [
        [
            t.variant.name if not t.variant.stuck else f"**{t.variant.name}**",
            f"{t.predicted:.3f}",
            f"{t.measured:.3f} ± {t.standard_error:.2g}",
            f"{t.measured / t.predicted - 1:+.0%}, {(t.measured - t.predicted) / t.standard_error:+.1f} s.e.",
            f"{t.left:.1g}" if t.predicted_stuck else f"{t.left:.2f}",
            _span(t.losses),
            ", ".join(f"{r:g}" for r in sorted(set(t.rates))),
            f"**{t.stuck}/{len(t.losses)}**" if t.stuck else f"0/{len(t.losses)}",
        ]
        for t in trained
    ]
    right = sum(t.as_known and t.predicted_stuck == t.variant.stuck for t in trained)
    lead = f"{right} of {len(trained)} are stuck on all seeds, or train on all, as predicted. {how}"
    return f"{lead}\n\n{table([head, *body])}"


def _span(losses: Sequence[float]) -> str:
    low, high = min(losses), max(losses)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}-{high:.2f}"


def map_section(cells: Sequence[trainable.Cell], how: str) -> str:
    """The picture, and what it holds in words."""
    steps = trainable.MAP_STEPS
    below = [c for c in cells if c.sw2 < CRITICAL and not c.predicted]
    above = [c for c in cells if c.sw2 < CRITICAL and c.predicted]
    words = (
        f"{trainable.MAP_STEPS} steps. Of {len(below)} nets in the ordered phase below the curve "
        f"{sum(not c.stalls(steps) for c in below)} have left chance; of {len(above)} above it "
        f"{sum(c.stalls(steps) for c in above)} have not."
    )
    return f"![Loss over sw2 and depth, with the 6-xi curve]({PICTURE.as_posix()})\n\n{words} {how}"


def how(command: str, seconds: float) -> str:
    """When, where, and with what."""
    date = datetime.now(timezone.utc).date().isoformat()
    return (
        f"Measured on {date} by `{command}` in {max(1, round(seconds / 60))} min, on {os.cpu_count()} cores "
        f"({platform.machine()}, {platform.system()}, no GPU used), torch {torch.__version__.partition('+')[0]}, "
        f"Python {platform.python_version()}, unvanish {unvanish.__version__}."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--rows", help=f"only these rows, separated by commas, of 1 to {ALL[-1]}; no solutions"
    )
    parser.add_argument("--quick", action="store_true", help="smaller nets, fewer seeds: under two minutes")
    parser.add_argument("--map", action="store_true", help="also train the map of trainable depth")
    parser.add_argument("--only", choices=MARKS, help="one part of the page")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put what was measured between the page's marks"
    )
    options = parser.parse_args()
    try:
        options.numbers = tuple(int(n) for n in options.rows.split(",")) if options.rows else ALL
    except ValueError:
        parser.error(f"--rows takes numbers of rows, received {options.rows!r}: write --rows 1,2")
    if unknown := sorted(set(options.numbers) - set(ALL)):
        parser.error(f"there is no row {unknown[0]}: choose from 1 to {ALL[-1]}")
    if options.write and (options.rows or options.quick):
        parser.error("the page holds all rows, in full: leave --rows and --quick out, or --write")
    options.parts = {"rows", "solutions", *(["map"] if options.map else [])}
    if options.rows or options.only:
        options.parts = {options.only or "rows"}
    return options


def main() -> int:
    """Measure, print, write; 1 where something disagrees."""
    options = _arguments()
    torch.set_num_threads(1)
    command = f"python benchmarks/science/run.py{' --quick' if options.quick else ''}"
    parts: dict[str, str] = {}
    wrong = 0
    if "rows" in options.parts:
        began = time.perf_counter()
        rows = measure(options.numbers, quick=options.quick)
        wrong += sum(not r.agrees for r in rows)
        parts["rows"] = rows_section(rows, how(command, time.perf_counter() - began))
    if "solutions" in options.parts:
        began = time.perf_counter()
        trained = measure_solutions(quick=options.quick)
        wrong += sum(not t.as_known or t.predicted_stuck != t.variant.stuck for t in trained)
        parts["solutions"] = solutions_section(trained, how(command, time.perf_counter() - began))
    if "map" in options.parts:
        began = time.perf_counter()
        cells = list(trainable.grid())
        parts["map"] = map_section(cells, how(f"{command} --map", time.perf_counter() - began))
        if options.write:
            picture = options.write.parent / PICTURE
            picture.write_text(svg(cells, chance(trainable.CLASSES), trainable.curves), encoding="utf-8")
    print("\n\n".join(parts.values()))
    if options.write:
        for part, text in parts.items():
            put_between(options.write, MARKS[part], text)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
