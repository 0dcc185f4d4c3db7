"""Norms as attributes of a module: built behind the layer, and called around the layer's call in forward."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Norm, Site
from unvanish.treatment.patch.norm_lists import norms_in_lists
from unvanish.treatment.patch.norm_text import call_sites, norm_text, not_seen, width_of
from unvanish.treatment.patch.reach import refuse_reached
from unvanish.treatment.patch.spots import add_behind, spot_of, suffixed, width_text
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, argument, dotted, is_self

_LISTS = ("torch.nn.ModuleList",)


def norm_in_forward(draft: Draft, tree: Tree, call: cst.Call, norms: Sequence[Norm], *, whole: bool) -> None:
    """Place the norms of the layers that `call` builds.

    Raises:
        PatchError: the layers are not called in a way that is understood.
    """
    holders = {draft.facts.parts[norm.layer].holder for norm in norms}
    outside = 2 if holders <= set(_LISTS) else 1
    refuse_reached(draft, {".".join(n.layer.split(".")[:-outside]) for n in norms})
    if holders <= set(_LISTS):
        norms_in_lists(draft, norms)
    elif whole and spot_of(tree, call).kind == "add_module":
        _by_name(draft, tree, call, norms)
    else:
        _as_attribute(draft, tree, call, norms, whole=whole)


def _as_attribute(draft: Draft, tree: Tree, call: cst.Call, norms: Sequence[Norm], *, whole: bool) -> None:
    """self.fc1 = nn.Linear(...) gets self.fc1_norm, and self.fc1(x) becomes self.fc1_norm(self.fc1(x))."""
    calls = [draft.call(site) for site in call_sites(draft, norms)]
    groups: dict[tuple[int, str], tuple[Tree, cst.Call, list[Norm]]] = {}
    for norm in norms:
        where, anchor = _anchor(draft, norm, tree, call)
        if not whole:
            _refuse_others(draft, norms, where, anchor)
        name = draft.facts.parts[norm.layer].name
        groups.setdefault((where.start(anchor), name), (where, anchor, []))[2].append(norm)
    wrapped: set[int] = set()
    for (_, name), (where, anchor, some) in groups.items():
        spot = spot_of(where, anchor)
        new = draft.free_name(where, f"{name}_norm")
        width = width_of(draft, f"self.{name}", some)
        if anchor is call:
            width = width_text(where, anchor, spot, draft.facts.parts[some[0].layer].base)
        text = norm_text(draft, spot, some, width)
        draft.edits(where).lines_after(where.statement(anchor, shared=True), [f"self.{new} = {text}"])
        owner = where.above(anchor, cst.ClassDef)
        for called_in, one in calls:
            ours = called_in is where and where.above(one, cst.ClassDef) is owner
            if ours and is_self(one.func, name) and id(one) not in wrapped:
                wrapped.add(id(one))
                draft.edits(where).wrap_node(one, f"self.{new}(", ")")
        for one in where.all(cst.Call):  # in a method that was not seen, say
            if is_self(one.func, name) and id(one) not in wrapped and where.above(one, cst.ClassDef) is owner:
                raise not_seen(where, one)
    if len(wrapped) != len(calls):
        one = next(c for _, c in calls if id(c) not in wrapped)
        at = next(t for t, c in calls if c is one)
        raise PatchError(f"the call of a layer in {at.place(one)} is not understood", place=at.place(one))


def _refuse_others(draft: Draft, norms: Sequence[Norm], tree: Tree, anchor: cst.Call) -> None:
    """Refuse where the assignment also is that of a layer without a norm (in another instance of the class)."""
    if any(who is None for birth in _births(draft, norms) for who in draft.facts.born.get(birth, ())):
        raise PatchError(f"{tree.place(anchor)} also builds another model's layers", place=tree.place(anchor))
    normed = {norm.layer for norm in norms}
    names = {draft.facts.parts[p].name for p in normed}
    for path, part in draft.facts.parts.items():
        if part.birth is None or path in normed or part.name not in names:
            continue
        for site in (part.birth.site, *part.birth.outer):
            if site.file == tree.path and tree.line(anchor) <= site.line and _is_at(draft, site, anchor):
                place = tree.place(anchor)
                raise PatchError(
                    f"{place} builds layers with an activation behind them and others without", place=place
                )


def _births(draft: Draft, norms: Sequence[Norm]) -> list[Site]:
    births = [draft.facts.parts[norm.layer].birth for norm in norms]
    return [birth.site for birth in births if birth is not None]


def _is_at(draft: Draft, site: Site, call: cst.Call) -> bool:
    try:
        return draft.call(site)[1] is call
    except PatchError:
        return False


def _anchor(draft: Draft, norm: Norm, tree: Tree, call: cst.Call) -> tuple[Tree, cst.Call]:
    """The call whose value is assigned to self.<name>: the layer's own, or that of a helper which builds it.

    Raises:
        PatchError: there is none.
    """
    part = draft.facts.parts[norm.layer]
    outer = part.birth.outer if part.birth is not None else ()
    tries = [(tree, call)]
    for site in outer:
        try:
            tries.append(draft.call(site))
        except PatchError:
            continue
    for where, one in tries:
        spot = spot_of(where, one)
        if spot.kind == "attribute" and spot.name == part.name:
            return where, one
        if spot.kind not in ("return", "other"):
            break
    raise PatchError(
        f"how {norm.layer}, built in {tree.place(call)}, becomes an attribute is not understood",
        place=tree.place(call),
    )


def _by_name(draft: Draft, tree: Tree, call: cst.Call, norms: Sequence[Norm]) -> None:
    """self.add_module(f"fc{i}", ...) gets a neighbour f"fc{i}_norm", and so does getattr(self, f"fc{i}")(x)."""
    spot = spot_of(tree, call)
    text = norm_text(draft, spot, norms, width_text(tree, call, spot, draft.facts.parts[norms[0].layer].base))
    if spot.name != "self" or not add_behind(draft, spot, text):
        raise PatchError(f"the name in {tree.place(call)} is not understood", place=tree.place(call))
    for site in call_sites(draft, norms):
        where, one = draft.call(site)
        found = one.func
        asks = isinstance(found, cst.Call) and dotted(found.func) == "getattr"
        named = argument(found, 1, "name") if asks and isinstance(found, cst.Call) else None
        name = None if named is None else suffixed(where, named.value)
        if name is None or where is not tree:
            place = where.place(one)
            raise PatchError(f"the call of a layer in {place} is not understood", place=place)
        draft.edits(where).wrap_node(one, f"getattr(self, {name})(", ")")
