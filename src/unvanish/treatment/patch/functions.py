"""Activations that forward calls as functions: torch.sigmoid(x), F.relu(x), x.tanh(), f(x) with f chosen before."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import FunctionSwap, Site
from unvanish.treatment.patch.origin import Accept, Origin
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree

_IN_TORCH = frozenset({"relu", "tanh", "sigmoid", "selu", "celu"})
_METHODS = frozenset({"relu", "tanh", "sigmoid"})  # of a tensor; the only ones with an in-place twin there
_HOMES = ("torch.", "torch.nn.functional.", "torch.Tensor.", "torch.special.")
_SPECIAL = {"sigmoid": ("torch.special.expit",)}


def swap_functions(draft: Draft, swaps: Sequence[FunctionSwap]) -> None:
    """Make all swaps.

    Raises:
        PatchError: a call of the same place has to stay, or the call is not understood.
    """
    chosen: list[tuple[list[Origin], FunctionSwap, Tree, cst.Call]] = []
    for site, group in _by_site(draft, swaps).items():
        tree, call = draft.call(site)
        swap = group[0]
        if isinstance(call.func, cst.Attribute) and _is_method(draft, tree, call, swap):
            _swap_method(draft, tree, call, call.func, swap)
        elif _means(draft, tree, call.func, swap):
            _swap_function(draft, tree, call, swap)
        else:
            origins = _chosen_elsewhere(draft, tree, call, group)
            if not origins:
                _write_function(draft, tree, call, swap)
            else:
                chosen.append((origins, swap, tree, call))
    if draft.origins.covered(origin for origins, *_ in chosen for origin in origins):
        for origin, swap in [(o, swap) for origins, swap, *_ in chosen for o in origins]:
            draft.edits(origin.tree).replace_node(
                origin.node, _function(draft, origin.tree, swap, origin.node)
            )
    else:  # the same variable serves others as well
        for _, swap, tree, call in chosen:
            _write_function(draft, tree, call, swap)


def _by_site(draft: Draft, swaps: Sequence[FunctionSwap]) -> dict[Site, list[FunctionSwap]]:
    found: dict[Site, list[FunctionSwap]] = {}
    swapped = {s.call for s in swaps}
    for swap in swaps:
        site = swap.call.site
        if site is None:
            raise PatchError(
                f"{swap.call.name} is called by library code in {swap.call.owner or 'the model'}"
            )
        for other in draft.facts.functions:
            if other.site == site and other not in swapped:
                why = other.kept or "it is outside of what is treated"
                raise PatchError(
                    f"the {swap.call.name} in {site.file}:{site.line} is hidden for one layer, "
                    f"and has to stay for another ({why})",
                    place=f"{site.file}:{site.line}",
                )
        found.setdefault(site, []).append(swap)
    return found


def _means(draft: Draft, tree: Tree, node: cst.BaseExpression, swap: FunctionSwap) -> bool:
    """Whether an expression is this very function of torch."""
    meaning = draft.spelling(tree).meaning(node)
    name = swap.call.name
    names = {home + name + end for home in _HOMES for end in ("", "_")} | set(_SPECIAL.get(name, ()))
    return meaning is not None and meaning in names


def _meaning_of(draft: Draft, swap: FunctionSwap) -> Accept:
    return lambda tree, node: _means(draft, tree, node, swap)


def _is_method(draft: Draft, tree: Tree, call: cst.Call, swap: FunctionSwap) -> bool:
    func = call.func
    if not isinstance(func, cst.Attribute) or draft.spelling(tree).meaning(func) is not None:
        return False
    return func.attr.value in (swap.call.name, swap.call.name + "_") and not call.args


def _swap_method(draft: Draft, tree: Tree, call: cst.Call, func: cst.Attribute, swap: FunctionSwap) -> None:
    """x.sigmoid() -> x.relu(), or F.gelu(x) for what tensors have no method for."""
    edits, in_place = draft.edits(tree), func.attr.value.endswith("_")
    if swap.name == "identity":
        edits.replace(_dot(tree, func), tree.end(call), "")
    elif swap.name in _METHODS:
        edits.replace_node(func.attr, swap.name + ("_" if in_place else ""))
    elif in_place and isinstance(tree.parents[call], cst.Expr):
        raise _no_twin(tree, call, swap)
    else:
        edits.wrap(tree.start(call), tree.start(call), _function(draft, tree, swap, None) + "(", "")
        extra = f", {swap.arguments})" if swap.arguments else ")"
        edits.replace(_dot(tree, func), tree.end(call), extra)


def _dot(tree: Tree, func: cst.Attribute) -> int:
    """Where the dot of an attribute stands, with the line break in front of it."""
    dot = tree.text.rindex(".", 0, tree.start(func.attr))
    return len(tree.text[:dot].rstrip())


def _swap_function(draft: Draft, tree: Tree, call: cst.Call, swap: FunctionSwap) -> None:
    """torch.sigmoid(x) -> torch.relu(x); other arguments than the first go, new ones come."""
    edits, first = draft.edits(tree), _input(tree, call)
    in_place = tree.code(call.func).endswith("_") or any(
        a.keyword is not None and a.keyword.value == "inplace" for a in call.args
    )
    if swap.name == "identity":
        bare = isinstance(first.value, (cst.Name, cst.Call, cst.Attribute, cst.Subscript)) or first.value.lpar
        edits.replace(tree.start(call), tree.start(first.value), "" if bare else "(")
        edits.replace(tree.end(first.value), tree.end(call), "" if bare else ")")
        return
    name = _function(draft, tree, swap, call.func)
    if in_place and isinstance(tree.parents[call], cst.Expr):
        if swap.name not in _METHODS:
            raise _no_twin(tree, call, swap)
        name = draft.spelling(tree).write(f"torch.{swap.name}_")
    edits.replace_node(call.func, name)
    last = call.args[-1]
    extra = f", {swap.arguments}" if swap.arguments else ""
    if last is first:
        edits.behind(_close(tree, first), extra)
    else:
        edits.replace(_close(tree, first), tree.end(call) - 1, extra)


def _close(tree: Tree, arg: cst.Arg) -> int:
    """Behind an argument, with the parentheses that are its own."""
    end = tree.end(arg.value)
    for _ in arg.value.rpar:
        end = tree.text.index(")", end) + 1
    return end


def _write_function(draft: Draft, tree: Tree, call: cst.Call, swap: FunctionSwap) -> None:
    """f(x) -> torch.relu(x), whatever f was."""
    if len(call.args) != 1 or swap.name == "identity":
        place = tree.place(call)
        raise PatchError(f"the call in {place} is not understood as {swap.call.name}", place=place)
    _input(tree, call)
    draft.edits(tree).replace_node(call.func, _function(draft, tree, swap, None))
    if swap.arguments:
        draft.edits(tree).behind(_close(tree, call.args[0]), f", {swap.arguments}")


def _chosen_elsewhere(
    draft: Draft, tree: Tree, call: cst.Call, group: Sequence[FunctionSwap]
) -> list[Origin]:
    """f = torch.sigmoid, self.act = F.relu: the references that the name stands for; none = not to be told."""
    swap = group[0]
    if swap.arguments or swap.name == "identity" or len(call.args) != 1:
        return []
    origins: list[Origin] = []
    chains = {}
    for one in group:
        part = draft.facts.parts.get(one.call.owner)
        birth = None if part is None else part.birth
        chains[one.call.name, () if birth is None else (birth.site, *birth.outer)] = one
    for (_, chain), one in chains.items():
        origin = draft.origins.find(tree, call.func, _meaning_of(draft, one), chain)
        if origin is None:
            return []
        origins.append(origin)
    return origins


def _input(tree: Tree, call: cst.Call) -> cst.Arg:
    """The argument that the activation is applied to."""
    for arg in call.args:
        named = arg.keyword is not None and arg.keyword.value != "input"
        if arg is call.args[0] and not arg.star and not named:
            return arg
    place = tree.place(call)
    raise PatchError(f"what the activation in {place} is applied to is not clear", place=place)


def _function(draft: Draft, tree: Tree, swap: FunctionSwap, like: cst.BaseExpression | None) -> str:
    """How this file is to write the new function."""
    spelling = draft.spelling(tree)
    old = spelling.meaning(like) if like is not None else None
    if old is not None and old.startswith("torch.nn.functional."):
        return spelling.write(f"torch.nn.functional.{swap.name}", like=like)
    if swap.name in _IN_TORCH:
        return spelling.write(f"torch.{swap.name}")
    return spelling.write(f"torch.nn.functional.{swap.name}")


def _no_twin(tree: Tree, call: cst.Call, swap: FunctionSwap) -> PatchError:
    place = tree.place(call)
    return PatchError(f"{place} works in place, and {swap.name} has no such form", place=place)
