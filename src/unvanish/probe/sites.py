"""Turn a measured backward pass into the nouns: a Graph, and the numbers of one Trace of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unvanish.probe.backward import Node, Tracing, graph_key, node_kind
from unvanish.probe.forward import Call
from unvanish.probe.local import class_name
from unvanish.schema.graph import Graph, Operation, OperationStats


@dataclass(frozen=True, slots=True)
class Sited:
    """A traced graph with its names, ready to be turned into numbers later (in the writer's thread)."""

    graph: Graph
    nodes: Sequence[Node]
    spreads: Sequence[tuple[int | None, Tensor | None, Tensor | None]]  # output count, output, input

    def stats(self) -> tuple[OperationStats, ...]:
        """Read all measured tensors (one transfer) and give them their places."""
        numbers = _Numbers()
        for node, (_, output, entry) in zip(self.nodes, self.spreads, strict=True):
            for tensor in (node.measured, *node.edges.values(), node.units, output, entry):
                numbers.add(tensor)
        numbers.fetch()
        norms = [numbers.get(n.measured)[0] if n.measured is not None else None for n in self.nodes]
        return tuple(self._one(i, numbers, norms) for i in range(len(self.nodes)))

    def _one(self, index: int, numbers: _Numbers, norms: Sequence[float | None]) -> OperationStats:
        node = self.nodes[index]
        count, output, _ = self.spreads[index]
        norm, absmax, zeros, nonfinite = numbers.get(node.measured) or (0.0, 0.0, 0.0, 0.0)

        def edge(position: int, parent: int | None) -> float | None:
            if position in node.edges:
                return numbers.get(node.edges[position])[0]
            if parent is not None and self.nodes[parent].consumers == 1:
                return norms[parent]  # the only consumer hands over all that arrives there
            return None

        units, closed, bits = _units(numbers.get(node.units)) if node.units is not None else (None, None, "")
        spread = numbers.get(output)
        return OperationStats(
            operation=index,
            count=node.count,
            norm=norm,
            absmax=absmax,
            zeros=round(zeros),
            nonfinite=round(nonfinite),
            edge_norms=tuple(edge(p, parent) for p, parent in node.parents),
            parameter_norms=tuple(edge(leaf.position, None) for leaf in node.leaves),
            output_count=count,
            output_std=spread[0] if spread else None,
            output_rms=spread[1] if spread else None,
            output_mean=spread[2] if spread else None,
            units=units,
            closed_units=closed,
            unit_bits=bits,
        )


def _units(reached_then_open: Sequence[float]) -> tuple[int, int, str]:
    """(units reached, those of them that are closed, the bits of both as OperationStats keeps them)."""
    reached, open_ = np.array(reached_then_open, dtype=bool).reshape(2, -1)
    bits = np.packbits(reached).tobytes() + np.packbits(open_).tobytes()
    return int(reached.sum()), int((reached & ~open_).sum()), bits.hex()


class _Numbers:
    """Many small tensors, brought over in one transfer."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._slices: dict[int, slice] = {}
        self._values: list[float] = []
        self._size = 0

    def add(self, tensor: Tensor | None) -> None:
        if tensor is not None and id(tensor) not in self._slices:
            flat = tensor.reshape(-1)
            self._slices[id(tensor)] = slice(self._size, self._size + flat.numel())
            self._size += flat.numel()
            self._tensors.append(flat.double())

    def fetch(self) -> None:
        if any(t.device.type != "cpu" for t in self._tensors):
            device = next(t.device for t in self._tensors if t.device.type != "cpu")
            self._values = torch.cat([t.to(device) for t in self._tensors]).tolist()
        else:
            self._values = [value for t in self._tensors for value in t.tolist()]

    def get(self, tensor: Tensor | None) -> list[float]:
        return [] if tensor is None else self._values[self._slices[id(tensor)]]


def site(tracing: Tracing, paths: Mapping[int, str], names: Mapping[int, str]) -> Sited:
    """Name every operation: `paths` by id of the module, `names` by id of the parameter, of one model."""
    per_call = Counter(
        id(call)
        for node, call in zip(tracing.nodes, tracing.calls, strict=True)
        if call is not None and node_kind(node) == "weight"
    )
    numbers = _call_numbers(tracing.calls)
    operations: list[Operation] = []
    spreads: list[tuple[int | None, Tensor | None, Tensor | None]] = []
    for node, call in zip(tracing.nodes, tracing.calls, strict=True):
        kind = node_kind(node)
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
        # the module's output stands for the operation only where that is the module's one product
        if call is not None and ours and kind == "weight" and per_call[id(call)] == 1:
            spreads.append((call.output_count, call.output_spread, call.input_spread))
        else:
            spreads.append((None, None, None))
    key = graph_key([(o.name, o.module, o.call, o.parents, o.parameters) for o in operations])
    return Sited(graph=Graph(key=key, operations=tuple(operations)), nodes=tracing.nodes, spreads=spreads)


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
