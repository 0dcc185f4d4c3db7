"""The dominant path of the backprop signal through a traced graph, and its factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from unvanish.schema.chain import Factor
from unvanish.schema.finding import Attribution
from unvanish.schema.graph import Graph, Operation, OperationStats, Trace

BOUNDS = {
    "Sigmoid": 0.25,
    "Tanh": 1.0,
    "Relu": 1.0,
    "LeakyRelu": 1.0,
    "Hardtanh": 1.0,
    "Elu": 1.0,
    "Softplus": 1.0,
    "LogSigmoid": 1.0,
    "Hardsigmoid": 1 / 6,
    "Sin": 1.0,
    "Cos": 1.0,
    "Gelu": 1.1289,
    "Silu": 1.0999,
    "Mish": 1.0885,
    "Selu": 1.7581,
    "Hardswish": 1.5,
    "Softmax": 0.5,  # largest eigenvalue of diag(p) - p p^T
}
_GATES = frozenset("Relu Threshold Hardtanh".split())


@dataclass(frozen=True)
class Traced:
    """A trace with its graph: every look-up that the rules and the explanation need."""

    trace: Trace
    graph: Graph

    @property
    def operations(self) -> Sequence[Operation]:
        """In execution order."""
        return self.graph.operations

    @property
    def stats(self) -> Sequence[OperationStats]:
        """As the operations."""
        return self.trace.stats

    def weighted(self) -> list[int]:
        """Operations where a weight of the model enters, in execution order."""
        return [o.index for o in self.operations if o.kind == "weight" and any(o.parameters)]

    @cached_property
    def consumers(self) -> list[list[tuple[int, float]]]:
        """Per operation: (operation that uses its result, L2 norm of the signal that it hands back)."""
        users: list[list[tuple[int, float]]] = [[] for _ in self.operations]
        for operation, stats in zip(self.operations, self.stats, strict=True):
            for parent, norm in zip(operation.parents, stats.edge_norms, strict=True):
                users[parent].append((operation.index, self.stats[parent].norm if norm is None else norm))
        return users

    def path_to(self, target: int) -> list[int]:
        """Operations from the model's output to `target`, along the largest contributions, both included."""
        path = [target]
        while path[-1] != self.trace.output and (onward := self._onward[path[-1]]) is not None:
            path.append(onward)
        if path[-1] != self.trace.output:
            while len(path) > 1 and not self._inside(path[-1]):
                path.pop()
        return path[::-1]

    @cached_property
    def _onward(self) -> list[int | None]:
        """Per operation the one that hands most of the signal back to it: all paths end in one another's tails."""
        # of equal contributions (all zero, say) the one nearest to the loss
        return [
            max(users, key=lambda u: (_order(u[1]), u[0]))[0] if users else None for users in self.consumers
        ]

    def swallows(self, index: int) -> bool:
        """Whether an operation of one operand gets a signal and hands back nothing but exact zeros."""
        operation, stats = self.operations[index], self.stats[index]
        if len(operation.parents) != 1 or not stats.norm > 0:
            return False
        below = self.stats[operation.parents[0]]
        return below.count > 0 and below.norm == 0

    def follows(self, first: int, last: int) -> bool:
        """Whether the operation `last` depends on the operation `first`: time steps do, elements of a set do not."""
        ahead, seen = [last], {last}
        while ahead:
            for parent in self.operations[ahead.pop()].parents:
                if parent == first:
                    return True
                if parent > first and parent not in seen:
                    seen.add(parent)
                    ahead.append(parent)
        return False

    def _inside(self, index: int) -> bool:
        operation = self.operations[index]
        return operation.module is not None and operation.kind != "loss" and self.stats[index].count > 1

    def factors(self, path: Sequence[int]) -> tuple[Factor, ...]:
        """One factor per operation of the path, and one where several paths add up. Their product telescopes."""
        users = self.consumers
        out: list[Factor] = []
        for current, parent in pairwise(path):
            operation = self.operations[current]
            contribution = max((n for u, n in users[parent] if u == current), key=_order)
            out.append(
                Factor(
                    name=_title(operation),
                    kind=operation.kind,
                    module=layer_name(operation) if operation.module or any(operation.parameters) else None,
                    operation=current,
                    gain=_ratio(contribution, self.stats[current].norm),
                    bound=BOUNDS.get(operation.name, self.stats[current].bound),
                    open_share=self._open_share(current, parent) if operation.name in _GATES else None,
                )
            )
            if len(users[parent]) > 1:
                out.append(
                    Factor(
                        name=f"sum of {len(users[parent])} paths",
                        kind="skip",
                        module=layer_name(self.operations[parent]),
                        operation=parent,
                        gain=_ratio(self.stats[parent].norm, contribution),
                    )
                )
        return tuple(out)

    def _open_share(self, gate: int, parent: int) -> float | None:
        """Of the places at which a signal came to a gate, the share that it let through; None: it can't be told."""
        arrived, passed = self.stats[gate], self.stats[parent]
        if len(self.consumers[parent]) != 1 or passed.count != arrived.count or arrived.nonfinite:
            return None
        reached = arrived.count - arrived.zeros
        return min(1.0, max(0.0, (passed.count - passed.zeros) / reached)) if reached > 0 else None


def is_weight(name: str) -> bool:
    """Whether a parameter of this name may carry the signal; "" is one that the model does not hold."""
    return bool(name) and not name.rsplit(".", 1)[-1].startswith("bias")


def _title(operation: Operation) -> str:
    """A weight's factor bears its module's class (Linear, Conv2d), as people know it, not autograd's name."""
    named = operation.kind in ("weight", "norm") and operation.module and operation.module_class
    return str(operation.module_class) if named else operation.name


def layer_name(operation: Operation) -> str:
    """What to call an operation's place: its module's path, else its parameter's name, else its own name."""
    if operation.module:
        return operation.module
    named = [p for p in operation.parameters if p]
    heavy = [p for p in named if not p.rsplit(".", 1)[-1].startswith("bias")]
    return (heavy or named or [operation.name])[0].removesuffix(".weight")


def parameter_layer(name: str) -> str:
    """The layer that a parameter belongs to: its module's path, else its own name."""
    module, _, own = name.rpartition(".")
    return module if module and own.startswith(("weight", "bias", "in_proj", "parametrizations")) else name


def attribution(factors: Sequence[Factor]) -> Attribution:
    """Decades by kind of factor. Infinite losses (an exact zero) count as 300 decades, so that parts add up."""
    parts = {"activation": 0.0, "weight": 0.0, "norm": 0.0, "skip": 0.0, "other": 0.0}
    for factor in factors:
        kind = factor.kind if factor.kind in parts else "other"
        parts[kind] += max(-300.0, factor.decades)
    return Attribution(**parts)


def decades(after: float, before: float) -> float:
    """log10(after / before); -inf where nothing is left, NaN where it can't be said."""
    if not (math.isfinite(after) and math.isfinite(before)) or before <= 0:
        return math.nan
    return math.log10(after / before) if after > 0 else -math.inf


def _ratio(after: float, before: float) -> float:
    return after / before if before > 0 else 0.0


def _order(norm: float) -> float:
    return norm if norm == norm else math.inf
