"""The shape of an autograd graph, explored from its root: the same net makes the same one at every step."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

from unvanish.probe.kinds import REARRANGE, SHAPES, plain_name

MAX_NODES = 50_000
_ACCUMULATE = "AccumulateGrad"
_TO_LEAVES = SHAPES | {_ACCUMULATE}


class LeafEdge(NamedTuple):
    """An edge to a parameter, directly or through transposes, casts and views of it alone; see backward.Leaf."""

    transposed: bool
    whole: bool
    dims: int


Edge = (
    int | LeafEdge | None
)  # to the operation with this number, to a parameter, to nothing that wants a gradient
Shape = tuple[tuple[str, ...], tuple[tuple[Edge, ...], ...], tuple[int, ...]]


@dataclass(slots=True, eq=False)
class Explored:
    """A graph: its operations by number, in the order in which they were met, breadth first from the root.

    `parameters` of each operation in the order of its edges; `order` has the numbers in execution order, `numbers`
    autograd's of them, rising. `shape` is equal for equal graphs.
    """

    handles: list[Any]
    parameters: list[list[Any]]
    order: list[int]
    numbers: list[int]
    names: tuple[str, ...]
    edges: tuple[tuple[Edge, ...], ...]

    @property
    def shape(self) -> Shape:
        """What graphs are known again by."""
        return self.names, self.edges, tuple(self.order)


def explore(root: Any) -> Explored | None:
    """All operations behind `root`; None where there are too many."""
    handles, names = [root], []
    parameters: list[list[Any]] = []
    edges: list[tuple[Edge, ...]] = []
    numbers = {root: 0}
    todo = deque((root,))
    while todo:
        handle = todo.popleft()
        above: list[Edge] = []
        found: list[Any] = []
        for node, _ in handle.next_functions:
            if node is None:
                above.append(None)
                continue
            number = numbers.get(node)
            if number is None:
                leaf = _leaf(node)
                if leaf is not None:
                    above.append(leaf[0])
                    found.append(leaf[1])
                    continue
                number = numbers[node] = len(handles)
                if number >= MAX_NODES:
                    return None
                handles.append(node)
                todo.append(node)
            above.append(number)
        name = handle.name()
        if name.startswith("Elu") and getattr(handle, "_saved_scale", 1) != 1:
            name = name.replace("Elu", "Selu")  # torch computes SELU with the same operation
        names.append(name)
        edges.append(tuple(above))
        parameters.append(found)
    sequence = [handle._sequence_nr() for handle in handles]
    order = sorted(range(len(handles)), key=sequence.__getitem__)
    return Explored(handles, parameters, order, [sequence[n] for n in order], tuple(names), tuple(edges))


def _leaf(handle: Any) -> tuple[LeafEdge, Any] | None:
    """The parameter behind an edge."""
    transposed, whole = False, True
    while handle is not None:
        name = plain_name(handle.name())
        if name == _ACCUMULATE:
            variable = handle.variable
            return LeafEdge(transposed, whole, variable.dim()), variable
        if name not in _TO_LEAVES:
            return None
        above = handle.next_functions
        if len(above) != 1:
            return None
        transposed ^= name in ("T", "Transpose", "Permute")
        whole &= name in REARRANGE
        handle = above[0][0]
    return None
