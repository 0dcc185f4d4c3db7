"""Activations that forward calls as functions: torch.sigmoid(x), F.relu(x), x.tanh(), f(x) with f chosen before."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import FunctionSwap
from unvanish.treatment.patch.origin import Accept, Origin
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, dotted

_IN_TORCH = frozenset({"relu", "tanh", "sigmoid", "selu", "celu"})
_METHODS = frozenset({"relu", "tanh", "sigmoid"})  # of a tensor; the only ones with an in-place twin there
_HOMES = ("torch.", "torch.nn.functional.", "torch.Tensor.", "torch.special.")
_TWINS = {"sigmoid": ("torch.special.expit",)}


def swap_functions(draft: Draft, swaps: Sequence[FunctionSwap]) -> None:
    """Make all swaps.

    Raises:
        PatchError: a call is not understood.
    """
    chosen: list[tuple[list[Origin], FunctionSwap, Tree, cst.Call]] = []
    for swap in swaps:
        tree, call = draft.call(swap.site)
        if tree.above(call, cst.ClassDef) is None:
            place = tree.place(call)
            raise PatchError(f"the call in {place} is in a function that others may use as well", place=place)
        if isinstance(call.func, cst.Attribute) and _is_method(draft, tree, call, swap):
            _swap_method(draft, tree, call, call.func, swap)
        elif _means(draft, tree, call.func, swap):
            _swap_function(draft, tree, call, swap)
        else:
            origins = _chosen_elsewhere(draft, tree, call, swap)
            if not origins:
                _write_function(draft, tree, call, swap)
            else:
                chosen.append((origins, swap, tree, call))
    if draft.origins.covered(origin for origins, *_ in chosen for origin in origins):
        for origin, swap in [(o, swap) for origins, swap, *_ in chosen for o in origins]:
            name = _function(draft, origin.tree, swap, origin.node)
            draft.edits(origin.tree).replace_node(origin.node, name)
    else:  # the same variable serves others as well
        for _, swap, tree, call in chosen:
            _write_function(draft, tree, call, swap)


def _means(draft: Draft, tree: Tree, node: cst.BaseExpression, swap: FunctionSwap) -> bool:
    """Whether an expression is this very function of torch."""
    meaning = draft.spelling(tree).meaning(node)
    names = {h + n + end for n in swap.old for h in _HOMES for end in ("", "_")}
    names |= {twin for n in swap.old for twin in _TWINS.get(n, ())}
    return meaning is not None and meaning in names


def _meaning_of(draft: Draft, swap: FunctionSwap) -> Accept:
    return lambda tree, node: _means(draft, tree, node, swap)


def _is_method(draft: Draft, tree: Tree, call: cst.Call, swap: FunctionSwap) -> bool:
    func = call.func
    if not isinstance(func, cst.Attribute) or draft.spelling(tree).meaning(func) is not None:
        return False
    return func.attr.value.rstrip("_") in swap.old and not (dotted(func.value) == "self" and call.args)


# --- the ways to call -------------------------------------------------------------------------------------------


def _swap_method(draft: Draft, tree: Tree, call: cst.Call, func: cst.Attribute, swap: FunctionSwap) -> None:
    """x.sigmoid() -> x.relu(), or F.gelu(x) for what tensors have no method for."""
    edits, in_place = draft.edits(tree), func.attr.value.endswith("_")
    start, end = tree.start(call), tree.end(call)
    if swap.arguments is None:  # softmax -> log_softmax
        edits.replace_node(func.attr, swap.name)
    elif swap.name == "identity":
        edits.replace(_dot(tree, func), end, "")
    elif swap.name in _METHODS:
        edits.replace_node(func.attr, swap.name + ("_" if in_place else ""))
        if call.args:
            edits.replace(_open(tree, call), end, "()")
    elif in_place and isinstance(tree.parents[call], cst.Expr):
        raise _no_twin(tree, call, swap)
    else:
        edits.wrap(start, end, _function(draft, tree, swap, None) + "(", "")
        edits.replace(_dot(tree, func), end, f", {swap.arguments})" if swap.arguments else ")")


def _dot(tree: Tree, func: cst.Attribute) -> int:
    """Where the dot of an attribute stands, with the line break in front of it."""
    dot = tree.text.rindex(".", 0, tree.start(func.attr))
    return len(tree.text[:dot].rstrip())


def _open(tree: Tree, call: cst.Call) -> int:
    """Where the parenthesis of a call's arguments opens."""
    return tree.text.index("(", tree.end(call.func))


def _swap_function(draft: Draft, tree: Tree, call: cst.Call, swap: FunctionSwap) -> None:
    """torch.sigmoid(x) -> torch.relu(x); other arguments than the first go, new ones come."""
    edits, first = draft.edits(tree), _input(tree, call)
    start, end = tree.start(call), tree.end(call)
    if swap.name == "identity":
        bare = isinstance(first.value, (cst.Name, cst.Call, cst.Attribute, cst.Subscript))
        edits.replace(start, tree.start(first.value), "" if bare else "(")
        edits.replace(tree.end(first.value), end, "" if bare else ")")
        return
    name = _function(draft, tree, swap, call.func)
    in_place = tree.code(call.func).endswith("_") or any(
        a.keyword is not None and a.keyword.value == "inplace" for a in call.args
    )
    if in_place and isinstance(tree.parents[call], cst.Expr):
        if swap.name not in _METHODS:
            raise _no_twin(tree, call, swap)
        name = draft.spelling(tree).write(f"torch.{swap.name}_")
    edits.replace_node(call.func, name)
    if swap.arguments is None:
        return
    extra = f", {swap.arguments}" if swap.arguments else ""
    if call.args[-1] is first:
        edits.behind(tree.close(first.value), extra)
    else:
        edits.replace(tree.close(first.value), end - 1, extra)


def _write_function(draft: Draft, tree: Tree, call: cst.Call, swap: FunctionSwap) -> None:
    """f(x) -> torch.relu(x), whatever f was."""
    if len(call.args) != 1 or swap.name == "identity" or swap.arguments is None:
        place = tree.place(call)
        raise PatchError(f"the call in {place} is not understood as {swap.old[0]}", place=place)
    _input(tree, call)
    draft.edits(tree).replace_node(call.func, _function(draft, tree, swap, None))
    if swap.arguments:
        draft.edits(tree).behind(tree.close(call.args[0].value), f", {swap.arguments}")


def _chosen_elsewhere(draft: Draft, tree: Tree, call: cst.Call, swap: FunctionSwap) -> list[Origin]:
    """f = torch.sigmoid, self.act = F.relu: the references that the name stands for; none = not to be told."""
    if swap.arguments != "" or swap.name == "identity" or len(call.args) != 1:
        return []
    chains = {}
    for owner in swap.owners:
        part = draft.facts.parts.get(owner)
        birth = None if part is None else part.birth
        chains[() if birth is None else (birth.site, *birth.outer)] = owner
    origins: list[Origin] = []
    for chain in chains:
        origin = draft.origins.find(tree, call.func, _meaning_of(draft, swap), chain)
        if origin is None:
            return []
        origins.append(origin)
    return origins


def _input(tree: Tree, call: cst.Call) -> cst.Arg:
    """The argument that the activation is applied to.

    Raises:
        PatchError: it is not the first.
    """
    for arg in call.args[:1]:
        named = arg.keyword is not None and arg.keyword.value != "input"
        if not arg.star and not named:
            return arg
    place = tree.place(call)
    raise PatchError(f"what the activation in {place} is applied to is not clear", place=place)


def _function(draft: Draft, tree: Tree, swap: FunctionSwap, like: cst.BaseExpression | None) -> str:
    """How this file is to write the new function."""
    spelling = draft.spelling(tree)
    old = spelling.meaning(like) if like is not None else None
    if old is not None and old.startswith("torch.nn.functional."):
        return spelling.write(f"torch.nn.functional.{swap.name}", like=like)
    if swap.name in _IN_TORCH or swap.arguments is None:
        return spelling.write(f"torch.{swap.name}")
    return spelling.write(f"torch.nn.functional.{swap.name}")


def _no_twin(tree: Tree, call: cst.Call, swap: FunctionSwap) -> PatchError:
    place = tree.place(call)
    return PatchError(f"{place} works in place, and {swap.name} has no such form", place=place)
