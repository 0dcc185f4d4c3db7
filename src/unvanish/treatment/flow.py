"""How the data flows through a model: one symbolic trace (torch.fx), boiled down to stages."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from unvanish.treatment.activations import FUNCTIONS, name_of

_SHAPE_QUERIES = frozenset({"size", "dim", "numel", "getattr", "ndimension"})
_SHAPE_CHANGES = frozenset(
    {"view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "to", "float", "dropout", "type_as"}
)
_PRODUCTS = (operator.mul, operator.imul, torch.mul)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One call in the forward pass: a module's, or (module None) a function's. `behind` indexes stages.

    `kind`: weighted, activation, norm, transparent (passes the values on), opaque (has weights, is not
    looked into), other.
    """

    kind: str
    path: str | None
    module: nn.Module | None
    activation: str
    behind: tuple[int, ...]
    gates: bool  # its output is multiplied with another signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The stages in execution order; `regions` maps a layer's path to the custom module that is one block."""

    stages: tuple[Stage, ...]
    regions: Mapping[str, str]


class _Tracer(fx.Tracer):
    """A tracer that runs no hooks: the watching hooks must not see symbolic values."""

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],  # noqa: ARG002  # fx's own, which would run the hooks
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return super().call_module(m, m.forward, args, kwargs)


def trace_flow(root: nn.Module, kind_of: Callable[[nn.Module], str]) -> Flow | None:
    """Trace the model symbolically; None where that can't be done (control flow on data, say)."""
    try:
        # a copy that shares the tensors: what forward writes on self must not reach the user's model
        shared: dict[int, Any] = {id(t): t for t in [*root.parameters(), *root.buffers()]}
        graph = _Tracer().trace(copy.deepcopy(root, shared))
    except Exception:  # noqa: BLE001  # the user's forward may raise anything on symbolic values
        return None
    return _boil_down(root, graph, kind_of)


def _boil_down(root: nn.Module, graph: fx.Graph, kind_of: Callable[[nn.Module], str]) -> Flow | None:
    nodes = [n for n in graph.nodes if n.op.startswith("call_") and not _is_query(n)]
    place = {n: i for i, n in enumerate(nodes)}
    stages = []
    for node in nodes:
        module, path = None, None
        if node.op == "call_module":
            path = str(node.target)
            try:
                module = root.get_submodule(path)
            except AttributeError:
                return None
        kind, name = _classify(node, module, kind_of)
        users = [u for u in node.users if u in place]
        stages.append(
            Stage(
                kind=kind,
                path=path,
                module=module,
                activation=name,
                behind=tuple(place[u] for u in users),
                gates=any(_multiplies(u) for u in users),
            )
        )
    return Flow(stages=tuple(stages), regions=_regions(nodes, stages, place))


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _is_query(node: fx.Node) -> bool:
    """A call that asks for a shape, or does sums with shapes: no signal flows through it."""
    if node.op == "call_module":
        return False
    if _name(node) in _SHAPE_QUERIES:
        return True
    sources = node.all_input_nodes
    return bool(sources) and all(s.op.startswith("call_") and _is_query(s) for s in sources)


def _classify(
    node: fx.Node, module: nn.Module | None, kind_of: Callable[[nn.Module], str]
) -> tuple[str, str]:
    from_function = _name(node).rstrip("_")
    if module is not None:
        kind = kind_of(module)
        return kind, name_of(module) or "identity"
    if _name(node) in FUNCTIONS:
        return "activation", from_function
    return ("transparent" if from_function in _SHAPE_CHANGES else "other"), "identity"


def _multiplies(node: fx.Node) -> bool:
    product = node.target in _PRODUCTS or (node.op == "call_method" and node.target in ("mul", "mul_"))
    return product and len(node.all_input_nodes) > 1


def _regions(nodes: list[fx.Node], stages: list[Stage], place: Mapping[fx.Node, int]) -> dict[str, str]:
    """For each weighted layer, the smallest module that also makes its activation: one in, one out."""
    inside: dict[str, list[fx.Node]] = {}
    for node in nodes:
        for path in _enclosing(node):
            inside.setdefault(path, []).append(node)
    regions: dict[str, str] = {}
    for path in sorted(inside, key=len, reverse=True):
        members = set(inside[path])
        weighted = [n for n in inside[path] if stages[place[n]].kind in ("weighted", "opaque")]
        if len(weighted) != 1 or str(weighted[0].target) in regions:
            continue
        entries = {s for n in members for s in n.all_input_nodes if s not in members and s.op != "get_attr"}
        exits = {n for n in members for u in n.users if u not in members}
        ends = [stages[place[n]] for n in exits if n in place]
        if len(entries) == 1 and len(ends) == 1 and ends[0].kind == "activation" and not ends[0].gates:
            regions[str(weighted[0].target)] = path
    return regions


def _enclosing(node: fx.Node) -> list[str]:
    """Paths of the custom modules (not the root) whose forward was running when the call was made."""
    stack = node.meta.get("nn_module_stack") or {}
    own = str(node.target) if node.op == "call_module" else None
    return [path for path in (entry[0] for entry in stack.values()) if path and path != own]
