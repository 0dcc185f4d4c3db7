"""Fewer layers: a loop that runs less often, or elements that leave a list."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Change, Site
from unvanish.treatment.patch.origin import Accept
from unvanish.treatment.patch.spots import spot_of
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Loop, Tree, dotted


def drop_layers(draft: Draft, change: Change) -> None:
    """Take the blocks out of the code that builds them.

    Raises:
        PatchError: how many are built is not plainly written, or forward itself names each of them.
    """
    if change.functions:
        raise PatchError(
            "forward itself names the layers that are dropped", place=_place(change.functions[0].site)
        )
    births = draft.facts.births(change.dropped)
    if isinstance(births, str):
        raise PatchError(births)
    loops: dict[int, tuple[Tree, Loop, list[tuple[Site, list[str]]]]] = {}
    for site, gone in births.items():
        tree, call = draft.call(site)
        built = draft.facts.born.get(site, ())
        loop = _loop_around(tree, call)
        if loop is not None and len(built) > 1:
            loops.setdefault(id(loop), (tree, loop, []))[2].append((site, gone))
        elif len(built) == 1:
            _remove(draft, tree, call)
        else:
            raise PatchError(f"{_place(site)} builds layers that stay, too", place=_place(site))
    for tree, loop, sites in loops.values():
        _shorten(draft, tree, loop, sites)
    draft.note(
        "fewer weights are drawn when the model is built, so that the data order and the weights are others than in "
        "the trials"
    )


def _place(site: Site) -> str:
    return f"{site.file}:{site.line}"


def _loop_around(tree: Tree, node: cst.CSTNode) -> Loop | None:
    for around in tree.around(node):
        if isinstance(around, cst.For) and tree.inside(node, around.body):
            return around
        if isinstance(around, cst.CompFor) and not tree.inside(node, around.iter):
            return around  # for _ in range(n) for m in (nn.Linear(...), nn.Tanh())
        if isinstance(around, (cst.ListComp, cst.GeneratorExp)) and tree.inside(node, around.elt):
            return around.for_in
        if isinstance(around, (cst.FunctionDef, cst.Lambda, cst.ClassDef)):
            return None
    return None


def _remove(draft: Draft, tree: Tree, call: cst.Call) -> None:
    """Take one element out of a list, tuple or call."""
    spot = spot_of(tree, call)
    if spot.kind == "append" and isinstance(spot.holder, cst.Call):
        statement = tree.statement(spot.holder)
        start = tree.line_start(tree.start(statement))
        end = tree.line_end(tree.end(statement))
        draft.edits(tree).replace(start, end + len(tree.newline), "")
        return
    if spot.kind not in ("element", "pair"):
        raise PatchError(
            f"how {tree.place(call)} is added to the model is not understood", place=tree.place(call)
        )
    node = spot.holder if spot.kind == "pair" else spot.node
    holder = tree.parents[tree.parents[node]]
    items: Sequence[cst.Arg | cst.BaseElement] = ()
    if isinstance(holder, cst.Call):
        items = holder.args
    elif isinstance(holder, (cst.List, cst.Tuple)):
        items = holder.elements
    places = [i for i, item in enumerate(items) if item.value is node]
    if not places or len(items) < 2:
        raise PatchError(
            f"how {tree.place(call)} is added to the model is not understood", place=tree.place(call)
        )
    here = places[0]
    if here + 1 < len(
        items
    ):  # up to its neighbour, so that what stands on lines of its own leaves no empty one
        draft.edits(tree).replace(tree.start(node), tree.start(items[here + 1].value), "")
    else:
        draft.edits(tree).replace(tree.close(items[here - 1].value), tree.close(node), "")


def _shorten(draft: Draft, tree: Tree, loop: Loop, sites: Sequence[tuple[Site, list[str]]]) -> None:
    """Let a loop run as many times less as blocks are dropped from its end."""
    place = f"{tree.path}:{_place(sites[0][0]).rpartition(':')[2]}"
    counts = {len(gone) for _, gone in sites}
    built = {len(draft.facts.born.get(site, ())) for site, _ in sites}
    for site, gone in sites:
        paths = [p for p in draft.facts.born.get(site, ()) if p is not None]
        if paths[-len(gone) :] != gone or len(paths) != len(draft.facts.born[site]):
            raise PatchError(f"the loop in {place} builds other layers as well", place=place)
    outers = {b.outer for site, gone in sites for p in gone if (b := draft.facts.parts[p].birth) is not None}
    call = loop.iter
    if len(counts) > 1 or len(built) > 1 or len(outers) > 1 or not isinstance(call, cst.Call):
        raise PatchError(f"how often the loop in {place} runs is not plainly written", place=place)
    if dotted(call.func) != "range" or len(call.args) != 1 or call.args[0].star:
        raise PatchError(f"how often the loop in {place} runs is not plainly written", place=place)
    _reduce(draft, tree, call.args[0].value, built.pop(), counts.pop(), next(iter(outers)))


def _reduce(
    draft: Draft, tree: Tree, node: cst.BaseExpression, count: int, less: int, outer: Sequence[Site]
) -> None:
    """Make an expression that comes to `count` come to `count - less`, at the literal behind it where that can be."""
    offset, name = 0, node
    if isinstance(node, cst.BinaryOperation) and isinstance(node.right, cst.Integer):
        sign = {cst.Subtract: 1, cst.Add: -1}.get(type(node.operator))
        if sign is not None:
            offset, name = sign * int(node.right.value), node.left
    origin = draft.origins.find(tree, name, _is(count + offset), outer)
    if origin is not None and (not origin.trail or draft.origins.covered([origin])):
        draft.edits(origin.tree).replace_node(origin.node, str(count + offset - less))
    elif (
        isinstance(node, cst.BinaryOperation) and name is not node and isinstance(node.operator, cst.Subtract)
    ):
        draft.edits(tree).replace_node(node.right, str(offset + less))
    elif isinstance(node, (cst.Name, cst.Attribute, cst.Call, cst.Subscript)):
        draft.edits(tree).behind(tree.close(node), f" - {less}")
    else:
        raise PatchError(
            f"how often the loop in {tree.place(node)} runs is not plainly written", place=tree.place(node)
        )


def _is(count: int) -> Accept:
    return lambda tree, node: isinstance(node, cst.Integer) and int(tree.code(node), 0) == count
