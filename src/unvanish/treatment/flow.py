"""How the data flows through a model: one symbolic trace (torch.fx), boiled down to stages."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from unvanish.schema.call import Batch
from unvanish.treatment.activations import FUNCTIONS
from unvanish.treatment.kinds import kind_of, name_of
from unvanish.treatment.recording import record
from unvanish.treatment.tracing import Site, site_of, trace

_SHAPE_QUERIES = frozenset({"size", "dim", "numel", "getattr", "ndimension"})
_SHAPE_CHANGES = frozenset(
    {"view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "to", "float", "dropout", "type_as"}
)
# what only chooses or rearranges values
REARRANGED = _SHAPE_CHANGES | {
    "chunk", "split", "unbind", "getitem", "narrow", "select", "expand", "expand_as", "transpose", "permute",
    "repeat",
}  # fmt: skip
_PASSED_ON = REARRANGED | {"sub", "rsub", "neg"}
_PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_", "imul", "rmul")
_MAPS = frozenset(
    {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "bilinear"}
    | {f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3)}
)
SOFTMAX_FUNCTIONS = frozenset({"softmax", "log_softmax", "softmin"})
LEAVES = frozenset(
    {"weighted", "recurrent", "embedding", "attention", "activation", "softmax", "norm", "transparent"}
)
LEARNED = frozenset({"weighted", "recurrent", "embedding", "attention", "opaque"})  # kinds that hold weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One call in the forward pass: a module's, or (module None) a function's. `behind` indexes stages.

    `kind`: weighted (Linear, convolution), recurrent, embedding, attention, activation, softmax, norm,
    transparent (passes the values on), opaque (has weights, is not looked into), other.
    """

    kind: str
    path: str | None
    module: nn.Module | None
    activation: str
    behind: tuple[int, ...]
    gates: bool  # its output is multiplied with another signal
    sees_data: bool = False  # an argument of the model's own forward goes into it
    makes_output: bool = False  # what it returns is (a part of) what the model returns
    site: Site | None = None
    name: str = ""  # of the function, without the underscore of its in-place form; "" for a module
    in_place: bool = False
    overwrites: bool = False  # in place, and what it changes is used again by its old name


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The stages in execution order; `regions` maps a layer's path to the custom module that is one block.

    `returns_one` says that the model returns one tensor, made by one of the stages.
    """

    stages: tuple[Stage, ...]
    regions: Mapping[str, str]
    returns_one: bool = False


def trace_flow(root: nn.Module) -> Flow | None:
    """Trace the model symbolically; None where that can't be done (control flow on data, say)."""
    graph = trace(root, is_leaf)
    return None if graph is None else _boil_down(root, graph)


def record_flow(root: nn.Module, batch: Batch) -> Flow | None:
    """Watch one forward pass over a batch; None where it fails."""
    graph = record(root, batch, is_leaf)
    return None if graph is None else _boil_down(root, graph)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is known as a whole, and not looked into."""
    return kind_of(module) in LEAVES


def _boil_down(root: nn.Module, graph: fx.Graph) -> Flow | None:
    nodes = [n for n in graph.nodes if n.op.startswith("call_") and not _is_query(n)]
    place = {n: i for i, n in enumerate(nodes)}
    result = next(n for n in graph.nodes if n.op == "output")
    stages = []
    for node in nodes:
        module, path = None, None
        if node.op == "call_module":
            path = str(node.target)
            try:
                module = root.get_submodule(path)
            except AttributeError:
                return None
        kind, name = _classify(node, module)
        users = [u for u in node.users if u in place]
        stages.append(
            Stage(
                kind=kind,
                path=path,
                module=module,
                activation=name,
                behind=tuple(place[u] for u in users),
                gates=_gates(node),
                name="" if module is not None else _name(node).rstrip("_"),
                in_place=_in_place(node, module),
                overwrites=_in_place(node, module) and _used_again(node, place),
                sees_data=any(s.op == "placeholder" for s in node.all_input_nodes),
                makes_output=node in result.all_input_nodes,
                site=site_of(node),
            )
        )
    one = result.args[0] in place if isinstance(result.args[0], fx.Node) else False
    return Flow(stages=tuple(stages), regions=_regions(nodes, stages, place), returns_one=one)


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


def _classify(node: fx.Node, module: nn.Module | None) -> tuple[str, str]:
    from_function = _name(node).rstrip("_")
    if module is not None:
        return kind_of(module), name_of(module)
    if _name(node) in FUNCTIONS:
        return "activation", FUNCTIONS[_name(node)]
    if from_function in SOFTMAX_FUNCTIONS:
        return "softmax", from_function
    if from_function in _MAPS and any(_is_learned(s) for s in node.all_input_nodes):
        return "opaque", "identity"
    return ("transparent" if from_function in _SHAPE_CHANGES else "other"), "identity"


def _in_place(node: fx.Node, module: nn.Module | None) -> bool:
    if module is not None:
        return getattr(module, "inplace", False) is True
    return _name(node).endswith("_") or node.kwargs.get("inplace") is True


def _used_again(node: fx.Node, place: Mapping[fx.Node, int]) -> bool:
    sources = node.all_input_nodes
    return bool(sources) and any(place.get(user, -1) > place[node] for user in sources[0].users)


def _is_learned(node: fx.Node) -> bool:
    """A value made of parameters and constants alone, such as self.weight.t()."""
    sources = node.all_input_nodes
    return node.op == "get_attr" or (
        node.op.startswith("call_") and bool(sources) and all(map(_is_learned, sources))
    )


def _gates(node: fx.Node) -> bool:
    """Whether a call's result is multiplied with another signal, in one piece, in parts, or as 1 - z."""
    for user in node.users:
        product = user.op != "call_module" and user.target in _PRODUCTS
        if product and any(s is not node and not _is_learned(s) for s in user.all_input_nodes):
            return True
        passed_on = user.op != "call_module" and _name(user).rstrip("_") in _PASSED_ON
        if passed_on and len(user.all_input_nodes) == 1 and _gates(user):
            return True
    return False


def _regions(nodes: list[fx.Node], stages: list[Stage], place: Mapping[fx.Node, int]) -> dict[str, str]:
    """For each weighted layer, the smallest module that also makes its activation: one in, one out."""
    inside: dict[str, list[fx.Node]] = {}
    for node in nodes:
        for path in _enclosing(node):
            inside.setdefault(path, []).append(node)
    regions: dict[str, str] = {}
    for path in sorted(inside, key=len, reverse=True):
        members = set(inside[path])
        weighted = [n for n in inside[path] if stages[place[n]].kind in LEARNED]
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
