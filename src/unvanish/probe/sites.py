"""Turn a measured backward pass into the nouns: a Graph, and the numbers of one Trace of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from unvanish.probe.backward import Node, Tracing, graph_key
from unvanish.probe.forward import Call
from unvanish.probe.local import class_name
from unvanish.probe.numbers import stats_of
from unvanish.probe.samples import Sample, moments, to_numpy
from unvanish.schema.graph import Graph, Operation, OperationKind, OperationStats, ThroughTime
from unvanish.schema.moments import Moments


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the samples of a traced pass came to."""

    stats: tuple[OperationStats, ...]
    inputs: Sequence[Sample | None]  # of the module that an operation stands for

    @property
    def entries(self) -> Sequence[Moments | None]:
        """The moments of the inputs."""
        return moments(self.inputs)


@dataclass(frozen=True, slots=True)
class Sited:
    """A traced graph with its names, ready to be turned into numbers later (in the writer's thread)."""

    graph: Graph
    nodes: Sequence[Node]
    modules: Sequence[
        tuple[Sample | None, Sample | None]
    ]  # (output, input) of the module that an operation is
    rows: Sequence[Tensor | None]  # some of that input's samples (see forward.Call)

    @property
    def bytes(self) -> int:
        """What the samples take in memory."""
        samples = [s for n in self.nodes for s in (*n.arrived, *n.edges.values())]
        samples += [s for pair in self.modules for s in pair if s is not None]
        return sum(s.part.nbytes for s in samples)

    def numbers(self, factor: float = 1.0, *, exponents: bool) -> Numbers:
        """Reduce all samples; the signal is multiplied by `factor`, which takes a gradient scaler's out.

        `exponents`: take the log2 histogram of the signal too, of the numbers as they were (before the factor).
        """
        stats = stats_of(self.nodes, [output for output, _ in self.modules], factor, exponents=exponents)
        return Numbers(stats, [entry for _, entry in self.modules])

    def through_time(self, factor: float = 1.0) -> tuple[ThroughTime, ...]:
        """What was measured between the time steps of fused recurrent layers of the model."""
        found = [
            (operation.module, operation.call, state)
            for operation, node in zip(self.graph.operations, self.nodes, strict=True)
            if node.in_time is not None and operation.module is not None
            for state in node.in_time.states
        ]
        norms = to_numpy([state.norms for _, _, state in found])
        made = [
            ThroughTime(
                module=module,
                layer=state.layer,
                reverse=state.reverse,
                norms=tuple((own * abs(factor)).tolist()),
                call=call,
                samples=state.samples,
            )
            for (module, call, state), own in zip(found, norms, strict=True)
        ]
        return tuple(sorted(made, key=lambda t: (t.module, t.call, t.layer, t.reverse)))


MOST_KNOWN = 32  # graphs of one model


@dataclass(frozen=True, slots=True)
class _Named:
    """A graph with its names, and which of its operations stand for their modules."""

    graph: Graph
    own: tuple[bool, ...]
    shape: object  # kept, so that nothing else gets its id


Known = dict[Hashable, _Named]


def site(tracing: Tracing, paths: Mapping[int, str], names: Mapping[int, str], known: Known) -> Sited:
    """Name every operation: `paths` by id of the module, `names` by id of the parameter, of one model.

    `known` remembers graphs from step to step: the same net makes the same graph, and naming it takes time.
    """
    nodes, calls = tracing.nodes, tracing.calls
    modules = [None if call is None else paths.get(id(call.module), call.module) for call in calls]
    again = [None if call is None else id(call) for call in calls]  # which operations share a call
    first: dict[int | None, int] = {}
    mark = (
        id(tracing.shape) if tracing.shape is not None else tuple((n.name, tuple(n.parents)) for n in nodes),
        tuple([m if isinstance(m, str) else m is not None for m in modules]),
        tuple([first.setdefault(call, len(first)) for call in again]),
        tuple([names.get(id(leaf.parameter)) for node in nodes for leaf in node.leaves]),
    )
    named = known.get(mark)
    if named is None:
        if len(known) >= MOST_KNOWN:  # a script that makes a new graph at every step
            known.clear()
        named = known[mark] = _named(tracing, paths, names)
    measured = [
        (call.output, call.entry) if call is not None and own else (None, None)
        for call, own in zip(calls, named.own, strict=True)
    ]
    rows = [
        call.rows if call is not None and own else None for call, own in zip(calls, named.own, strict=True)
    ]
    return Sited(graph=named.graph, nodes=nodes, modules=measured, rows=rows)


def _named(tracing: Tracing, paths: Mapping[int, str], names: Mapping[int, str]) -> _Named:
    nodes, calls = tracing.nodes, tracing.calls
    kinds = [node.kind for node in nodes]
    graph = _graph(nodes, calls, kinds, _call_numbers(calls), paths, names)
    per_call = Counter(
        id(call) for kind, call in zip(kinds, calls, strict=True) if call is not None and kind == "weight"
    )
    # the module's output stands for the operation only where that is the module's one product
    own = tuple(
        call is not None and kind == "weight" and id(call.module) in paths and per_call[id(call)] == 1
        for kind, call in zip(kinds, calls, strict=True)
    )
    return _Named(graph, own, tracing.shape)


def _graph(
    nodes: Sequence[Node],
    calls: Sequence[Call | None],
    kinds: Sequence[OperationKind],
    numbers: Mapping[int, int],
    paths: Mapping[int, str],
    names: Mapping[int, str],
) -> Graph:
    operations: list[Operation] = []
    for node, call, kind in zip(nodes, calls, kinds, strict=True):
        ours = call is not None and id(call.module) in paths
        operations.append(
            Operation(
                index=node.index,
                name=node.name,
                kind=kind,
                module=paths[id(call.module)] if call is not None and ours else None,
                module_class=class_name(call.module) if call is not None and ours else None,
                call=numbers[id(call)] if ours else 0,
                parents=tuple(parent for _, parent in node.parents),
                parameters=tuple(names.get(id(leaf.parameter), "") for leaf in node.leaves),
            )
        )
    key = graph_key([(o.name, o.module, o.call, o.parents, o.parameters) for o in operations])
    return Graph(key=key, operations=tuple(operations))


def _call_numbers(calls: Sequence[Call | None]) -> dict[int, int]:
    """Which call of its module each call is, among those that made operations of this loss (by id of the call)."""
    numbers: dict[int, int] = {}
    counts: Counter[int] = Counter()
    for call in calls:  # in execution order
        if call is not None and id(call) not in numbers:
            numbers[id(call)] = counts[id(call.module)]
            counts[id(call.module)] += 1
    return numbers


def output_operation(graph: Graph, counts: Sequence[int]) -> int | None:
    """The operation that made the model's output: the last one before the loss begins.

    From the loss backwards, an operation belongs to the loss while everything that uses it does and it is a
    loss by name, a single number, a softmax or rearrangement on the way into one, or made outside the model.
    """
    operations = graph.operations
    if not operations:
        return None
    consumers: list[list[int]] = [[] for _ in operations]
    for operation in operations:
        for parent in operation.parents:
            consumers[parent].append(operation.index)
    has_modules = any(o.module is not None for o in operations)
    loss: set[int] = set()
    for operation in reversed(operations):
        users = consumers[operation.index]
        if users and not all(u in loss for u in users):
            continue
        outside = has_modules and operation.module is None
        into_loss = any(operations[u].kind in ("loss", "softmax") for u in users)
        prelude = operation.kind in ("softmax", "shape") and into_loss
        if (
            operation.kind == "loss"
            or counts[operation.index] == 1
            or outside
            or prelude
            or _arithmetic(operation, users)
        ):
            loss.add(operation.index)
    borders = [
        o.index for o in operations if o.index not in loss and any(u in loss for u in consumers[o.index])
    ]
    return max(borders, default=None)


def _arithmetic(operation: Operation, users: Sequence[int]) -> bool:
    """A hand-written loss in a net without modules: ((y - t) ** 2).mean() and its kind."""
    return (
        bool(users)
        and operation.module is None
        and operation.name in ("Pow", "Sub", "Mean", "Sum", "Neg", "Abs")
    )
