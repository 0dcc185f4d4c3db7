"""Where the signal has several ways: sums of branches, and attention's two ways through values and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from unvanish.diagnose.path import Traced, layer_name
from unvanish.schema.chain import Fork, Way
from unvanish.schema.graph import Operation

_PRODUCTS = frozenset("Bmm Baddbmm Mm".split())
_FUSED = ("ScaledDotProduct",)
_FUSED_ROLES = ("queries", "keys", "values")
_FAR = 40  # operations that are looked through for what a way leads to
SKIP = "straight past (skip)"


def forks_of(traced: Traced, path: Sequence[int]) -> tuple[Fork, ...]:
    """The sums on the path, and every attention between its ends; from the loss towards the data."""
    found = [_sum(traced, current, parent) for current, parent in pairwise(path) if _several(traced, parent)]
    followed = set(pairwise(path))
    for index in _between(traced, path):
        ways = _attention_ways(traced, index, followed)
        if ways:
            operation = traced.operations[index]
            found.append(
                Fork(
                    kind="attention",
                    layer=_outside(traced, index) or layer_name(operation),
                    operation=index,
                    gain=None,
                    ways=ways,
                )
            )
    return tuple(sorted(found, key=lambda f: (-f.operation, f.kind)))


def _several(traced: Traced, index: int) -> bool:
    return len(traced.consumers[index]) > 1


def _sum(traced: Traced, current: int, parent: int) -> Fork:
    users = traced.consumers[parent]
    names = [way_name(traced, parent, user) for user, _ in users]
    labels = [
        f"{name} {traced.operations[user].name}" if names.count(name) > 1 else name
        for name, (user, _) in zip(names, users, strict=True)
    ]
    shares = _shares([norm for _, norm in users])
    best = max((n for u, n in users if u == current), default=math.nan)
    total = traced.stats[parent].norm
    ways = [
        Way(label=label, operation=user, norm=norm, share=share, followed=user == current and norm == best)
        for label, (user, norm), share in zip(labels, users, shares, strict=True)
    ]
    return Fork(
        kind="sum",
        layer=layer_name(traced.operations[parent]),
        operation=parent,
        gain=total / best if best > 0 else None,
        ways=tuple(sorted(ways, key=lambda w: -w.norm if w.norm == w.norm else math.inf)),
    )


def way_name(traced: Traced, parent: int, user: int) -> str:
    """What the way from `parent` through `user` is: a skip, attention's queries, keys or values, else a layer."""
    operation = traced.operations[user]
    if operation.kind == "skip":
        return SKIP
    role = _role(traced, parent, user)
    name = layer_name(operation)
    return f"{name}: {role}" if role else name


def _role(traced: Traced, parent: int, user: int) -> str | None:
    """Whether values alone (no weight on the way) lead from here into an attention, and as what."""
    before, current = parent, user
    for _ in range(_FAR):
        operation = traced.operations[current]
        roles = _roles(traced, operation)
        if roles:
            return next((r for p, r in zip(operation.parents, roles, strict=False) if p == before), None)
        users = traced.consumers[current]
        if operation.kind not in ("shape", "other") or len(users) != 1:
            return None
        before, current = current, users[0][0]
    return None


def _roles(traced: Traced, operation: Operation) -> tuple[str, ...]:
    """What each parent of an attention's product is to it; empty: it is none."""
    if operation.name.startswith(_FUSED):
        return _FUSED_ROLES[: len(operation.parents)]
    if operation.name not in _PRODUCTS or len(operation.parents) != 2 or any(operation.parameters):
        return ()
    softmax = [_softmax_before(traced, p) is not None for p in operation.parents]
    if softmax.count(True) == 1:
        return ("softmax", "values") if softmax[0] else ("values", "softmax")
    return ("queries", "keys") if _softmax_after(traced, operation.index) else ()


def _softmax_before(traced: Traced, index: int) -> int | None:
    for _ in range(_FAR):
        operation = traced.operations[index]
        if operation.kind == "softmax":
            return index
        # what lies between: a dropout, views, a mask
        if operation.kind not in ("shape", "other") or len(operation.parents) != 1:
            return None
        index = operation.parents[0]
    return None


def _softmax_after(traced: Traced, index: int) -> bool:
    for _ in range(_FAR):
        users = traced.consumers[index]
        if len(users) != 1:
            return False
        index = users[0][0]
        operation = traced.operations[index]
        if operation.kind == "softmax":
            return True
        if operation.kind not in ("shape", "other", "skip"):
            return False
    return False


def _attention_ways(traced: Traced, index: int, followed: set[tuple[int, int]]) -> tuple[Way, ...]:
    operation = traced.operations[index]
    roles = _roles(traced, operation)
    if "values" not in roles:
        return ()
    handed = [_layers_own(traced, index, edge) for edge in range(len(operation.parents))]
    edges = list(zip(roles, operation.parents, handed, strict=False))
    value = [(p, n) for role, p, n in edges if role == "values"]
    other = [(p, n) for role, p, n in edges if role != "values"]
    beyond = [n for _, n in other] if len(other) == 2 else _beyond(traced, other[0][0])
    norms = (math.hypot(*(n for _, n in value)), math.hypot(*beyond))
    labels = ("through the values", "through the softmax (queries and keys)")
    taken = [any((index, p) in followed for p, _ in ways) for ways in (value, other)]
    return tuple(
        Way(label=label, operation=index, norm=norm, share=share, followed=yes)
        for label, norm, share, yes in zip(labels, norms, _shares(norms), taken, strict=True)
    )


def _beyond(traced: Traced, index: int) -> list[float]:
    """What is left behind the softmax: at the queries and keys where they are found, else right behind it."""
    softmax = _softmax_before(traced, index)
    if softmax is None:
        return [traced.stats[index].norm]
    current = softmax
    for _ in range(_FAR):
        operation = traced.operations[current]
        if operation.name in _PRODUCTS and len(operation.parents) == 2:
            return [_layers_own(traced, current, edge) for edge in (0, 1)]
        if not operation.parents:
            break
        current = operation.parents[0]
    return _edges(traced, softmax)[:1] or [0.0]


def _layers_own(traced: Traced, index: int, edge: int) -> float:
    """What an operation hands on there, behind the scalings and views on the way to the layer that it came from."""
    norm = _edges(traced, index)[edge]
    current = traced.operations[index].parents[edge]
    for _ in range(_FAR):
        operation = traced.operations[current]
        plain = (
            operation.kind in ("shape", "other") and len(operation.parents) == 1 and not operation.parameters
        )
        if not plain or len(traced.consumers[current]) != 1:
            break
        norm, current = _edges(traced, current)[0], operation.parents[0]
    return norm


def _edges(traced: Traced, index: int) -> list[float]:
    operation, stats = traced.operations[index], traced.stats[index]
    pairs = zip(operation.parents, stats.edge_norms, strict=True)
    return [traced.stats[p].norm if norm is None else norm for p, norm in pairs]


def _shares(norms: Sequence[float]) -> list[float]:
    squares = [n * n for n in norms]
    whole = sum(squares)
    return [s / whole if whole > 0 else math.nan for s in squares]


def _between(traced: Traced, path: Sequence[int]) -> list[int]:
    """Operations from which the path's last one is reached, and which its first one hangs on."""
    first, last = path[0], path[-1]
    below = {last}
    for index in range(last + 1, first + 1):
        if any(p in below for p in traced.operations[index].parents):
            below.add(index)
    above = {first}
    for index in range(first, last - 1, -1):
        if index in above:
            above.update(traced.operations[index].parents)
    return sorted(below & above)


def _outside(traced: Traced, index: int) -> str:
    return traced.operations[index].module or ""
