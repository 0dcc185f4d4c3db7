"""The model graph as a river: where the signal runs, parts, and meets again, and how much of it there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from unvanish.present.series import number
from unvanish.schema.graph import Graph, Operation, OperationStats, Trace
from unvanish.schema.run import ModelRun

NODES = 72  # more than can be read are gathered by module, then by neighbourhood
Edges = dict[
    tuple[int, int], float
]  # (nearer to the data, nearer to the loss) -> L2 norm of what runs along it


@dataclass(slots=True)
class _Node:
    """A place of the river: weighted layers, or a fork where ways meet (`rows` is empty then)."""

    label: str
    kind: str
    rows: list[str] = field(default_factory=list)
    norm: float | None = None
    depth: int = 0
    lane: int = 0


def river_view(model: ModelRun, named: Mapping[str, Mapping[str, Operation]]) -> dict[str, Any]:
    """Places and ways of the last backward pass that was measured in full; widths in decades below the output's.

    `named`: per graph, its weighted operations by row name. Places are in execution order; `depth` counts from the
    data, `lane` from the main stream (0). `signal` None = nothing arrives, or it is not a number.
    """
    traces = [t for t in model.traces if t.graph in named]
    if not traces:
        return {"step": None, "nodes": [], "edges": [], "gathered": 0, "low": -1.0, "high": 0.0}
    fullest = max(len(t.stats) for t in traces)
    trace = [t for t in traces if len(t.stats) >= 0.9 * fullest][-1]
    graph = model.graphs[trace.graph]
    nodes, edges = _reduce(trace, graph, {o.index: row for row, o in named[trace.graph].items()})
    whole = len(nodes)
    nodes, edges = _gather(nodes, edges)
    _lay_out(nodes, edges)
    return _told(trace, nodes, edges, whole)


def _told(trace: Trace, nodes: Sequence[_Node], edges: Edges, whole: int) -> dict[str, Any]:
    last = next((n.norm for n in reversed(nodes) if n.norm and math.isfinite(n.norm)), 1.0)
    widths = {ends: _decades(norm, last) for ends, norm in edges.items()}
    known = [w for w in widths.values() if w is not None]
    return {
        "step": trace.step,
        "nodes": [
            {
                "label": n.label,
                "kind": n.kind,
                "rows": n.rows,
                "depth": n.depth,
                "lane": n.lane,
                "signal": number(_decades(n.norm, last), 4),
            }
            for n in nodes
        ],
        "edges": [
            {"from": a, "to": b, "signal": number(width, 4), "mark": _mark(edges[a, b])}
            for (a, b), width in widths.items()
        ],
        "gathered": whole if whole > len(nodes) else 0,
        "low": number(min([-1.0, *known]), 4),
        "high": number(max([0.0, *known]), 4),
    }


def _mark(norm: float) -> str | None:
    return "nan" if not math.isfinite(norm) else "zero" if norm <= 0 else None


def _decades(norm: float | None, reference: float) -> float | None:
    if norm is None or not math.isfinite(norm) or norm <= 0:
        return None
    return math.log10(norm) - math.log10(reference)


def _reduce(trace: Trace, graph: Graph, rows: Mapping[int, str]) -> tuple[list[_Node], Edges]:
    """The weighted operations, the places where ways part or meet, and the ways between them."""
    stats = {s.operation: s for s in trace.stats}
    end = trace.output if trace.output is not None else graph.operations[-1].index
    inner = {o.index: o for o in graph.operations if o.index <= end}
    users = dict.fromkeys(inner, 0)
    for operation in inner.values():
        for parent in set(operation.parents) & inner.keys():
            users[parent] += 1

    def is_place(operation: Operation) -> bool:
        index = operation.index
        return (
            index in rows
            or index == end
            or users[index] > 1
            or len(set(operation.parents) & inner.keys()) > 1
        )

    kept = [o for o in inner.values() if is_place(o)]
    at = {o.index: i for i, o in enumerate(kept)}
    nodes = [_node(o, stats.get(o.index), rows) for o in kept]
    edges: Edges = {}
    for operation in kept:
        for k, parent in enumerate(operation.parents):
            arrived = _follow(parent, _edge(stats.get(operation.index), k), inner, stats, at)
            if arrived is not None:
                _widen(edges, (at[arrived[0]], at[operation.index]), arrived[1])
    return nodes, edges


def _widen(edges: Edges, ends: tuple[int, int], norm: float) -> None:
    """Of several ways between two places the widest counts; one that is no number is never hidden."""
    known = edges.get(ends)
    edges[ends] = norm if known is None or not norm <= known else known


def _edge(stats: OperationStats | None, k: int) -> float | None:
    """What an operation handed to its k-th parent; None where that was not measured."""
    return stats.edge_norms[k] if stats is not None and k < len(stats.edge_norms) else None


def _follow(
    index: int,
    norm: float | None,
    inner: Mapping[int, Operation],
    stats: Mapping[int, OperationStats],
    at: Mapping[int, int],
) -> tuple[int, float] | None:
    """Down the stream through what is no place of its own, to the next place; None where it leaves the model.

    Where the last stretch was not measured, what arrives is all that the place gets.
    """
    while index in inner and index not in at:
        measured = stats.get(index)
        onward = [(p, _edge(measured, k)) for k, p in enumerate(inner[index].parents) if p in inner]
        if not onward:
            return None
        index, norm = onward[0]
    if index not in at:
        return None
    if norm is None:
        norm = stats[index].norm if index in stats else 0.0
    return index, norm


def _node(operation: Operation, stats: OperationStats | None, rows: Mapping[int, str]) -> _Node:
    row = rows.get(operation.index)
    label = row or operation.name
    kind = "layer" if row else "sum" if operation.kind == "skip" else "fork"
    return _Node(label=label, kind=kind, rows=[row] if row else [], norm=stats.norm if stats else None)


def _gather(nodes: list[_Node], edges: Edges) -> tuple[list[_Node], Edges]:
    """Neighbours of one module become one place, as deep in the tree of modules as it takes."""
    if len(nodes) <= NODES:
        return nodes, edges
    owner = _owners(nodes)
    depth = max(name.count(".") for name in owner)
    groups: list[list[int]] = []
    for level in range(depth, 0, -1):
        keys = [".".join(name.split(".")[:level]) for name in owner]
        groups = [[i for i, _ in run] for _, run in groupby(enumerate(keys), key=lambda pair: pair[1])]
        if len(groups) <= NODES and len(groups) > 2:
            return _merged(nodes, edges, groups)
    size = math.ceil(len(nodes) / NODES)
    groups = [list(range(i, min(i + size, len(nodes)))) for i in range(0, len(nodes), size)]
    return _merged(nodes, edges, groups)


def _owners(nodes: Sequence[_Node]) -> list[str]:
    """The layer that each place belongs to: its own, or the one before it."""
    names, last = [], ""
    for node in nodes:
        last = node.rows[0] if node.rows else last
        names.append(last)
    return names


def _merged(
    nodes: Sequence[_Node], edges: Edges, groups: Sequence[Sequence[int]]
) -> tuple[list[_Node], Edges]:
    at = {i: g for g, members in enumerate(groups) for i in members}
    made = []
    for members in groups:
        rows = [row for i in members for row in nodes[i].rows]
        ends = [rows[0], rows[-1]] if rows else [nodes[members[0]].label]
        label = ends[0] if len(rows) < 2 else f"{ends[0]} to {ends[-1]}"
        norms = [n for i in members if (n := nodes[i].norm) is not None and math.isfinite(n)]
        made.append(_Node(label, "layer" if rows else "fork", rows, min(norms, default=None)))
    between: Edges = {}
    for (a, b), norm in edges.items():
        if at[a] != at[b]:
            _widen(between, (at[a], at[b]), norm)
    return made, between


def _lay_out(nodes: Sequence[_Node], edges: Edges) -> None:
    """Depth: the longest way from the data. Lanes: the longest way is the main stream, the rest beside it."""
    into: dict[int, list[int]] = {}
    for a, b in edges:
        into.setdefault(b, []).append(a)
    before: dict[int, int] = {}
    for i, node in enumerate(nodes):  # execution order: what runs in lies before
        sources = into.get(i, [])
        if sources:
            before[i] = max(sources, key=lambda a: nodes[a].depth)
            node.depth = nodes[before[i]].depth + 1
    if not nodes:
        return
    main, here = {len(nodes) - 1}, len(nodes) - 1
    while here in before:
        here = before[here]
        main.add(here)
    taken = {(nodes[i].depth, 0) for i in main}
    for i, node in enumerate(nodes):
        if i not in main:
            node.lane = next(
                lane for k in range(1, len(nodes) + 2) for lane in (k, -k) if (node.depth, lane) not in taken
            )
            taken.add((node.depth, node.lane))
