"""Nets without weights (the meta device): what an initialisation would give them, and theory's word alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from unvanish.errors import UnvanishError
from unvanish.precheck.layers import gains_from, mean_gain, total_decades
from unvanish.precheck.measure import measure
from unvanish.precheck.signal import LIMIT
from unvanish.schema.architecture import LayerSpec
from unvanish.schema.call import Batch
from unvanish.schema.check import Change
from unvanish.schema.finding import NotChecked
from unvanish.schema.treatment import Prescription
from unvanish.treatment.candidate import Candidate
from unvanish.treatment.operate import apply


def predict_changes(
    model: nn.Module, batch: Batch, candidates: Sequence[Candidate], *, seed: int
) -> tuple[tuple[Change, ...], tuple[NotChecked, ...]]:
    """(what theory expects of each change, the best first; what can't be said). Nothing is measured: no weights."""
    found: list[tuple[bool, float, int, Change]] = []
    refused: dict[str, list[str]] = {}
    for candidate in candidates:
        drawn = [p for p in candidate.prescriptions if p.treatment == "init"]
        built = [p for p in candidate.prescriptions if p.treatment != "init"]
        try:
            twin = copy.deepcopy(model)
            with torch.device("meta"):  # where new modules are made, too
                apply(twin, built, seed=seed)
            measured = measure(twin, batch, probes=1, seed=seed)
        except UnvanishError as error:
            refused.setdefault(error.mistake, []).append(candidate.title)
            continue
        layers = _drawn(measured.run.architecture, drawn)
        gains = None if layers is None else gains_from(measured, layers)
        gain = None if gains is None else mean_gain(gains, predicted=True)
        decades = None if gains is None else total_decades(gains)
        if gain is None or decades is None:
            refused.setdefault("theory has no say on it", []).append(candidate.title)
            continue
        carries = abs(decades) <= LIMIT
        way = "vanishes" if decades < 0 else "explodes"
        change = Change(
            name=candidate.name,
            title=candidate.title,
            treatment=candidate.treatment,
            prescriptions=tuple(p.to_dict() for p in candidate.prescriptions),
            predicted_gain=gain,
            measured_gain=None,
            signal=decades,
            carries=carries,
            words="carries, by theory" if carries else f"{way}, by theory: 10^{decades:.1f}",
        )
        found.append((not carries, abs(decades), candidate.effort, change))
    skipped = tuple(NotChecked(what=", ".join(titles), why=why) for why, titles in refused.items())
    return tuple(change for *_, change in sorted(found, key=lambda f: f[:3])), skipped


def _drawn(layers: Sequence[LayerSpec], drawn: Sequence[Prescription]) -> tuple[LayerSpec, ...] | None:
    """The layers with the weights that this init would draw; None for one that looks at data."""
    out = tuple(layers)
    for prescription in drawn:
        scheme = prescription.parameters["scheme"]
        if scheme not in _SCALES:
            return None
        out = tuple(
            replace(s, weight_variance=_scale(str(scheme), s), bias_variance=0.0, bias_centres=False)
            for s in out
        )
    return out


def _scale(scheme: str, spec: LayerSpec) -> float:
    """fan_in Var W."""
    if scheme == "he":
        slope = spec.activation_parameters.get("negative_slope", 0.0)
        return 1.0 if spec.activation == "identity" else 2.0 / (1.0 + slope**2)
    return 2.0 * spec.fan_in / (spec.fan_in + spec.fan_out) if scheme == "xavier" else 1.0


_SCALES = frozenset(("he", "xavier", "lecun", "orthogonal"))


def bare_sentence(decades: float | None) -> str:
    """What theory alone says of the whole net."""
    if decades is None:
        return "there are no weights to measure, and theory has no say on some of its layers"
    return f"by theory alone, as there are no weights, the first layers get 10^{decades:.1f} of the output's signal"


def lost(decades: float | None) -> bool:
    """Whether theory expects the signal to be lost, or to run away."""
    return decades is not None and math.isfinite(decades) and abs(decades) > LIMIT
