"""Norms between layers and activations: in the list, around the activation, or as attributes that forward calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Norm, Site
from unvanish.treatment.patch.norm_calls import norm_in_forward
from unvanish.treatment.patch.norm_text import norm_text
from unvanish.treatment.patch.reach import refuse_reached, refuse_untrained
from unvanish.treatment.patch.spots import Spot, add_behind, spot_of, width_text
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, dotted

_INSERTABLE = ("element", "append", "add_module", "pair")


@dataclass(frozen=True, slots=True)
class Group:
    """Norms of layers that one call builds."""

    site: Site
    tree: Tree
    call: cst.Call
    norms: tuple[Norm, ...]
    whole: bool  # whether that call builds these layers and no others

    @property
    def layers(self) -> list[str]:
        """Their layers' paths."""
        return [norm.layer for norm in self.norms]

    @property
    def place(self) -> str:
        """file:line of the call."""
        return f"{self.site.file}:{self.site.line}"


def place_norms(draft: Draft, norms: Sequence[Norm]) -> None:
    """Place all norms.

    Raises:
        PatchError: a layer is built where it also serves without a norm, or its calls are not understood.
    """
    holders = {norm.layer.rpartition(".")[0] for norm in norms}
    refuse_reached(draft, holders)
    refuse_untrained(draft, holders)
    for group in _groups(draft, norms):
        if not _insert(draft, group):
            _elsewhere(draft, group)


def _elsewhere(draft: Draft, group: Group) -> None:
    """In forward where it calls the layers, else around the activations."""
    fault = draft.attempt(
        lambda: norm_in_forward(draft, group.tree, group.call, group.norms, whole=group.whole)
    )
    if fault is not None and not _around_activation(draft, group):
        raise fault


def _groups(draft: Draft, norms: Sequence[Norm]) -> list[Group]:
    births = draft.facts.births(norm.layer for norm in norms)
    if isinstance(births, str):
        raise PatchError(births)
    by_layer = {norm.layer: norm for norm in norms}
    found = []
    for site, paths in births.items():
        tree, call = draft.call(site)
        whole = all(p in paths for p in draft.facts.born.get(site, ()))
        found.append(Group(site, tree, call, tuple(by_layer[p] for p in paths), whole))
    return found


def _insert(draft: Draft, group: Group) -> bool:
    """A neighbour in the same nn.Sequential, where nothing counts on the places in it."""
    parts = draft.facts.parts
    if not group.whole or any(parts[p].holder != "torch.nn.Sequential" for p in group.layers):
        return False
    spot = spot_of(group.tree, group.call)
    if spot.kind not in _INSERTABLE or not _is_sequential(draft, spot):
        return False
    holders = {p.rpartition(".")[0] for p in group.layers}
    if any(_is_counted(draft, holder, spot) for holder in holders):
        return False
    text = norm_text(draft, spot, group.norms, width_text(group.tree, group.call, spot))
    if not add_behind(draft, spot, text):
        return False
    draft.inserted.update(group.layers)
    return True


def _is_sequential(draft: Draft, spot: Spot) -> bool:
    """An argument goes into a Sequential only if it is nn.Sequential that is called; a list goes where it goes."""
    if spot.kind == "element" and isinstance(spot.holder, cst.Call):
        return draft.spelling(spot.tree).meaning(spot.holder.func) == "torch.nn.Sequential"
    return True


def _is_counted(draft: Draft, holder: str, spot: Spot) -> bool:
    """Whether some code takes modules of this container by their number, which a new one would shift."""
    names = {spot.name.rpartition(".")[2]} | {draft.facts.parts[holder].name if holder else ""}
    if not holder:
        names |= {n.rpartition(".")[2] for o in draft.facts.optimizers for n in o.names}
    words = [n for n in names if n and not n.isdigit()]
    for tree in draft.trees():
        for node in tree.all(cst.Subscript):
            if any(_mentions(tree.code(node.value), word) for word in words) and _by_number(node):
                return True
        for call in tree.all(cst.Call):
            if dotted(call.func) == "enumerate" and any(_mentions(tree.code(call), word) for word in words):
                return True
    return False


def _mentions(code: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", code) is not None


def _by_number(node: cst.Subscript) -> bool:
    return not any(
        isinstance(s.slice, cst.Index) and isinstance(s.slice.value, (cst.SimpleString, cst.FormattedString))
        for s in node.slice
    )


def _around_activation(draft: Draft, group: Group) -> bool:
    """nn.Sequential(norm, activation) where the activation is built: no place in any container changes."""
    if any(norm.activation is None for norm in group.norms):
        return False
    paths = [norm.activation for norm in group.norms if norm.activation is not None]
    births = draft.facts.births(paths)
    if isinstance(births, str) or len(births) != 1 or len(set(paths)) != len(paths):
        return False
    site = next(iter(births))
    if any(p not in paths for p in draft.facts.born.get(site, ())):
        return False
    if any(draft.facts.parts[p].places != 1 for p in paths):
        return False
    tree, call = draft.call(site)
    width = None
    if tree is group.tree and _same_loops(tree, call, group.call):
        width = width_text(tree, group.call, Spot("other", tree, group.call, group.call))
        if width is not None and _rebound(tree, width, tree.end(group.call), tree.start(call)):
            width = None
    if width is None and len({norm.features for norm in group.norms}) > 1:
        return False
    text = norm_text(draft, spot_of(tree, call), group.norms, width)
    draft.edits(tree).wrap_node(call, f"{draft.spelling(tree).write('torch.nn.Sequential')}({text}, ", ")")
    return True


def _same_loops(tree: Tree, one: cst.CSTNode, other: cst.CSTNode) -> bool:
    kinds = (cst.For, cst.While, cst.ListComp, cst.GeneratorExp, cst.FunctionDef, cst.Lambda)
    around = [[n for n in tree.around(node) if isinstance(n, kinds)] for node in (one, other)]
    return len(around[0]) == len(around[1]) and all(a is b for a, b in zip(*around, strict=True))


def _rebound(tree: Tree, width: str, start: int, end: int) -> bool:
    """Whether a name in the width's text is assigned between the two calls."""
    names = set(re.findall(r"[A-Za-z_]\w*", width))
    for node in tree.all(cst.AssignTarget):
        if start <= tree.start(node) < end and names & set(
            re.findall(r"[A-Za-z_]\w*", tree.code(node.target))
        ):
            return True
    return False
