"""The treatments that were tried: one row each, and their loss curves."""

from __future__ import annotations

import math
import shlex
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from unvanish.present import words
from unvanish.present.series import LOG_RANGE, number, spread
from unvanish.present.signal import NAN, UNMEASURED, ZERO, Cell, colour_limits, map_summary, profile
from unvanish.schema.treatment import TreatmentResult, TrialMap, TrialResult

CURVE_POINTS = 240
PATCH_SIGNS = 200_000  # of a longer patch only the beginning is shown


def trials_view(result: TreatmentResult, run_path: str, script: str | None = None) -> dict[str, Any]:
    """The baseline and every trial, with what was predicted beside what was measured.

    A page is sent to others, so files of the run are named as they lie in its folder, at `run_path`. `script`: what
    was run, for the command that runs it treated.
    """
    rows = [_trial(result.baseline, role="baseline", chosen=False)]
    rows += [_trial(t, role="trial", chosen=t.name == result.chosen) for t in result.trials]
    gains = [g for r in rows for g in (r["predicted"], r["measured"]) if g]
    return {
        "rows": rows,
        "chance": number(result.chance),
        "chosen": result.chosen,
        "recipe": _in_run(result.recipe, run_path),
        "diff": _in_run(result.diff, run_path),
        "patch": patch_text(result.diff, run_path),
        "untried": [{"name": u.name, "title": u.title or u.name, "why": u.why} for u in result.untried],
        "notes": list(result.notes),
        "steps": result.steps,
        "stopped": result.stopped,
        "wall_seconds": number(result.wall_seconds, 3),
        "gain_low": min([0.1, *gains]),
        "gain_high": max([2.0, *gains]),
        **_curve_range(result),
        **_map_range(result),
        "summary": trials_sentence(result),
        "next": _next(result, run_path, script),
    }


def trials_sentence(result: TreatmentResult) -> str:
    """How many helped, and which was chosen."""
    cured = [t for t in result.trials if t.outcome == "cured"]
    text = f"{len(cured)} of {len(result.trials)} treatments cured it"
    chosen = next((t for t in result.trials if t.name == result.chosen), None)
    if chosen is None:
        return text + "; none was chosen."
    return f"{text}; chosen: {chosen.title or chosen.name}."


def _next(result: TreatmentResult, run_path: str, script: str | None) -> dict[str, str | None] | None:
    """What to do now, and the command for it; None where no treatment was chosen."""
    chosen = next((t for t in result.trials if t.name == result.chosen), None)
    if chosen is None:
        return None
    text = f"Train with the treatment that was chosen: {chosen.title or chosen.name}."
    inside = _in_run(result.recipe, run_path)
    if result.recipe is None or inside is None:
        return {"text": text, "command": None}
    place = inside if inside == result.recipe else str(PurePath(*PurePath(run_path).parts[-2:], inside))
    name = PurePath(script).name if script else "your_script.py"
    return {"text": text, "command": shlex.join(["unvanish", "run", "--recipe", place, name])}


def loss_text(trial: TrialResult) -> str:
    """The last loss with its interval: "0.412 [0.398, 0.425]"."""
    low, high = trial.loss.interval
    text = words.plain(trial.loss.last, 3)
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        text += f" [{words.plain(low, 3)}, {words.plain(high, 3)}]"
    return text


def _in_run(path: str | None, run_path: str) -> str | None:
    """The path below the run's folder; one of the two paths may be relative, so the folder's name decides."""
    parts, folder = PurePath(path or "").parts, PurePath(run_path).name
    return str(PurePath(*parts[parts.index(folder) + 1 :])) if folder in parts[:-1] else path


def patch_text(diff: str | None, run_path: str) -> str | None:
    """The source patch, where it is a file in the run's folder; None where there is none, or it lies elsewhere.

    A link that leads out of the folder is not followed: a page is sent to others.
    """
    inside = _in_run(diff, run_path)
    if diff is None or inside is None:
        return None
    folder = Path(run_path)
    folder = folder if folder.is_dir() else folder.parent
    try:
        path, root = (folder / inside).resolve(), folder.resolve()
        if not path.is_relative_to(root) or not path.is_file():
            return None
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(PATCH_SIGNS + 1)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return text if len(text) <= PATCH_SIGNS else f"{text[:PATCH_SIGNS]}\n... (the rest is in {inside})\n"


def gain_text(value: float | None) -> str:
    """A gain per layer: near 1 the third digit tells, far below it does not."""
    return words.plain(value, 3 if value is not None and value >= 0.1 else 2)


def _trial(trial: TrialResult, role: str, chosen: bool) -> dict[str, Any]:
    return {
        "name": trial.name,
        "title": trial.title or trial.name,
        "role": role,
        "chosen": chosen,
        "safety": trial.safety,
        "predicted": _gain(trial.predicted_gain_per_layer),
        "measured": _gain(trial.measured_gain_per_layer),
        "predicted_text": gain_text(trial.predicted_gain_per_layer),
        "measured_text": gain_text(trial.measured_gain_per_layer),
        "first": number(trial.loss.first),
        "last": number(trial.loss.last),
        "interval": [number(v) for v in trial.loss.interval],
        "loss_text": loss_text(trial),
        "outcome": trial.outcome,
        "outcome_text": "baseline" if role == "baseline" else words.OUTCOME_WORDS[trial.outcome],
        "why": trial.why,
        "seeds": trial.seeds,
        "stuck_seeds": trial.stuck_seeds,
        "steps": trial.steps,
        "learning_rate": words.plain(trial.learning_rate),
        "curve": _curve(trial),
        "map": _map(trial.signal),
    }


def _gain(value: float | None) -> float | None:
    return number(value, 3) if value is not None and value > 0 else None


def _curve(trial: TrialResult) -> dict[str, list[Any]] | None:
    """Mean over the seeds and its range, at each step where every seed has a finite loss."""
    curves = [c for c in trial.curves if c]
    if not curves:
        return None
    length = min(map(len, curves))
    losses = np.array([c[:length] for c in curves], dtype=np.float64)
    steps = list(trial.curve_steps[:length]) or list(range(length))
    keep = [i for i in spread(min(length, len(steps)), CURVE_POINTS) if np.isfinite(losses[:, i]).all()]
    return {
        "steps": [steps[i] for i in keep],
        "mean": [number(float(losses[:, i].mean())) for i in keep],
        "low": [number(float(losses[:, i].min())) for i in keep],
        "high": [number(float(losses[:, i].max())) for i in keep],
    }


def _map(signal: TrialMap | None) -> dict[str, Any] | None:
    """The trial's signal map as the page draws it; None where none was kept."""
    if signal is None or not signal.rows or not signal.steps:
        return None
    cells: list[list[Cell]] = [[_cell(c) for c in row] for row in signal.cells]
    return {
        "rows": list(signal.rows),
        "steps": list(signal.steps),
        "cells": cells,
        "gauge_free": signal.gauge_free,
        "profile": profile(signal.rows, cells),
        "summary": map_summary(signal.rows, cells),
    }


def _cell(cell: float | str) -> Cell:
    """A file may be written by others: what is no finite number and none of the marks is not drawn as either."""
    if isinstance(cell, str):
        return cell if cell in (NAN, ZERO) else UNMEASURED
    return round(cell, 2) if math.isfinite(cell) else NAN


def _map_range(result: TreatmentResult) -> dict[str, Any]:
    """One colour scale for the maps of all trials, so that before and after can be compared by eye."""
    maps = [t.signal for t in (result.baseline, *result.trials) if t.signal is not None]
    cells = [[_cell(c) for c in row] for m in maps for row in m.cells]
    low, high = colour_limits(cells)
    return {"map_low": low, "map_high": high}


def _curve_range(result: TreatmentResult) -> dict[str, Any]:
    """The range of all loss curves, and whether it is so wide that a log axis shows it better."""
    trials = (result.baseline, *result.trials)
    values = [v for t in trials for c in t.curves for v in c if math.isfinite(v)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return {"low": number(low), "high": number(high), "log": low > 0 and high / low > LOG_RANGE}
