"""Which layers a model has, in execution order, and what stands behind each: read, never changed.

Known by torch.fx where the model traces; else from an order that the probe recorded; else from the
nn.Sequential containers alone, whose order is certain whatever the rest of the model does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import nn

from unvanish.treatment import activations
from unvanish.treatment.flow import Flow, Stage, trace_flow

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
TRANSPARENT = (
    nn.Identity, nn.Flatten, nn.Unflatten,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weighted layer with what stands directly behind it.

    `activation` is None where none follows, or where it is a function called in forward (`functional`).
    `fed_by` names the activation in front ("identity" for the data). `region` is the path of the smallest
    custom module that holds this layer and its activation and nothing else that is weighted, one tensor
    in, one out.
    """

    path: str
    module: nn.Module
    activation: nn.Module | None
    activation_name: str
    activation_alone: bool  # its module is called once: not shared with another layer
    functional: bool
    normed: bool
    fed_by: str
    last: bool
    calls: int
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The layers in execution order, and the activations that a treatment may replace."""

    layers: tuple[Layer, ...]
    hidden: tuple[nn.Module, ...]  # activation modules with a weighted layer behind every use of them
    kept: tuple[tuple[str, str], ...]  # (path, why): activations that must stay as they are
    functional: tuple[str, ...]  # hidden activations that are called as functions
    source: Literal["fx", "order", "containers"]

    def layer_of(self, module: nn.Module) -> Layer | None:
        """The layer that this weighted module is, None where the order did not show it."""
        return next((layer for layer in self.layers if layer.module is module), None)


def read_anatomy(root: nn.Module, order: Sequence[nn.Module] | None = None) -> Anatomy:
    """Read the model. Never raises for a model that is hard to read: then fewer layers are known."""
    flow = trace_flow(root, _kind)
    if flow is not None:
        return _from_flow(root, flow, "fx")
    if order is not None:
        paths = {id(m): p for p, m in root.named_modules()}
        known = [(paths[id(m)], m) for m in order if id(m) in paths and not any(True for _ in m.children())]
        return _from_flow(root, _chains([known]), "order")
    chains = [list(_leaves(p, m)) for p, m in _outer_sequentials(root)]
    return _from_flow(root, _chains(chains), "containers")


def weighted_modules(root: nn.Module, target: str) -> list[tuple[str, nn.Module]]:
    """Every Linear and convolution in `target` ("*" = all), by path, each once."""
    return [(p, m) for p, m in root.named_modules() if isinstance(m, WEIGHTED) and within(p, target)]


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of a Linear or convolution: [out, in, *kernel] (transposed: [in, out / groups, *kernel])."""
    return cast(torch.Tensor, module.weight)


def within(path: str, target: str) -> bool:
    """Whether a module path lies in the target's subtree."""
    return target in ("*", path) or path.startswith(target + ".")


def _kind(module: nn.Module) -> str:
    if isinstance(module, WEIGHTED):
        return "weighted"
    if activations.name_of(module) is not None:
        return "activation"
    if isinstance(module, NORMS):
        return "norm"
    if isinstance(module, TRANSPARENT):
        return "transparent"
    return "opaque" if any(True for _ in module.parameters()) else "other"


def _chains(chains: Iterable[list[tuple[str, nn.Module]]]) -> Flow:
    """Straight lines of modules as a flow: each feeds the next one, and the lines don't touch."""
    stages: list[Stage] = []
    for chain in chains:
        for place, (path, module) in enumerate(chain):
            here = len(stages)
            behind = (here + 1,) if place + 1 < len(chain) else ()
            name = activations.name_of(module) or "identity"
            stages.append(
                Stage(
                    kind=_kind(module), path=path, module=module, activation=name, behind=behind, gates=False
                )
            )
    return Flow(stages=tuple(stages), regions={})


def _leaves(path: str, module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    if type(module) is nn.Sequential:
        for name, child in module.named_children():
            yield from _leaves(f"{path}.{name}" if path else name, child)
    else:
        yield path, module


def _outer_sequentials(root: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    found: list[str] = []
    for path, module in root.named_modules():
        if type(module) is nn.Sequential and not any(within(path, outer) or outer == "" for outer in found):
            found.append(path)
            yield path, module


def _from_flow(root: nn.Module, flow: Flow, source: Literal["fx", "order", "containers"]) -> Anatomy:
    stages = flow.stages
    onward = _reaches_weights(stages)
    calls = Counter(id(s.module) for s in stages if s.module is not None)
    fed_by = _fed_by(stages)
    layers: dict[int, Layer] = {}
    for index, stage in enumerate(stages):
        if stage.kind != "weighted" or stage.module is None or id(stage.module) in layers:
            continue
        follower, normed = _follower(stages, index)
        last = not any(onward[b] for b in stage.behind)
        if source == "containers" and not stage.behind:
            last = False  # what comes after the container is not known
        layers[id(stage.module)] = Layer(
            path=stage.path or "",
            module=stage.module,
            activation=None if follower is None else follower.module,
            activation_name="identity" if follower is None else follower.activation,
            activation_alone=follower is not None and calls[id(follower.module)] == 1,
            functional=follower is not None and follower.module is None,
            normed=normed,
            fed_by=fed_by[index],
            last=last,
            calls=calls[id(stage.module)],
            region=flow.regions.get(stage.path or ""),
        )
    hidden, kept, functional = _sort_activations(root, stages, onward)
    return Anatomy(
        layers=tuple(_one_region_each(layers.values())),
        hidden=hidden,
        kept=kept,
        functional=functional,
        source=source,
    )


def _one_region_each(layers: Iterable[Layer]) -> list[Layer]:
    found = list(layers)
    count = Counter(layer.region for layer in found)
    return [replace(layer, region=None) if count[layer.region] > 1 else layer for layer in found]


def _reaches_weights(stages: Sequence[Stage]) -> list[bool]:
    """Tell for each stage whether it has weights or leads to some (they are in execution order)."""
    reach = [False] * len(stages)
    for index in range(len(stages) - 1, -1, -1):
        stage = stages[index]
        reach[index] = stage.kind in ("weighted", "opaque") or any(reach[b] for b in stage.behind)
    return reach


def _follower(stages: Sequence[Stage], index: int) -> tuple[Stage | None, bool]:
    """The activation straight behind a layer (norm, dropout may lie between), and whether a norm does."""
    normed = False
    while len(stages[index].behind) == 1:
        index = stages[index].behind[0]
        stage = stages[index]
        if stage.kind == "activation":
            return (None if stage.gates else stage), normed
        if stage.kind not in ("norm", "transparent"):
            break
        normed = normed or stage.kind == "norm"
    return None, normed


def _fed_by(stages: Sequence[Stage]) -> list[str]:
    """For each stage, the activation whose output it gets ("identity": none, "mixed": several)."""
    incoming: list[set[str]] = [set() for _ in stages]
    for index, stage in enumerate(stages):
        seen = "mixed" if len(incoming[index]) > 1 else next(iter(incoming[index]), "identity")
        made = seen if stage.kind == "transparent" else "identity"
        if stage.kind == "activation":
            made = stage.activation
        elif stage.kind == "other":
            made = "mixed"
        for b in stage.behind:
            incoming[b].add(made)
    return ["mixed" if len(names) > 1 else next(iter(names), "identity") for names in incoming]


def _sort_activations(
    root: nn.Module, stages: Sequence[Stage], onward: Sequence[bool]
) -> tuple[tuple[nn.Module, ...], tuple[tuple[str, str], ...], tuple[str, ...]]:
    hidden: dict[int, nn.Module] = {}
    kept: dict[int, tuple[str, str]] = {}
    functional: list[str] = []
    for stage in stages:
        if stage.kind != "activation":
            continue
        if stage.gates:
            why = "it gates another signal"
        elif not any(onward[b] for b in stage.behind):
            why = "it makes the model's output, and the loss counts on its range"
        else:
            why = ""
        if stage.module is None:
            functional += [stage.activation] if not why else []
        elif why:
            kept[id(stage.module)] = (stage.path or "", why)
        else:
            hidden[id(stage.module)] = stage.module
    shown = {id(s.module) for s in stages if s.module is not None}
    for path, module in root.named_modules():
        if activations.name_of(module) is not None and id(module) not in shown:
            kept[id(module)] = (path, "where it stands in the forward pass is not known")
    return tuple(m for i, m in hidden.items() if i not in kept), tuple(kept.values()), tuple(functional)
