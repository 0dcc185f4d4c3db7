"""Paths through a graph: followed by shared pointers, and as if each were looked for by itself."""

from __future__ import annotations

import math
import random

import pytest

from unvanish.diagnose.path import Traced
from unvanish.schema.graph import Graph, Operation, OperationStats, Trace


def traced(seed: int) -> Traced:
    """A random graph: forks, joins, dead ends, equal and broken norms."""
    rng = random.Random(seed)
    n = rng.randrange(2, 60)
    norms = [0.0, 1.0, 2.0, 0.5, math.nan]
    operations, stats = [], []
    for i in range(n):
        parents = tuple(sorted(rng.choices(range(i), k=min(i, rng.choice((0, 1, 1, 1, 2, 3))))))
        weight = rng.random() < 0.5
        names = tuple(rng.choices(("w", "v", "bias", "m.bias", ""), k=2)) if weight else ()
        operations.append(
            Operation(
                index=i, name="Addmm" if weight else "Tanh", kind="weight" if weight else "activation",
                module=rng.choice(("a", None)), module_class=None, call=0, parents=parents, parameters=names,
            )
        )  # fmt: skip
        stats.append(
            OperationStats(
                operation=i, count=rng.choice((1, 8)), norm=rng.choice(norms), absmax=1.0, zeros=0, nonfinite=0,
                edge_norms=tuple(rng.choice((*norms, None)) for _ in parents),
                parameter_norms=tuple(None for _ in names),
            )
        )  # fmt: skip
    output = rng.choice((n - 1, rng.randrange(n)))
    trace = Trace(model=0, step=0, backward=0, graph="g", loss=1.0, stats=tuple(stats), output=output)
    return Traced(trace, Graph(key="g", operations=tuple(operations)))


def path_by_itself(one: Traced, target: int) -> list[int]:
    """The definition: on to the consumer that hands most back, the last of equal ones, until the output."""
    path = [target]
    while path[-1] != one.trace.output:
        found = []
        for operation, stats in zip(one.operations, one.stats, strict=True):
            for parent, norm in zip(operation.parents, stats.edge_norms, strict=True):
                if parent == path[-1]:
                    size = one.stats[parent].norm if norm is None else norm
                    found.append((math.inf if size != size else size, operation.index))
        if not found:
            break
        path.append(max(found)[1])
    if path[-1] != one.trace.output:
        while len(path) > 1:
            last = one.operations[path[-1]]
            if last.module is not None and one.stats[path[-1]].count > 1:
                break
            path.pop()
    return path[::-1]


@pytest.mark.parametrize("seed", range(120))
def test_paths(seed: int) -> None:
    one = traced(seed)
    paths = [path_by_itself(one, i) for i in range(len(one.operations))]
    assert [one.path_to(i) for i in range(len(paths))] == paths
