"""Norms between layers and activations: in the list, around the activation, or as attributes that forward calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Norm, Site
from unvanish.treatment.patch.norm_calls import norm_in_forward
from unvanish.treatment.patch.norm_text import norm_text
from unvanish.treatment.patch.reach import refuse_counted, refuse_reached, refuse_untrained
from unvanish.treatment.patch.spots import Spot, add_behind, spot_of, width_text
from unvanish.treatment.patch.swapping import all_born_at
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree

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
    refuse_untrained(draft, holders)
    frozen = next((n.layer for n in norms if f"{n.layer}.weight" in draft.facts.frozen), None)
    if frozen is not None:
        raise PatchError(f"{frozen} is frozen, and whether its norm is to be trained is not said")
    for group in _groups(draft, norms):
        ways = [_in_forward, _around_activation]
        if all(draft.facts.parts[p].holder == "torch.nn.Sequential" for p in group.layers):
            ways.insert(0, _insert)
        _first_that_works(draft, group, ways)


def _first_that_works(draft: Draft, group: Group, ways: Sequence[Callable[[Draft, Group], None]]) -> None:
    faults = []
    for way in ways:
        fault = draft.attempt(lambda: way(draft, group))  # noqa: B023  # it is called at once
        if fault is None:
            return
        faults.append(fault)
    raise faults[0]


def _in_forward(draft: Draft, group: Group) -> None:
    norm_in_forward(draft, group.tree, group.call, group.norms, whole=group.whole)


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


def _insert(draft: Draft, group: Group) -> None:
    """A neighbour in the same nn.Sequential, where nothing counts on the places in it."""
    if not group.whole:
        raise PatchError(
            f"{group.place} builds layers with an activation behind them and others without",
            place=group.place,
        )
    spot = spot_of(group.tree, group.call)
    holders = {p.rpartition(".")[0] for p in group.layers}
    for holder in holders:
        refuse_counted(draft, holder, spot)
    refuse_reached(draft, holders)
    text = norm_text(draft, spot, group.norms, width_text(group.tree, group.call, spot, _base(draft, group)))
    plain = spot.kind in _INSERTABLE and _is_sequential(draft, spot)
    if not plain or not add_behind(draft, spot, text):
        raise PatchError(f"how {group.place} fills its nn.Sequential is not understood", place=group.place)
    draft.inserted.update(group.layers)


def _base(draft: Draft, group: Group) -> str:
    return draft.facts.parts[group.layers[0]].base


def _is_sequential(draft: Draft, spot: Spot) -> bool:
    """An argument goes into a Sequential only if it is nn.Sequential that is called; a list goes where it goes."""
    if spot.kind == "element" and isinstance(spot.holder, cst.Call):
        return draft.spelling(spot.tree).meaning(spot.holder.func) == "torch.nn.Sequential"
    return True


def _around_activation(draft: Draft, group: Group) -> None:
    """nn.Sequential(norm, activation) where the activation is built: no place in any container changes."""
    paths = [norm.activation for norm in group.norms if norm.activation is not None]
    births = draft.facts.births(paths)
    alone = len(set(paths)) == len(group.norms) and all(draft.facts.parts[p].places == 1 for p in paths)
    if isinstance(births, str) or len(births) != 1 or not alone:
        raise PatchError(
            f"the activations behind {group.place} are not built one for each", place=group.place
        )
    if not group.whole and any(norm.kind == "GroupNorm" and norm.before != "1, " for norm in group.norms):
        # an activation that is thrown away again would get a norm of a width that the groups may not divide
        raise PatchError(
            f"{group.place} also builds layers whose width may not fit the groups", place=group.place
        )
    site = next(iter(births))
    all_born_at(draft, site, paths, "gets a norm in front")
    tree, call = draft.call(site)
    width = None
    if tree is group.tree and _same_loops(tree, call, group.call):
        width = width_text(tree, group.call, Spot("other", tree, group.call, group.call), _base(draft, group))
        if width is not None and _rebound(tree, width, tree.end(group.call), tree.start(call)):
            width = None
    text = norm_text(draft, spot_of(tree, call), group.norms, width)
    refuse_reached(draft, {p.rpartition(".")[0] for p in paths})
    draft.edits(tree).wrap_node(call, f"{draft.spelling(tree).write('torch.nn.Sequential')}({text}, ", ")")


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
