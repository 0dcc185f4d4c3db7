"""Identity skips in a forward that calls layer and activation itself: x = x + act(layer(x))."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import CallSkip
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree

_HELPER = (
    "def {name}(y, x):",
    '    """The identity skip of He et al. (2016), where a block keeps the shape."""',
)
# a sum needs no parentheses of its own in these places
_LOOSE = (cst.Assign, cst.AnnAssign, cst.Return, cst.Element, cst.NamedExpr, cst.Expr)


def place_call_skips(draft: Draft, skips: Sequence[CallSkip]) -> None:
    """Make all sums.

    Raises:
        PatchError: the two calls of a block are not in one function.
    """
    for skip in skips:
        tree, first = draft.call(skip.first)
        other, last = draft.call(skip.last)
        if tree is not other or tree.scope(first) is not tree.scope(last) or len(first.args) != 1:
            place = tree.place(first)
            raise PatchError(f"the layer in {place} and its activation are called apart", place=place)
        kept, early = _keep(draft, tree, first, last)
        _add(draft, tree, last, skip, kept, early=early)


def _keep(draft: Draft, tree: Tree, first: cst.Call, last: cst.Call) -> tuple[str, bool]:
    """The name of what goes in, and whether it has its value already when the sum begins."""
    value, nested = first.args[0].value, tree.inside(first, last)
    if isinstance(value, cst.Name) and not _rebound(tree, value.value, first, last):
        return value.value, True
    name = draft.free_name(tree, "skip")
    around = [n for n in tree.around(first) if isinstance(n, (cst.BaseComp, cst.FunctionDef, cst.Lambda))]
    if isinstance(value, cst.Name) and isinstance(around[0], cst.FunctionDef):
        fault = draft.attempt(lambda: draft.edits(tree).before(first, [f"{name} = {value.value}"]))
        if fault is None:
            return name, True
    draft.edits(tree).wrap(tree.start(value), tree.end(value), f"{name} := ", "")
    return name, not nested


def _rebound(tree: Tree, name: str, first: cst.Call, last: cst.Call) -> bool:
    """Whether the name gets another value between the two calls (x = layer(x), say)."""
    if tree.inside(first, last):
        return any(
            isinstance(node.target, cst.Name) and node.target.value == name and tree.inside(node, last)
            for node in tree.all(cst.NamedExpr)
        )
    bound = (cst.AssignTarget, cst.AugAssign, cst.AnnAssign, cst.NamedExpr, cst.Element, cst.For)
    # the statement of the first call itself binds it after the call, wherever its target stands
    start = tree.line_start(tree.start(first))
    return any(
        start <= tree.start(n) < tree.start(last) and isinstance(tree.parents[n], bound)
        for n in tree.uses(name, tree.scope(first))
    )


def _add(draft: Draft, tree: Tree, last: cst.Call, skip: CallSkip, kept: str, *, early: bool) -> None:
    edits, scale = draft.edits(tree), "" if skip.scale == 1.0 else f"{skip.scale!r} * "
    if skip.mixed:
        body = f"    return x + {scale}y if x.shape == y.shape else y"
        name = draft.define(tree, last, "add_skip", [*_HELPER, body])
        edits.wrap_node(last, f"{name}(", f", {kept})")
        return
    parent = tree.parents[last]
    plain = isinstance(parent, cst.Arg) and not parent.star
    before, behind = ("", "") if plain or isinstance(parent, _LOOSE) or last.lpar else ("(", ")")
    if early:
        edits.wrap_node(last, f"{before}{kept} + {scale}", behind)
    else:
        edits.wrap_node(last, f"{before}{scale}", f" + {kept}{behind}")
