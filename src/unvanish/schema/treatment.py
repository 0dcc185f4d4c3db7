"""What was prescribed, how it was tried, and what came of it (contract, treatment result, schema 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from unvanish.schema.finding import SCHEMA_VERSION, TreatmentName, finite

Safety = Literal["safe", "unsafe", "display_only"]
Outcome = Literal["cured", "improved", "no_better", "worse", "failed"]
JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prescription:
    """One change of the model. `target` is a module path, or "*" for the whole model. Holds no code."""

    treatment: TreatmentName
    target: str = "*"
    parameters: dict[str, JsonValue] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {"treatment": self.treatment, "target": self.target, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInterval:
    """Mean first and last loss over the seeds, and the 95 % interval of the last."""

    first: float | None
    last: float | None
    interval: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialMap:
    """How much of the backprop signal reached each layer in one trial, at its traced steps.

    `rows`: layers in execution order. `cells[row][i]`, at `steps[i]`: log10 of the signal over that of the output
    layer, or "nan" (NaN or Inf in it), "zero" (exactly nothing arrives), "unmeasured". `gauge_free`: rescaling a
    layer does not change it.
    """

    rows: tuple[str, ...]
    steps: tuple[int, ...]
    cells: tuple[tuple[float | str, ...], ...]
    gauge_free: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "rows": list(self.rows),
            "steps": list(self.steps),
            "cells": [list(row) for row in self.cells],
            "gauge_free": self.gauge_free,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrialMap:
        """The map that `to_dict` wrote."""
        rows, steps = tuple(map(str, data["rows"])), tuple(map(int, data["steps"]))
        cells = tuple(tuple(c if isinstance(c, str) else float(c) for c in row) for row in data["cells"])
        if len(cells) != len(rows) or any(len(row) != len(steps) for row in cells):
            raise ValueError("a trial's map has not one cell for each layer and step")
        return cls(rows=rows, steps=steps, cells=cells, gauge_free=bool(data.get("gauge_free", True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One candidate (or the baseline) after its trials.

    Gains per layer are squared-norm gains (chi, the SCIENCE of mean field: E[delta^2] ratio per layer), geometric
    mean over the hidden layers, taken at step 0. `curves` holds one mean loss curve per seed at the best rate,
    `signal` the map of the first seed (None where none was taken).
    """

    name: str
    title: str
    prescriptions: tuple[Prescription, ...]
    safety: Safety
    predicted_gain_per_layer: float | None
    measured_gain_per_layer: float | None
    loss: LossInterval
    seeds: int
    steps: int
    outcome: Outcome
    why: str
    learning_rate: float | None = None
    rate_factor: float = 1.0  # of the script's own rate, at which this side does best
    stuck_seeds: int = 0
    curves: tuple[tuple[float, ...], ...] = ()
    curve_steps: tuple[int, ...] = ()
    signal: TrialMap | None = None

    def to_dict(self) -> dict[str, Any]:
        """The contract's object for one trial."""
        return {
            "name": self.name,
            "title": self.title,
            "prescriptions": [p.to_dict() for p in self.prescriptions],
            "safety": self.safety,
            "predicted_gain_per_layer": finite(self.predicted_gain_per_layer),
            "measured_gain_per_layer": finite(self.measured_gain_per_layer),
            "loss": {
                "first": finite(self.loss.first),
                "last": finite(self.loss.last),
                "interval": [finite(self.loss.interval[0]), finite(self.loss.interval[1])],
            },
            "learning_rate": finite(self.learning_rate),
            "rate_factor": finite(self.rate_factor),
            "seeds": self.seeds,
            "stuck_seeds": self.stuck_seeds,
            "steps": self.steps,
            "outcome": self.outcome,
            "why": self.why,
            "curves": [[finite(v) for v in curve] for curve in self.curves],
            "curve_steps": list(self.curve_steps),
            "signal": self.signal.to_dict() if self.signal is not None else None,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrialResult:
        """The trial that `to_dict` wrote."""
        loss = data["loss"]
        return cls(
            name=data["name"],
            title=data.get("title", data["name"]),
            prescriptions=tuple(
                Prescription(treatment=p["treatment"], target=p["target"], parameters=p["parameters"])
                for p in data["prescriptions"]
            ),
            safety=data["safety"],
            predicted_gain_per_layer=data["predicted_gain_per_layer"],
            measured_gain_per_layer=data["measured_gain_per_layer"],
            loss=LossInterval(first=loss["first"], last=loss["last"], interval=tuple(loss["interval"])),
            seeds=data["seeds"],
            steps=data["steps"],
            outcome=data["outcome"],
            why=data["why"],
            learning_rate=data.get("learning_rate"),
            rate_factor=data.get("rate_factor", 1.0),
            stuck_seeds=data.get("stuck_seeds", 0),
            curves=tuple(
                tuple(math.nan if v is None else v for v in curve) for curve in data.get("curves", ())
            ),
            curve_steps=tuple(data.get("curve_steps", ())),
            signal=TrialMap.from_dict(data["signal"]) if data.get("signal") else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Untried:
    """A candidate that no script was trained with, and why not."""

    name: str
    title: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TreatmentResult:
    """All trials of one treatment run, and what was chosen. `steps`: optimizer steps of all trials together."""

    baseline: TrialResult
    trials: tuple[TrialResult, ...]
    chosen: str | None
    recipe: str | None
    diff: str | None
    wall_seconds: float
    chance: float | None = None
    stopped: str | None = None  # why not all trials were run (Ctrl-C, budget); None = all were
    untried: tuple[Untried, ...] = ()
    steps: int = 0
    notes: tuple[str, ...] = ()  # what could not be done, and why; what is to be known of the patch

    def to_dict(self) -> dict[str, Any]:
        """The contract's object."""
        return {
            "schema": SCHEMA_VERSION,
            "baseline": self.baseline.to_dict(),
            "trials": [t.to_dict() for t in self.trials],
            "chosen": self.chosen,
            "recipe": self.recipe,
            "diff": self.diff,
            "wall_seconds": finite(self.wall_seconds),
            "chance": finite(self.chance),
            "stopped": self.stopped,
            "untried": [{"name": u.name, "title": u.title, "why": u.why} for u in self.untried],
            "steps": self.steps,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TreatmentResult:
        """The result that `to_dict` wrote. KeyError or TypeError when it is none."""
        return cls(
            baseline=TrialResult.from_dict(data["baseline"]),
            trials=tuple(TrialResult.from_dict(t) for t in data["trials"]),
            chosen=data["chosen"],
            recipe=data["recipe"],
            diff=data["diff"],
            wall_seconds=data["wall_seconds"] or 0.0,
            chance=data.get("chance"),
            stopped=data.get("stopped"),
            untried=tuple(
                Untried(name=u["name"], title=u["title"], why=u["why"]) for u in data.get("untried", ())
            ),
            steps=data.get("steps", 0),
            notes=tuple(data.get("notes", ())),
        )
