"""Long series made short on this side, so that the page only draws: loss, and the weights over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.present import words
from unvanish.schema.finding import ModelDiagnosis
from unvanish.schema.run import SNAPSHOT_QUANTILES, ModelRun, Snapshot

LOSS_POINTS = 2000
SMOOTH_POINTS = 400
MARKS = 60
LOG_RANGE = 20.0  # a loss that spans more than this factor is drawn on a log axis
WEIGHT_CELLS = 1_500_000  # numbers of all weight bands of one model together
WEIGHT_COLUMNS = 120
FLAT_POINTS = 60  # a plateau is looked for on this many points of the smoothed loss
FLAT_SHARE = 0.03  # of the loss's whole fall: a stretch that stays within it is flat
FLAT_LEAST = 0.15  # of the run: what is shorter is not worth a mark


def number(value: float | None, digits: int = 5) -> float | None:
    """The value rounded to `digits` significant digits; None where JSON can't hold it."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits - 1}e}")
    return rounded if math.isfinite(rounded) else value  # the largest floats round up to infinity


def mark(value: float | None) -> str | None:
    """Why a value is no number: "nan", "inf", "unmeasured"; None = it is one."""
    if value is None:
        return "unmeasured"
    if math.isnan(value):
        return "nan"
    return "inf" if math.isinf(value) else None


def bucket_extremes(values: NDArray[np.float64], points: int) -> NDArray[np.intp]:
    """Indices that keep the minimum and the maximum of each bucket, so that no spike is lost.

    `values` must be finite. At most `points` indices come back, in order; all of them where they fit.
    """
    n = len(values)
    if n <= points:
        return np.arange(n)
    bounds = np.linspace(0, n, points // 2 + 1).astype(int)
    kept: set[int] = set()
    for low, high in pairwise(bounds.tolist()):
        part = values[low:high]
        kept.add(low + int(part.argmin()))
        kept.add(low + int(part.argmax()))
    return np.array(sorted(kept), dtype=np.intp)


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices of 0..count-1, evenly spread, the first and the last among them."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i * (count - 1) / (limit - 1)) for i in range(limit)})


def loss_view(model: ModelRun, diagnosis: ModelDiagnosis | None) -> dict[str, Any]:
    """The loss over the steps, its smooth course, and what is marked on the time axis."""
    steps = np.array(model.steps, dtype=np.int64)
    losses = np.array(model.losses, dtype=np.float64)
    good = np.isfinite(losses)
    x, y = steps[good], losses[good]
    keep = bucket_extremes(y, LOSS_POINTS)
    low, high = (float(y.min()), float(y.max())) if len(y) else (None, None)
    log = low is not None and high is not None and low > 0 and high / low > LOG_RANGE
    seen = np.array([int(s) not in model.unseen_losses for s in steps], dtype=bool)
    missing = steps[~good & seen]
    chance = diagnosis.loss.chance if diagnosis else None
    return {
        "steps": [int(s) for s in x[keep]],
        "values": [number(v) for v in y[keep]],
        "smooth": _smooth(x, y),
        "recorded": len(steps),
        "finite": int(good.sum()),
        "unseen": int((~seen).sum()),
        "log": bool(log),
        "min": number(low),
        "max": number(high),
        "first": number(diagnosis.loss.first) if diagnosis else None,
        "last": number(diagnosis.loss.last) if diagnosis else None,
        "chance": number(chance),
        "non_finite_steps": [int(missing[i]) for i in spread(len(missing), MARKS)],
        "non_finite": len(missing),
        "marks": [
            {"step": f.first_step, "label": words.KIND_WORDS[f.kind], "severity": f.severity}
            for f in (diagnosis.findings if diagnosis else ())
        ],
        "flat": flat_stretches(x, y),
        "summary": _loss_summary(diagnosis, len(missing), int((~seen).sum())),
    }


def loss_window(model: ModelRun, first: int, last: int) -> dict[str, Any]:
    """The loss of these steps, both included; `exact`: all of it, not the extremes of each few steps."""
    steps = np.array(model.steps, dtype=np.int64)
    losses = np.array(model.losses, dtype=np.float64)
    inside = (first <= steps) & (steps <= last) & np.isfinite(losses)
    x, y = steps[inside], losses[inside]
    keep = bucket_extremes(y, LOSS_POINTS)
    return {
        "steps": [int(s) for s in x[keep]],
        "values": [number(v) for v in y[keep]],
        "smooth": _smooth(x, y),
        "exact": len(keep) == len(x),
    }


def flat_stretches(steps: NDArray[np.int64], losses: NDArray[np.float64]) -> list[list[int]]:
    """[first, last] step of every stretch on which the smoothed loss hardly moves; `losses` must be finite."""
    if len(losses) < 40:
        return []
    bounds = np.linspace(0, len(losses), min(FLAT_POINTS, len(losses) // 5) + 1).astype(int)
    level = np.array([np.median(losses[a:b]) for a, b in pairwise(bounds.tolist())])
    noise = np.median(np.abs(np.diff(losses)))
    # a loss that moves by less than a percent in all is flat, however its noise is stretched
    whole = max(float(np.ptp(level)), 0.01 * float(np.abs(level).max()), float(noise))
    swing = 6 * float(noise) / math.sqrt(len(losses) / len(level))  # what noise alone does to these medians
    least = math.ceil(FLAT_LEAST * len(level))
    found: list[list[int]] = []
    start = joined = 0
    while start < len(level):
        end, low, high = start, level[start], level[start]
        while end + 1 < len(level):
            low, high = min(low, level[end + 1]), max(high, level[end + 1])
            if high - low > max(FLAT_SHARE * whole, swing):
                break
            end += 1
        if end - start + 1 >= least:
            first, last = int(steps[bounds[start]]), int(steps[bounds[end + 1] - 1])
            if (
                found
                and start - joined <= 0.05 * len(level)
                and abs(level[start] - level[joined]) < 0.1 * whole
            ):
                found[-1][1] = last  # a bump between two stretches of one plateau
            else:
                found.append([first, last])
            joined = end
            start = end + 1
        else:
            start += 1
    return found


def _smooth(x: NDArray[np.int64], y: NDArray[np.float64]) -> dict[str, list[Any]] | None:
    """A centred moving mean over about 1/40 of the run; None where there is too little to smooth."""
    if len(y) < 120:
        return None
    width = max(len(y) // 40, 5) | 1
    sums = np.concatenate(([0.0], np.cumsum(y)))
    left = np.clip(np.arange(len(y)) - width // 2, 0, None)
    right = np.clip(np.arange(len(y)) + width // 2 + 1, None, len(y))
    means = (sums[right] - sums[left]) / (right - left)
    keep = spread(len(y), SMOOTH_POINTS)
    return {"steps": [int(x[i]) for i in keep], "values": [number(float(means[i])) for i in keep]}


def _loss_summary(diagnosis: ModelDiagnosis | None, missing: int, unseen: int) -> str:
    if diagnosis is None or diagnosis.loss.last is None:
        return "No finite loss was recorded."
    loss = diagnosis.loss
    text = f"From {words.plain(loss.first, 4)} to {words.plain(loss.last, 4)}"
    if loss.chance is not None:
        text += f"; the best constant guess gives {words.plain(loss.chance, 4)}"
    if missing:
        text += f"; NaN or infinite at {missing} steps"
    if unseen:
        text += f"; no loss was seen at {unseen} steps"
    return text + "."


def weights_view(model: ModelRun, starved: str | None) -> dict[str, Any]:
    """Quantile bands and norm of every parameter over time, and which three to show first.

    `starved` is the layer or parameter that gets the least signal.
    """
    by_parameter: dict[int, list[Snapshot]] = {}
    for shot in model.snapshots:
        by_parameter.setdefault(shot.parameter, []).append(shot)
    known = [p for p in model.info.parameters if p.index in by_parameter]
    share = WEIGHT_CELLS // max(len(known) * (len(SNAPSHOT_QUANTILES) + 1), 1)
    columns = max(min(share, WEIGHT_COLUMNS), 8)
    parameters = []
    for info in known:
        shots = sorted(by_parameter[info.index], key=lambda s: s.step)
        shots = [shots[i] for i in spread(len(shots), columns)]
        parameters.append(
            {
                "name": info.name,
                "shape": list(info.shape),
                "steps": [s.step for s in shots],
                "norm": [number(s.norm, 4) for s in shots],
                "bands": [[number(s.quantiles[q], 4) for s in shots] for q in range(len(SNAPSHOT_QUANTILES))],
                "non_finite": sum(not all(map(math.isfinite, (s.norm, *s.quantiles))) for s in shots),
                "summary": _weight_summary(shots),
            }
        )
    names = [p.name for p in known]
    return {
        "quantiles": list(SNAPSHOT_QUANTILES),
        "parameters": parameters,
        "default": _default_parameters(names, starved),
    }


def _weight_summary(shots: Sequence[Snapshot]) -> str:
    first, last = shots[0].norm, shots[-1].norm
    text = f"Norm {words.plain(first, 3)} to {words.plain(last, 3)}"
    if math.isfinite(first) and math.isfinite(last) and first > 0:
        moved = 100 * (last / first - 1)
        text += f" ({moved:+.2g} %)" if abs(moved) >= 0.005 else " (hardly moved)"
    return text + "."


def _default_parameters(names: Sequence[str], starved: str | None) -> list[int]:
    """First, most starved and last weight; where these are the same, the one in the middle fills up."""
    weights = [i for i, name in enumerate(names) if not name.endswith("bias")] or list(range(len(names)))
    if not weights:
        return []
    found = [i for i in weights if starved and (names[i] == starved or names[i].startswith(starved + "."))]
    wish = [weights[0], found[0] if found else weights[0], weights[-1], weights[len(weights) // 2], *weights]
    return sorted(list(dict.fromkeys(wish))[:3])
