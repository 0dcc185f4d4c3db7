"""Single changes to try on a copy: another init, activation (with the init it needs), norm, skips, less depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unvanish.schema.architecture import LayerSpec
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import JsonValue, Prescription

RECTIFIERS = frozenset(("relu", "leaky_relu", "relu6", "gelu", "silu", "prelu", "elu", "mish", "celu"))
ORTHOGONAL = frozenset(("orthogonal", "lsuv", "centred"))
MOST_DRAWN = 2e10  # products that drawing orthogonal matrices takes
_TO_THREE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One change. `treatment` is what it is about; `rank` how much of the net it changes (less first)."""

    name: str
    title: str
    treatment: TreatmentName
    prescriptions: tuple[Prescription, ...]
    rank: int


def candidates_for(layers: Sequence[LayerSpec], greatest: int | None) -> tuple[Candidate, ...]:
    """What is worth a backward pass on this net. `greatest`: the depth that its recipe can carry, where known.

    Orthogonal matrices of large layers take minutes to draw: where they would, they are left out.
    """
    drawn = sum(s.fan_in * s.fan_out * min(s.fan_in, s.fan_out) for s in layers)
    return tuple(c for c in _worth_it(layers, greatest) if drawn <= MOST_DRAWN or c.name not in ORTHOGONAL)


def _worth_it(layers: Sequence[LayerSpec], greatest: int | None) -> list[Candidate]:
    found = {s.activation for s in layers} - {"identity"}
    depth = len({s.name for s in layers})
    out = []
    if not found or found & RECTIFIERS:
        out.append(_one("he", "He init", "init", 0, _of("init", scheme="he")))
    out += [
        _one("xavier", "Xavier init", "init", 0, _of("init", scheme="xavier")),
        _one("orthogonal", "orthogonal init", "init", 0, _of("init", scheme="orthogonal")),
        _one("lsuv", "LSUV init", "init", 0, _of("init", scheme="lsuv")),
    ]
    if any(s.fan_in != s.fan_out for s in layers[:-1]):  # else it is Xavier's
        out.append(_one("lecun", "LeCun init", "init", 0, _of("init", scheme="lecun")))
    if "sigmoid" in found:
        title = "orthogonal init of gain 4, centred (b = -W/2)"
        out.append(_one("centred", title, "init", 0, _of("init", scheme="critical_centred")))
    if found - {"relu"}:
        out.append(_one("relu", "ReLU, init unchanged", "activation", 1, _of("activation", kind="relu")))
    if found:
        relu, leaky = _of("activation", kind="relu"), _of("activation", kind="leaky_relu", slope=0.01)
        he = _of("init", scheme="he")
        if found - {"relu"}:
            out.append(_one("relu_he", "ReLU with He init", "activation", 2, relu, he))
        out.append(_one("leaky_relu_he", "leaky ReLU with He init", "activation", 2, leaky, he))
    out += [
        _one("batchnorm", "batch norm before each activation", "batchnorm", 1, _of("batchnorm")),
        _one("layernorm", "layer norm before each activation", "layernorm", 1, _of("layernorm")),
        _one("residual", "identity skips", "residual", 1, _of("residual")),
    ]
    if depth > 1:
        scale = round(depth**-0.5, 3)
        title = f"identity skips, branches times {scale:g} (1/sqrt of the depth)"
        out.append(_one("residual_scaled", title, "residual", 1, _of("residual", scale=scale)))
    for keep in sorted({k for k in (greatest, _TO_THREE) if k is not None and 2 <= k < depth}):
        prescription = _of("simplify", layers=keep)
        out.append(_one(f"depth_{keep}", f"{keep} layers instead of {depth}", "simplify", 3, prescription))
    return out


def _one(
    name: str, title: str, treatment: TreatmentName, rank: int, *prescriptions: Prescription
) -> Candidate:
    return Candidate(name=name, title=title, treatment=treatment, prescriptions=prescriptions, rank=rank)


def _of(treatment: TreatmentName, **parameters: JsonValue) -> Prescription:
    return Prescription(treatment=treatment, parameters=parameters)
