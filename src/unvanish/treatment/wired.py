"""A layer with its activation as two calls in one forward: blocks where the wiring is written in the code."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from unvanish.errors import SurgeryError
from unvanish.treatment.anatomy import Anatomy, Layer, follower_of
from unvanish.treatment.flow import LEARNED
from unvanish.treatment.kinds import features_of, weight_of
from unvanish.treatment.spans import keeps_shape, why_no_block
from unvanish.treatment.wiring import Call, Wiring

SUMS = ("add", "iadd", "radd", "add_back")  # functions, as stages of a flow name them


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredBlock:
    """The call of a layer and the call of its activation, in one method. `layers` are all that pass here."""

    layers: tuple[Layer, ...]
    first: Call
    last: Call


def wired_block(wiring: Wiring, anatomy: Anatomy, layer: Layer) -> WiredBlock:
    """The block of a layer that keeps the shape.

    Raises:
        SurgeryError: it is no block, or its two calls are not side by side in one method, or one of them serves
            other layers as well, in another way.
    """
    unfit = why_no_block(layer)
    stages = anatomy.flow.stages
    if unfit or layer.end is None:
        raise SurgeryError(
            unfit or f"layer {layer.path!r} has no activation behind it", "choose another treatment"
        )
    if stages[layer.stage].site is None:
        raise SurgeryError(
            f"the wiring around {layer.path} is written where it can't be read", "call it in forward itself"
        )
    first, last = wiring.find(stages[layer.stage]), wiring.find(stages[layer.end])
    scope = first.source.scope(first.node)
    if (
        first.owner is not last.owner
        or first.method != last.method
        or scope is not last.source.scope(last.node)
        or not isinstance(scope, ast.FunctionDef)
    ):
        raise SurgeryError(
            f"{layer.path} and its activation are called in different functions", "call them in one forward"
        )
    if len(first.node.args) != 1 or first.node.keywords or isinstance(first.node.args[0], ast.Starred):
        raise SurgeryError(f"{first.words}, is not called with one value", "call it as layer(x)")
    return WiredBlock(layers=_all_layers(anatomy, layer, first), first=first, last=last)


def takes_skip(layer: Layer) -> bool:
    """Whether a skip that looks at shapes adds something around this layer, or never does; both are certain."""
    if keeps_shape(layer.module):
        return not why_no_block(layer)
    axis = 0 if not getattr(layer.module, "transposed", False) else 1
    weight = weight_of(layer.module)
    inward = weight.shape[1 - axis] * int(getattr(layer.module, "groups", 1))
    return inward != features_of(layer.module)


def has_sum_behind(anatomy: Anatomy, layer: Layer) -> bool:
    """Whether what the block makes goes straight into a sum, as that of a skip."""
    if layer.end is None:
        return False
    return any(anatomy.flow.stages[b].name in SUMS for b in anatomy.flow.stages[layer.end].behind)


def _all_layers(anatomy: Anatomy, layer: Layer, first: Call) -> tuple[Layer, ...]:
    """Every layer that is called at the same place (a loop), each followed by the same activation call."""
    stages = anatomy.flow.stages
    here, there = stages[layer.stage].site, stages[layer.end or 0].site
    kinds = LEARNED | {"activation", "other"}
    passing = [place for place, s in enumerate(stages) if s.site == here and s.kind in kinds]
    closing = {place for place, s in enumerate(stages) if s.site == there and s.kind != "norm"}
    layers = [found for found in anatomy.layers if stages[found.stage].site == here]
    known = {id(found.module) for found in layers}
    same = all(id(stages[place].module) in known for place in passing)
    if not same or {follower_of(stages, place)[0] for place in passing} != closing:
        raise SurgeryError(f"{first.words}, also serves layers of another kind", "write them apart")
    return tuple(layers)
