"""Which layers a model has, in execution order, and what stands behind each: read, never changed.

Known by torch.fx where the model traces; else from one forward pass over a batch, if there is one; else from an
order that the probe recorded; else from the nn.Sequential containers alone, whose order is certain whatever the rest
of the model does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from unvanish.schema.call import Batch
from unvanish.treatment import activations
from unvanish.treatment.blocks import Residual
from unvanish.treatment.flow import Flow, Stage, record_flow, trace_flow
from unvanish.treatment.kinds import TRANSPOSED, WEIGHTED, is_sequential, kind_of, weight_of
from unvanish.treatment.roles import HIDDEN, reaches_weights, role_of, sort_activations

__all__ = [
    "TRANSPOSED",
    "WEIGHTED",
    "Anatomy",
    "Layer",
    "read_anatomy",
    "weight_of",
    "weighted_modules",
    "within",
]

Source = Literal["fx", "run", "order", "containers"]


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
    activation_alone: bool  # its module is not shared with another layer
    functional: bool
    normed: bool
    fed_by: str
    last: bool
    calls: int
    recurs: bool = False  # what it makes in one call comes back to it in a later one
    region: str | None = None
    stage: int = -1  # its place, and that of its activation, among the stages of the flow
    end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The layers in execution order, and the activations that a treatment may replace."""

    layers: tuple[Layer, ...]
    hidden: tuple[nn.Module, ...]  # activation modules with a weighted layer behind every use of them
    kept: tuple[tuple[str, str], ...]  # (path, why): activations that must stay as they are
    functional: tuple[str, ...]  # hidden activations that are called as functions
    source: Source
    flow: Flow
    roles: tuple[str, ...]  # for each stage of the flow: "", or for an activation HIDDEN or why it must stay

    @property
    def wired(self) -> bool:
        """Whether all calls of a forward pass are known, with what flows from which to which."""
        return self.source in ("fx", "run")

    def layer_of(self, module: nn.Module) -> Layer | None:
        """The layer that this weighted module is, None where the order did not show it."""
        return next((layer for layer in self.layers if layer.module is module), None)


def read_anatomy(
    root: nn.Module, order: Sequence[nn.Module] | None = None, batch: Batch | None = None
) -> Anatomy:
    """Read the model. Never raises for a model that is hard to read: then fewer layers are known."""
    flow = trace_flow(root)
    if flow is not None:
        return _from_flow(root, flow, "fx")
    flow = None if batch is None else record_flow(root, batch)
    if flow is not None:
        return _from_flow(root, flow, "run")
    if order is not None:
        paths = {id(m): p for p, m in root.named_modules()}
        known = [(paths[id(m)], m) for m in order if id(m) in paths and not any(True for _ in m.children())]
        return _from_flow(root, _chains([known]), "order")
    chains = [list(_leaves(p, m)) for p, m in _outer_sequentials(root)]
    return _from_flow(root, _chains(chains), "containers")


def weighted_modules(root: nn.Module, target: str) -> list[tuple[str, nn.Module]]:
    """Every Linear and convolution in `target` ("*" = all), by path, each once."""
    return [(p, m) for p, m in root.named_modules() if isinstance(m, WEIGHTED) and within(p, target)]


def within(path: str, target: str) -> bool:
    """Whether a module path lies in the target's subtree."""
    return target in ("*", path) or path.startswith(target + ".")


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
                    kind=kind_of(module),
                    path=path,
                    module=module,
                    activation=name,
                    behind=behind,
                    gates=False,
                )
            )
    return Flow(stages=tuple(stages), regions={})


def _leaves(path: str, module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    if is_sequential(module):
        for name, child in module.named_children():
            yield from _leaves(f"{path}.{name}" if path else name, child)
    elif isinstance(module, Residual):
        yield from _leaves(f"{path}.body", module.body)
    else:
        yield path, module


def _outer_sequentials(root: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    found: list[str] = []
    for path, module in root.named_modules():
        if is_sequential(module) and not any(within(path, outer) or outer == "" for outer in found):
            found.append(path)
            yield path, module


def _from_flow(root: nn.Module, flow: Flow, source: Source) -> Anatomy:
    stages = flow.stages
    onward = reaches_weights(stages)
    calls = Counter(id(s.module) for s in stages if s.module is not None)
    fed_by = _fed_by(stages)
    layers: dict[int, Layer] = {}
    for index, stage in enumerate(stages):
        if stage.kind != "weighted" or stage.module is None or id(stage.module) in layers:
            continue
        places = [i for i, s in enumerate(stages) if s.module is stage.module]
        end, normed = follower_of(stages, index)
        if len({_what(stages, follower_of(stages, i)[0]) for i in places}) > 1:
            end = None  # another activation in another call
        follower = None if end is None else stages[end]
        last = not any(onward[b] for b in stage.behind)
        if source == "containers" and not stage.behind:
            last = False  # what comes after the container is not known
        layers[id(stage.module)] = Layer(
            path=stage.path or "",
            module=stage.module,
            activation=None if follower is None else follower.module,
            activation_name="identity" if follower is None else follower.activation,
            activation_alone=follower is not None and calls[id(follower.module)] == len(places),
            functional=follower is not None and follower.module is None,
            normed=normed,
            fed_by=fed_by[index],
            last=last,
            calls=calls[id(stage.module)],
            recurs=len(places) > 1 and _leads_to(stages, places[0], places[1:]),
            region=flow.regions.get(stage.path or ""),
            stage=index,
            end=end,
        )
    roles = tuple(role_of(stage, onward) for stage in stages)
    hidden, kept = sort_activations(root, stages, roles)
    return Anatomy(
        layers=tuple(_one_region_each(layers.values())),
        hidden=hidden,
        kept=kept,
        functional=tuple(
            s.activation for s, role in zip(stages, roles, strict=True) if role == HIDDEN and s.module is None
        ),
        source=source,
        flow=flow,
        roles=roles,
    )


def _one_region_each(layers: Iterable[Layer]) -> list[Layer]:
    found = list(layers)
    count = Counter(layer.region for layer in found)
    return [replace(layer, region=None) if count[layer.region] > 1 else layer for layer in found]


def _what(stages: Sequence[Stage], place: int | None) -> tuple[object, ...]:
    """What a stage calls, and where in the source."""
    return () if place is None else (id(stages[place].module), stages[place].site)


def _leads_to(stages: Sequence[Stage], start: int, ends: Sequence[int]) -> bool:
    """Whether the signal goes from one stage to one of the others (they are in execution order)."""
    reached = {start}
    for place in range(start, len(stages)):
        if place in reached:
            reached.update(stages[place].behind)
    return not reached.isdisjoint(ends)


def follower_of(stages: Sequence[Stage], index: int) -> tuple[int | None, bool]:
    """The place of the activation straight behind a layer, and whether a norm lies between (dropout may, too)."""
    normed = False
    while len(stages[index].behind) == 1:
        index = stages[index].behind[0]
        stage = stages[index]
        if stage.kind == "activation":
            return (None if stage.gates else index), normed
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
        elif stage.kind in ("other", "recurrent", "attention", "softmax"):
            made = "mixed"
        for b in stage.behind:
            incoming[b].add(made)
    return ["mixed" if len(names) > 1 else next(iter(names), "identity") for names in incoming]
