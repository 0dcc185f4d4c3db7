"""What the activations of a model do: which lie between weighted layers, and why others must stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from unvanish.treatment import activations
from unvanish.treatment.flow import LEARNED, Stage

HIDDEN = "hidden"


def reaches_weights(stages: Sequence[Stage]) -> list[bool]:
    """Tell for each stage whether it has weights or leads to some (they are in execution order)."""
    reach = [False] * len(stages)
    for index in range(len(stages) - 1, -1, -1):
        stage = stages[index]
        reach[index] = stage.kind in LEARNED or any(reach[b] for b in stage.behind)
    return reach


def role_of(stage: Stage, onward: Sequence[bool]) -> str:
    """HIDDEN for an activation that may be exchanged, why not for another one, "" for what is no activation."""
    if stage.kind != "activation":
        return ""
    if stage.gates:
        return "it gates another signal"
    if stage.overwrites:
        return "it changes a tensor in place that is used again"
    if not any(onward[b] for b in stage.behind):
        return "it makes the model's output, and the loss counts on its range"
    return HIDDEN


def sort_activations(
    root: nn.Module, stages: Sequence[Stage], roles: Sequence[str]
) -> tuple[tuple[nn.Module, ...], tuple[tuple[str, str], ...]]:
    """(the hidden activation modules, (path, why) of those that stay), by the role of each stage."""
    hidden: dict[int, nn.Module] = {}
    kept: dict[int, tuple[str, str]] = {}
    for stage, role in zip(stages, roles, strict=True):
        if stage.module is not None and role == HIDDEN:
            hidden[id(stage.module)] = stage.module
        elif role not in ("", HIDDEN):
            kept[id(stage.module or stage)] = (stage.path or stage.activation, role)
    shown = {id(s.module) for s in stages if s.module is not None}
    for path, module in root.named_modules():
        if activations.name_of(module) is not None and id(module) not in shown:
            kept[id(module)] = (path, "where it stands in the forward pass is not known")
    return tuple(m for i, m in hidden.items() if i not in kept), tuple(kept.values())
