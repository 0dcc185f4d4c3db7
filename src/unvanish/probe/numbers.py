"""Make numbers of the samples of a traced pass, a column at a time: in the writer's thread, and fast.

Python code there holds up the training thread's own, so that what is made in loops here shows in the step time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unvanish.probe.backward import Node
from unvanish.probe.samples import Sample, Table, tabulate, to_numpy
from unvanish.schema.columns import from_columns
from unvanish.schema.graph import OperationStats
from unvanish.schema.moments import combined


def stats_of(
    nodes: Sequence[Node], outputs: Sequence[Sample | None], factor: float, *, exponents: bool
) -> tuple[OperationStats, ...]:
    """One OperationStats per node. `outputs`: of the module that the operation stands for; see Sited.numbers."""
    signal = _signal(nodes, factor, exponents=exponents)
    columns: dict[str, Sequence[Any]] = {"operation": range(len(nodes)), **signal}
    columns.update(_edges(nodes, signal, factor))
    columns.update(_outputs(outputs))
    columns.update(_units(nodes))
    columns["bound"] = [node.bound for node in nodes]
    return from_columns(OperationStats, len(nodes), columns)


def _signal(nodes: Sequence[Node], factor: float, *, exponents: bool) -> dict[str, list[Any]]:
    table = tabulate([s for node in nodes for s in node.arrived], exponents=exponents)
    if factor != 1.0:
        table.multiply(factor)
    counts = [len(node.arrived) for node in nodes]
    if any(n != 1 for n in counts):
        table = _one_each(table, counts)
    sampled = [None if s >= n else s for s, n in zip(table.sampled, table.count, strict=True)]
    reached = [n > 0 for n in counts]
    totals = table.total.tolist()
    return {
        "count": table.count,
        "norm": table.norm.tolist(),
        "absmax": table.absmax.tolist(),
        "zeros": np.rint(table.zeros).astype(np.int64).tolist(),
        "nonfinite": np.rint(table.nonfinite).astype(np.int64).tolist(),
        "total": [t if there else None for t, there in zip(totals, reached, strict=True)],
        "sampled": [s if there else None for s, there in zip(sampled, reached, strict=True)],
        "exponents": table.exponents,
    }


def _one_each(table: Table, counts: Sequence[int]) -> Table:
    """One row per operation, where some had several outputs or none was reached."""
    out = Table.empty(len(counts))
    at = 0
    for row, count in enumerate(counts):
        whole = combined([table.moments(i) for i in range(at, at + count)])
        if whole is not None:
            out.put(row, whole)
        at += count
    return out


def _edges(
    nodes: Sequence[Node], signal: Mapping[str, list[Any]], factor: float
) -> dict[str, list[tuple[float | None, ...]]]:
    """What each operation handed to its parents and to its parameters."""
    own = tabulate([s for node in nodes for s in node.edges.values()]).norm * abs(factor)
    handed = iter(own.tolist())
    measured = [{position: next(handed) for position in node.edges} for node in nodes]
    norms: list[float | None] = [
        norm if node.arrived else None for norm, node in zip(signal["norm"], nodes, strict=True)
    ]
    # the only consumer hands over all that arrives there
    alone = [norm if node.consumers == 1 else None for norm, node in zip(norms, nodes, strict=True)]
    return {
        "edge_norms": [
            tuple([edges.get(position, alone[parent]) for position, parent in node.parents])
            for node, edges in zip(nodes, measured, strict=True)
        ],
        "parameter_norms": [
            tuple([edges.get(leaf.position) for leaf in node.leaves])
            for node, edges in zip(nodes, measured, strict=True)
        ],
    }


def _outputs(outputs: Sequence[Sample | None]) -> dict[str, list[float | int | None]]:
    table = tabulate([s for s in outputs if s is not None])
    with np.errstate(all="ignore"):
        count = np.maximum(1, np.array(table.count, np.float64))
        columns = {
            "output_count": iter(table.count),
            "output_std": iter((table.deviation / np.sqrt(count)).tolist()),
            "output_rms": iter((table.norm / np.sqrt(count)).tolist()),
            "output_mean": iter((table.total / count).tolist()),
        }
    return {
        name: [None if sample is None else next(values) for sample in outputs]
        for name, values in columns.items()
    }


def _units(nodes: Sequence[Node]) -> dict[str, list[Any]]:
    """Of the gates: units that some signal reached, those of them that passed nothing on, and which (see schema)."""
    gates = [node.gate for node in nodes if node.gate is not None]
    arrays = iter(to_numpy([t for gate in gates for t in gate]))
    units: list[int | None] = []
    closed: list[int | None] = []
    bits: list[str] = []
    for node in nodes:
        if node.gate is None:
            known = 0 if node.unit_dim is not None else None
            units.append(known)
            closed.append(known)
            bits.append("")
            continue
        arriving, passed = next(arrays), next(arrays)
        reached, open_ = arriving != 0, passed != 0
        units.append(int(np.count_nonzero(reached)))
        closed.append(int(np.count_nonzero(reached & ~open_)))
        bits.append((np.packbits(reached).tobytes() + np.packbits(open_).tobytes()).hex())
    return {"units": units, "closed_units": closed, "unit_bits": bits}
