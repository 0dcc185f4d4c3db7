"""The autograd graph is the chain rule: walk it from the loss and measure every operation's signal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor

from unvanish.probe.chance import Targets
from unvanish.probe.forward import Call, innermost
from unvanish.probe.kinds import GATES, REARRANGE, SHAPES, kind_of, plain_name
from unvanish.probe.local import here
from unvanish.probe.reduce import l2_norm, summary

MAX_NODES = 50_000
_SLOPES = {"LeakyRelu": "_saved_negative_slope", "Elu": "_saved_alpha"}
_CHANNELS_LAST = ("Addmm", "Mm", "Linear", "LayerNorm", "RmsNorm", "Bmm", "Mv")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A parameter that enters an operation, directly or through operations on it alone.

    `transposed`: turned round on its way. `whole`: what the operation hands back is the parameter's own
    gradient, element by element (no slice of it, no copies that are summed).
    """

    position: int
    parameter: Tensor
    transposed: bool
    whole: bool


@dataclass(slots=True)
class Node:
    """One operation of the graph while it is measured. Edges are positions in autograd's next_functions."""

    handle: Any
    name: str
    index: int = -1  # in execution order
    parents: list[tuple[int, int]] = field(default_factory=list)  # (position, index of the parent)
    leaves: list[Leaf] = field(default_factory=list)
    slope: float | None = None  # of a leaky or exponential unit
    consumers: int = 0
    unit_dim: int | None = None
    count: int = 0
    measured: Tensor | None = None  # [norm, absmax, zeros, nonfinite]
    edges: dict[int, Tensor] = field(default_factory=dict)  # position -> L2 norm
    units: Tensor | None = None  # bool [2 x units]: reached by some signal, open


@dataclass
class Tracing:
    """One backward pass under measurement: the nodes in execution order, and the loss."""

    loss: Tensor
    nodes: list[Node]
    calls: list[Call | None]
    on_fault: Callable[[str, Exception], None]
    targets: Targets | None = None
    targets_at: int | None = None  # the index of the loss operation that they belong to
    handles: list[Any] = field(default_factory=list)

    def arm(self) -> None:
        """Hook every node. The hooks only read."""
        shared = {node.index for node in self.nodes if node.consumers > 1}
        for node in self.nodes:
            wanted = [p for p, parent in node.parents if parent in shared] + [
                leaf.position for leaf in node.leaves if leaf.whole
            ]
            self.handles.append(node.handle.register_hook(self._hook(node, wanted)))

    def disarm(self) -> None:
        """Unhook, and let go of the graph."""
        for handle in self.handles:
            handle.remove()
        self.handles = []
        for node in self.nodes:
            node.handle = None

    def _hook(self, node: Node, wanted: list[int]) -> Callable[[Any, Any], None]:
        def hook(grad_inputs: Sequence[Tensor | None], grad_outputs: Sequence[Tensor | None]) -> None:
            try:
                with torch.no_grad():
                    _measure(node, wanted, grad_inputs, grad_outputs)
            except Exception as error:
                self.on_fault("backward", error)

        return hook


def _measure(
    node: Node, wanted: list[int], grad_inputs: Sequence[Tensor | None], grad_outputs: Sequence[Tensor | None]
) -> None:
    arriving = [g for g in grad_outputs if _dense(g)]
    if arriving:
        parts = [summary(g) for g in arriving]
        node.count = sum(g.numel() for g in arriving)
        node.measured = parts[0] if len(parts) == 1 else _merge(parts)
    for position in wanted:
        passed = grad_inputs[position]
        if _dense(passed):
            node.edges[position] = l2_norm(passed)
    passed = grad_inputs[0] if grad_inputs else None
    if node.unit_dim is not None and len(arriving) == 1 and _dense(passed):
        node.units = _reached_and_open(arriving[0], passed, node.unit_dim)


def _dense(tensor: Tensor | None) -> TypeGuard[Tensor]:
    return (
        tensor is not None
        and tensor.layout is torch.strided
        and tensor.numel() > 0
        and here(tensor) is tensor  # an operation on a DTensor would talk to the other processes
    )


def _merge(parts: list[Tensor]) -> Tensor:
    table = torch.stack(parts)
    norm = torch.linalg.vector_norm(table[:, 0])
    return torch.stack((norm, table[:, 1].amax(), table[:, 2].sum(), table[:, 3].sum()))


def _reached_and_open(arriving: Tensor, passed: Tensor, dim: int) -> Tensor:
    """Bool [2 x units]: whether some signal reached the unit, whether it passed anything on for any sample."""
    dim %= arriving.dim()
    others = [d for d in range(arriving.dim()) if d != dim]
    if not others or arriving.shape != passed.shape:
        return torch.zeros((2, 0), dtype=torch.bool)
    reached = (arriving != 0).any(dim=others)
    open_ = (passed != 0).any(dim=others)
    return torch.stack((reached, open_))


def index_of(tracing: Tracing, handle_number: int) -> int | None:
    """The index of the operation with this sequence number."""
    for node in tracing.nodes:
        if node.handle is not None and node.handle._sequence_nr() == handle_number:
            return node.index
    return None


def walk(loss: Tensor, calls: list[Call], on_fault: Callable[[str, Exception], None]) -> Tracing | None:
    """The graph behind `loss` in execution order; None where there is none or it is too large."""
    nodes, edges = _collect(loss.grad_fn)
    if not nodes:
        return None
    ordered = sorted(nodes.values(), key=lambda n: n.handle._sequence_nr())
    for index, node in enumerate(ordered):
        node.index = index
    for node, position, above in edges:
        nodes[above].consumers += 1
        node.parents.append((position, nodes[above].index))
    for node in ordered:
        node.leaves.sort(key=lambda leaf: -leaf.parameter.dim())  # the weight first, whatever it is called
        if node.name in GATES:
            node.unit_dim = _unit_dim(node, ordered)
    numbers = [n.handle._sequence_nr() for n in ordered]
    return Tracing(
        loss=loss.detach().clone(), nodes=ordered, calls=innermost(calls, numbers), on_fault=on_fault
    )


def _collect(root: Any) -> tuple[dict[Any, Node], list[tuple[Node, int, Any]]]:
    """All operations behind `root`, and the edges between them; nothing where they are too many."""
    nodes: dict[Any, Node] = {}
    edges: list[tuple[Node, int, Any]] = []
    stack: list[Any] = [] if root is None else [root]
    while stack:
        handle = stack.pop()
        if handle in nodes:
            continue
        if len(nodes) >= MAX_NODES:
            return {}, []
        node = nodes[handle] = _node(handle)
        for position, (above, _) in enumerate(handle.next_functions):
            if above is None:
                continue
            leaf = _leaf(position, above)
            if leaf is not None:
                node.leaves.append(leaf)
            else:
                edges.append((node, position, above))
                stack.append(above)
    return nodes, edges


def _node(handle: Any) -> Node:
    name = plain_name(handle.name())
    if name == "Elu" and getattr(handle, "_saved_scale", 1) != 1:
        name = "Selu"  # torch computes both with the same operation
    slope = getattr(handle, _SLOPES[name], None) if name in _SLOPES else None
    return Node(handle=handle, name=name, slope=slope)


def _leaf(position: int, handle: Any) -> Leaf | None:
    """The parameter behind an edge, looked for through transposes, casts and views of it alone."""
    transposed, whole = False, True
    while handle is not None:
        variable = getattr(handle, "variable", None)
        if variable is not None:
            return Leaf(position, variable, transposed, whole)
        name = plain_name(handle.name())
        if name not in SHAPES or len(handle.next_functions) != 1:
            return None
        transposed ^= name in ("T", "Transpose", "Permute")
        whole &= name in REARRANGE
        handle = handle.next_functions[0][0]
    return None


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


def node_kind(node: Node) -> Any:
    """The kind of factor that a node stands for."""
    heavy = any(leaf.parameter.dim() > 1 for leaf in node.leaves)
    return kind_of(node.name, has_weight=heavy, data_parents=len(node.parents))
