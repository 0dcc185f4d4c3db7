"""Turn a measured backward pass into the nouns: a Graph, and the numbers of one Trace of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unvanish.probe.backward import Node, Tracing, graph_key, units_of
from unvanish.probe.forward import Call
from unvanish.probe.local import class_name
from unvanish.probe.samples import Sample, moments
from unvanish.schema.graph import Graph, Operation, OperationKind, OperationStats
from unvanish.schema.moments import Moments, combined


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the samples of a traced pass came to."""

    stats: tuple[OperationStats, ...]
    entries: Sequence[Moments | None]  # of what went into the module that an operation stands for


@dataclass(frozen=True, slots=True)
class Sited:
    """A traced graph with its names, ready to be turned into numbers later (in the writer's thread)."""

    graph: Graph
    nodes: Sequence[Node]
    modules: Sequence[
        tuple[Sample | None, Sample | None]
    ]  # (output, input) of the module that an operation is

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
        arrived = moments([s for n in self.nodes for s in n.arrived], exponents=exponents)
        others: list[Sample | None] = [s for n in self.nodes for s in n.edges.values()]
        others += [output for output, _ in self.modules]
        others += [entry for _, entry in self.modules]
        reduced = iter(moments(others))
        signals = iter([m.times(factor) if m is not None else None for m in arrived])
        signal = [
            combined([m for m in (next(signals) for _ in n.arrived) if m is not None]) for n in self.nodes
        ]
        edges = [
            {position: m.times(factor) if (m := next(reduced)) is not None else None for position in n.edges}
            for n in self.nodes
        ]
        outputs = [next(reduced) for _ in self.nodes]
        entries = [next(reduced) for _ in self.nodes]
        stats = tuple(_stats(i, self.nodes, signal, edges[i], outputs[i]) for i in range(len(self.nodes)))
        return Numbers(stats, entries)


def _stats(
    index: int,
    nodes: Sequence[Node],
    signal: Sequence[Moments | None],
    edges: Mapping[int, Moments | None],
    output: Moments | None,
) -> OperationStats:
    node, own = nodes[index], signal[index]

    def edge(position: int, parent: int | None) -> float | None:
        passed = edges.get(position)
        if passed is not None:
            return passed.norm
        if parent is not None and nodes[parent].consumers == 1:
            above = signal[parent]  # the only consumer hands over all that arrives there
            return above.norm if above is not None else None
        return None

    units = units_of(node.gate) if node.gate is not None else None
    if units is None and node.unit_dim is not None:
        units = (0, 0, "")
    return OperationStats(
        operation=index,
        count=own.count if own else 0,
        norm=own.norm if own else 0.0,
        absmax=own.absmax if own else 0.0,
        zeros=round(own.zeros) if own else 0,
        nonfinite=round(own.nonfinite) if own else 0,
        edge_norms=tuple(edge(p, parent) for p, parent in node.parents),
        parameter_norms=tuple(edge(leaf.position, None) for leaf in node.leaves),
        output_count=output.count if output else None,
        output_std=output.std if output else None,
        output_rms=output.rms if output else None,
        output_mean=output.total / output.count if output else None,
        units=units[0] if units else None,
        closed_units=units[1] if units else None,
        unit_bits=units[2] if units else "",
        total=own.total if own else None,
        sampled=own.sampled if own and own.sampled < own.count else None,
        exponents=own.exponents if own else (),
    )


def site(
    tracing: Tracing, paths: Mapping[int, str], names: Mapping[int, str], known: dict[int, Graph]
) -> Sited:
    """Name every operation: `paths` by id of the module, `names` by id of the parameter, of one model.

    `known` remembers graphs from step to step: the same net makes the same graph, and naming it takes time.
    """
    nodes, calls = tracing.nodes, tracing.calls
    kinds = [node.kind for node in nodes]
    numbers = _call_numbers(calls)
    mark = hash(
        tuple(
            (
                *(
                    node.name,
                    paths.get(id(call.module)) if call is not None else None,
                    numbers.get(id(call), 0),
                ),
                *(tuple(node.parents), tuple([names.get(id(leaf.parameter)) for leaf in node.leaves])),
            )
            for node, call in zip(nodes, calls, strict=True)
        )
    )
    graph = known.get(mark)
    if graph is None:
        graph = known[mark] = _graph(nodes, calls, kinds, numbers, paths, names)
    per_call = Counter(
        id(call) for kind, call in zip(kinds, calls, strict=True) if call is not None and kind == "weight"
    )
    modules: list[tuple[Sample | None, Sample | None]] = []
    for kind, call in zip(kinds, calls, strict=True):
        # the module's output stands for the operation only where that is the module's one product
        own = call is not None and kind == "weight" and id(call.module) in paths and per_call[id(call)] == 1
        modules.append((call.output, call.entry) if call is not None and own else (None, None))
    return Sited(graph=graph, nodes=nodes, modules=modules)


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
