"""The autograd graph is the chain rule: walk it from the loss and measure every operation's signal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor

from unvanish.probe.chance import Targets
from unvanish.probe.explore import Explored, LeafEdge, Shape, explore
from unvanish.probe.forward import Call, innermost
from unvanish.probe.kinds import GATES, kind_of, plain_name
from unvanish.probe.local import here
from unvanish.probe.samples import TRACE_SAMPLE, Sample, take
from unvanish.schema.graph import OperationKind

MOST_SHAPES = 16  # of graphs that are known again
MOST_KNOWN_NODES = 5_000  # of one of them
UNIT_PLACES = (
    1024  # samples and positions at which a gate's units are looked at: one open in 1 % shows almost surely
)
_SLOPES = {"LeakyRelu": "_saved_negative_slope", "Elu": "_saved_alpha"}
_CHANNELS_LAST = ("Addmm", "Mm", "Linear", "LayerNorm", "RmsNorm", "Bmm", "Mv")


@dataclass(slots=True)  # not frozen: that would take longer to make, and many are made
class Leaf:
    """A parameter that enters an operation, directly or through operations on it alone.

    `transposed`: turned round on its way. `whole`: what the operation hands back is the parameter's own
    gradient, element by element (no slice of it, no copies that are summed).
    """

    position: int
    parameter: Tensor
    transposed: bool
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StateNorms:
    """L2 norms [T] of dL/dh_t of one layer and direction of a fused recurrent operation, by time step of the data.

    They are those of the whole batch, scaled up where only `samples` of it were looked at (None = all).
    """

    layer: int
    reverse: bool
    norms: Tensor
    samples: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InTime:
    """What was measured between the time steps of a fused recurrent operation, and why not all."""

    states: tuple[StateNorms, ...] = ()
    why: str | None = None


@dataclass(slots=True)
class Node:
    """One operation of the graph while it is measured. Edges are positions in autograd's next_functions."""

    handle: Any
    name: str
    number: int  # autograd's sequence number
    index: int = -1  # in execution order
    parents: list[tuple[int, int]] = field(default_factory=list)  # (position, index of the parent)
    leaves: list[Leaf] = field(default_factory=list)
    slope: float | None = None  # of a leaky or exponential unit
    consumers: int = 0
    unit_dim: int | None = None
    arrived: list[Sample] = field(default_factory=list)  # dL/d(output), one for each output
    edges: dict[int, Sample] = field(default_factory=dict)  # position -> what was handed on there
    gate: tuple[Tensor, Tensor] | None = None  # (arriving, passed on) by unit
    in_time: InTime | None = None  # of a fused recurrent operation
    bound: float | None = None  # the largest gain it can have, where that is asked for

    @property
    def count(self) -> int:
        """Elements of dL/d(output)."""
        return sum(s.numel for s in self.arrived)

    @property
    def kind(self) -> OperationKind:
        """The kind of factor that the operation stands for."""
        heavy = any(leaf.parameter.dim() > 1 for leaf in self.leaves)
        return kind_of(self.name, has_weight=heavy, data_parents=len(self.parents))


@dataclass
class Tracing:
    """One backward pass under measurement: the nodes in execution order, and the loss."""

    loss: Tensor
    nodes: list[Node]
    calls: list[Call | None]
    on_fault: Callable[[str, Exception], None]
    size: int = TRACE_SAMPLE  # elements looked at per tensor
    shape: Shape | None = None  # the same object for the same graph; None: something was put into it since
    lean: bool = False  # the signal alone: neither units nor what parameters are handed
    scale: Tensor | None = None  # what a gradient scaler multiplied the loss by
    targets: tuple[Targets, ...] = ()  # of the terms of the loss
    targets_at: tuple[int | None, ...] = ()  # the indices of the operations that they belong to
    handles: list[Any] = field(default_factory=list)

    def arm(self) -> None:
        """Hook every node. The hooks only read."""
        shared = {node.index for node in self.nodes if node.consumers > 1}
        for node in self.nodes:
            wanted = [p for p, parent in node.parents if parent in shared] if shared else []
            if self.lean:
                node.unit_dim = None
            else:
                wanted += [leaf.position for leaf in node.leaves if leaf.whole]
            if wanted or node.unit_dim is not None:
                self.handles.append(node.handle.register_hook(self._hook(node, wanted)))
            else:  # torch hands over less, and so takes less time
                self.handles.append(node.handle.register_prehook(self._prehook(node)))

    def disarm(self) -> None:
        """Unhook, and let go of the graph."""
        for handle in self.handles:
            handle.remove()
        self.handles = []
        for node in self.nodes:
            node.handle = None

    def _hook(self, node: Node, wanted: list[int]) -> Callable[[Any, Any], None]:
        size = self.size

        def hook(grad_inputs: Sequence[Tensor | None], grad_outputs: Sequence[Tensor | None]) -> None:
            try:
                node.arrived += [take(g, size) for g in grad_outputs if _dense(g)]
                for position in wanted:
                    passed = grad_inputs[position]
                    if _dense(passed):
                        node.edges[position] = take(passed, size)
                if node.unit_dim is not None:
                    node.gate = _gate(grad_outputs, grad_inputs, node.unit_dim)
            except Exception as error:
                self.on_fault("backward", error)

        return hook

    def _prehook(self, node: Node) -> Callable[[Any], None]:
        size = self.size

        def prehook(grad_outputs: Sequence[Tensor | None]) -> None:
            try:
                node.arrived += [take(g, size) for g in grad_outputs if _dense(g)]
            except Exception as error:
                self.on_fault("backward", error)

        return prehook


def _dense(tensor: Tensor | None) -> TypeGuard[Tensor]:
    return (
        tensor is not None
        and tensor.layout is torch.strided
        and tensor.numel() > 0
        and here(tensor) is tensor  # an operation on a DTensor would talk to the other processes
    )


def _gate(
    arriving: Sequence[Tensor | None], passed: Sequence[Tensor | None], dim: int
) -> tuple[Tensor, Tensor] | None:
    """Per unit, the summed sizes of what came to a gate and of what left it, at up to UNIT_PLACES places each.

    A sum of sizes is zero only where all of them are: it can't underflow.
    """
    if len(arriving) != 1 or not passed or not _dense(arriving[0]) or not _dense(passed[0]):
        return None
    before, after = arriving[0], passed[0]
    if before.dim() < 2 or before.shape != after.shape:
        return None
    return _by_unit(before, dim), _by_unit(after, dim)


def _by_unit(tensor: Tensor, dim: int) -> Tensor:
    """Sum of |x| over all but one dimension; thinned along what is longest where there are many places."""
    tensor = tensor.detach()
    dim %= tensor.dim()
    others = [d for d in range(tensor.dim()) if d != dim]
    while (places := tensor.numel() // max(1, tensor.shape[dim])) > UNIT_PLACES:
        longest = max(others, key=lambda d: (tensor.shape[d], d))
        step = min(tensor.shape[longest], -(-places // UNIT_PLACES))
        tensor = tensor[(slice(None),) * longest + (slice(None, None, step),)]
    sizes = tensor.abs().sum(others)
    return sizes.float() if sizes.dtype == torch.bfloat16 else sizes  # numpy has no bfloat16


def places_of(tracing: Tracing, targets: Sequence[Targets]) -> tuple[int | None, ...]:
    """The index of each term's operation; None where it is not among those that are measured."""
    found = {node.number: node.index for node in tracing.nodes} if targets else {}
    return tuple(found.get(one.number) for one in targets)


class Walker:
    """Walks graphs, and remembers the last few, so that the same one is known again."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._known: dict[Shape, tuple[Shape, list[Place]]] = {}

    def walk(
        self,
        loss: Tensor,
        calls: list[Call],
        on_fault: Callable[[str, Exception], None],
        size: int = TRACE_SAMPLE,
    ) -> Tracing | None:
        """The graph behind `loss` in execution order; None where there is none or it is too large.

        `size` elements are looked at in each tensor.
        """
        if loss.grad_fn is None:
            return None
        explored = explore(loss.grad_fn)
        if explored is None:
            return None
        shape, places = self._places(explored)
        ordered = _nodes(explored, places)
        return Tracing(
            loss=loss.detach().clone(),
            nodes=ordered,
            calls=innermost(calls, explored.numbers),
            on_fault=on_fault,
            size=size,
            shape=shape,
        )

    def _places(self, explored: Explored) -> tuple[Shape, list[Place]]:
        """What is the same for all graphs of this shape, and the shape itself, the same object each time."""
        known = self._known.get(explored.shape)
        if known is None:
            if len(self._known) >= MOST_SHAPES or len(explored.handles) > MOST_KNOWN_NODES:
                self._known.clear()
            known = self._known[explored.shape] = (explored.shape, _places(explored))
        return known


@dataclass(slots=True)
class Place:
    """What the nodes at one place of a graph have in common, from step to step."""

    number: int
    name: str
    parents: list[tuple[int, int]]
    leaves: list[tuple[int, int, bool, bool]]  # (place among the parameters, position, transposed, whole)
    consumers: int = 0
    unit_dim: int | None = None


def _places(explored: Explored) -> list[Place]:
    """In execution order."""
    index_of_number = {number: index for index, number in enumerate(explored.order)}
    places: list[Place] = []
    for number in explored.order:
        edges = explored.edges[number]
        parents = [(p, index_of_number[e]) for p, e in enumerate(edges) if isinstance(e, int)]
        found = [(p, e) for p, e in enumerate(edges) if isinstance(e, LeafEdge)]
        heavy_first = sorted(
            enumerate(found), key=lambda f: -f[1][1].dims
        )  # the weight, whatever it is called
        leaves = [(n, p, e.transposed, e.whole) for n, (p, e) in heavy_first]
        places.append(Place(number, plain_name(explored.names[number]), parents, leaves))
    for place in places:
        for _, parent in place.parents:
            places[parent].consumers += 1
    nodes = _nodes(explored, places)
    for node, place in zip(nodes, places, strict=True):
        if node.name in GATES:
            place.unit_dim = _unit_dim(node, nodes)
    return places


def _nodes(explored: Explored, places: list[Place]) -> list[Node]:
    nodes: list[Node] = []
    for index, (place, number) in enumerate(zip(places, explored.numbers, strict=True)):
        handle, name = explored.handles[place.number], place.name
        parameters = explored.parameters[place.number]
        leaves = [Leaf(position, parameters[n], turned, whole) for n, position, turned, whole in place.leaves]
        slope = getattr(handle, _SLOPES[name], None) if name in _SLOPES else None
        parents = list(place.parents)
        nodes.append(
            Node(handle, name, number, index, parents, leaves, slope, place.consumers, place.unit_dim)
        )
    return nodes


def _unit_dim(node: Node, ordered: list[Node]) -> int:
    """The dimension that counts units: the last after a matrix product, 1 after a convolution."""
    current = node
    for _ in range(12):
        if current.name.endswith("Convolution") or "BatchNorm" in current.name or "GroupNorm" in current.name:
            return 1
        if current.name.endswith(_CHANNELS_LAST) or not current.parents:
            return -1
        current = ordered[current.parents[0][1]]
    return -1


def graph_key(parts: Sequence[object]) -> str:
    """A short hash that is the same for the same graph in every run."""
    return hashlib.blake2s(repr(parts).encode(), digest_size=8).hexdigest()
