"""Put the operations of second passes into the graph of the real loss, in the place of the compiled ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unvanish.probe.backward import Leaf, Node, Tracing
from unvanish.probe.forward import Call
from unvanish.probe.noted import CompiledCall
from unvanish.probe.second_pass import Pass


@dataclass(frozen=True, slots=True)
class Crossing:
    """An edge of an operation outside that leads to output `output` of a compiled call."""

    node: Node
    position: int
    noted: CompiledCall
    output: int


def splice(
    tracing: Tracing,
    outside: Sequence[Node],
    numbered: Mapping[int, Node],
    crossings: Sequence[Crossing],
    passes: Sequence[Pass],
) -> Tracing:
    """The whole graph, as it would be without torch.compile: `outside` and the passes in execution order.

    `numbered` are the operations outside by autograd's number. Nodes are used as they are, with new indices.
    """
    terms = [None if at is None else tracing.nodes[at] for at in tracing.targets_at]
    for one in passes:
        if not tracing.targets and one.targets:
            tracing.targets, terms = one.targets, list(one.targets_nodes)
    edges = _edges(tracing, outside, numbered, crossings, passes)
    kept = {id(n) for n in outside}
    order: list[tuple[tuple[int, int], Node, Call | None]] = [
        ((number, 0), n, tracing.calls[n.index]) for number, n in numbered.items() if id(n) in kept
    ]
    for one in passes:
        order += [
            ((one.noted.call.first, i), n, c)
            for i, (n, c) in enumerate(zip(one.nodes, one.calls, strict=True))
        ]
    order.sort(key=lambda entry: entry[0])
    tracing.nodes, tracing.calls = [n for _, n, _ in order], [c for _, _, c in order]
    tracing.shape = None  # it is another graph now
    for index, node in enumerate(tracing.nodes):
        node.index, node.parents, node.consumers = index, [], 0
    for node, position, above in edges:
        if isinstance(above, Leaf):
            node.leaves.append(Leaf(position, above.parameter, above.transposed, above.whole))
        else:
            node.parents.append((position, above.index))
            above.consumers += 1
    for node in tracing.nodes:
        node.parents.sort()
        node.leaves.sort(key=lambda leaf: -leaf.parameter.dim())
    tracing.targets_at = tuple(None if node is None else node.index for node in terms)
    return tracing


def _edges(
    tracing: Tracing,
    outside: Sequence[Node],
    numbered: Mapping[int, Node],
    crossings: Sequence[Crossing],
    passes: Sequence[Pass],
) -> list[tuple[Node, int, Node | Leaf]]:
    """All edges of the whole graph: (operation, edge, what made that input)."""
    by_call = {id(one.noted): one for one in passes}
    made_by = {key: (one, index) for one in passes for key, index in one.noted.outputs.items()}
    into = {(id(c.node), c.position) for c in crossings}

    def output(one: Pass | None, index: int) -> Node | Leaf | None:
        made = None if one is None else one.outputs.get(index)
        return entry(one, made) if one is not None and isinstance(made, int) else made  # type: ignore[return-value]

    def entry(one: Pass, which: int) -> Node | Leaf | None:
        source = one.noted.sources[one.sources[which]]
        if source is None:
            return None
        if source.leaf is not None:
            return Leaf(0, source.leaf, transposed=False, whole=True)
        inside = made_by.get((source.number, source.output))
        return output(*inside) if inside is not None else numbered.get(source.number)

    edges: list[tuple[Node, int, Node | Leaf | None]] = []
    for node in outside:
        edges += [(node, p, tracing.nodes[i]) for p, i in node.parents if (id(node), p) not in into]
    edges += [(c.node, c.position, output(by_call.get(id(c.noted)), c.output)) for c in crossings]
    for one in passes:
        for node, parents in zip(one.nodes, one.parents, strict=True):
            edges += [(node, p, above) for p, above in parents]
        edges += [(node, p, entry(one, which)) for node, p, which in one.entries]
    return [(node, p, above) for node, p, above in edges if above is not None]
