"""Identity skips: a small Residual class around the blocks of a container, or `x +` in the block's own forward."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Site, Skip
from unvanish.treatment.patch.reach import refuse_counted, refuse_hidden
from unvanish.treatment.patch.spots import Spot, spot_of
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, dotted

_CLASS = (
    "class {name}(%s):",
    '    """Adds the input to what its modules make of it: the identity skip of He et al. (2016)."""',
    "",
    "    def forward(self, x):",
)


def place_skips(draft: Draft, skips: Sequence[Skip], uneven: Sequence[str]) -> None:
    """Place all skips. `uneven` are blocks that were left out, since they change the shape.

    Raises:
        PatchError: a block is built by a call that is not understood, or together with one that gets no skip.
    """
    blocks = [skip for skip in skips if skip.first == skip.last]
    runs = [skip for skip in skips if skip.first != skip.last]
    nested = runs if not blocks or _in_forward(draft, blocks) else skips
    refuse_hidden(draft, {skip.first.rpartition(".")[0] for skip in nested})
    if len(nested) > len(runs):
        _around_calls(draft, blocks, uneven)
    if runs:
        _around_runs(draft, runs, uneven)


# --- custom blocks ------------------------------------------------------------------------------------------------


def _in_forward(draft: Draft, blocks: Sequence[Skip]) -> bool:
    """return f(x) -> return x + f(x), where all blocks of a class get a skip and its forward is that plain."""
    facts = draft.facts
    kinds = {facts.parts[skip.first].kind for skip in blocks}
    first = {skip.first for skip in blocks}
    every = {p for p, part in facts.parts.items() if part.kind in kinds}
    births = facts.births(first)
    if every != first or isinstance(births, str) or len({s.scale for s in blocks}) > 1:
        return False
    if any(who is None for site in births for who in facts.born.get(site, ())):
        return False
    found = [_plain_forward(draft, kind) for kind in kinds]
    if any(f is None for f in found):
        return False
    for one in found:
        if one is not None:
            tree, name, value = one
            scale = blocks[0].scale
            loose = (
                not isinstance(value, (cst.Call, cst.Name, cst.Attribute, cst.Subscript)) and not value.lpar
            )
            tight = ("(", ")") if loose else ("", "")
            weight = "" if scale == 1.0 else f"{scale!r} * "
            draft.edits(tree).wrap_node(value, f"{name} + {weight}{tight[0]}", tight[1])
    return True


def _plain_forward(draft: Draft, kind: str) -> tuple[Tree, str, cst.BaseExpression] | None:
    """(file, input's name, returned expression) of a class whose forward never binds its only input again."""
    wanted = kind.rpartition(".")[2]
    owners = [(t, c) for t in draft.trees() for c in t.all(cst.ClassDef) if c.name.value == wanted]
    heirs = [c for t in draft.trees() for c in t.all(cst.ClassDef) if wanted in _bases(c)]
    if len(owners) != 1 or heirs:
        return None
    tree, owner = owners[0]
    bodies = owner.body.body if isinstance(owner.body, cst.IndentedBlock) else []
    forwards = [f for f in bodies if isinstance(f, cst.FunctionDef) and f.name.value == "forward"]
    if len(forwards) != 1:
        return None
    params = forwards[0].params
    plain = (
        len(params.params) == 2
        and not params.kwonly_params
        and isinstance(params.star_arg, cst.MaybeSentinel)
    )
    returns = [r for r in tree.all(cst.Return) if tree.inside(r, forwards[0])]
    if (
        not plain
        or len(returns) != 1
        or returns[0].value is None
        or tree.scope(returns[0]) is not forwards[0]
    ):
        return None
    name = params.params[1].name.value
    bound = [
        n for n in tree.uses(name, forwards[0].body)
        if isinstance(tree.parents[n], (cst.AssignTarget, cst.AugAssign, cst.For, cst.Element, cst.NamedExpr))
    ]  # fmt: skip
    in_place = [
        a for a in tree.all(cst.Attribute)
        if tree.inside(a, forwards[0]) and a.attr.value.endswith("_") and dotted(a.value) == name
    ]  # fmt: skip
    return None if bound or in_place else (tree, name, returns[0].value)


def _bases(owner: cst.ClassDef) -> list[str]:
    return [(dotted(arg.value) or "").rpartition(".")[2] for arg in owner.bases]


def _around_calls(draft: Draft, blocks: Sequence[Skip], uneven: Sequence[str]) -> None:
    """Block(...) -> Residual(Block(...)) where the blocks are built."""
    births = draft.facts.births(skip.first for skip in blocks)
    if isinstance(births, str):
        raise PatchError(births)
    by_path = {skip.first: skip for skip in blocks}
    for site, paths in births.items():
        mixed = _mixed(draft, site, paths, uneven)
        tree, call = draft.call(site)
        name = _residual(draft, tree, call, [by_path[p] for p in paths], mixed=mixed)
        if draft.spelling(tree).meaning(call.func) == "torch.nn.Sequential":
            draft.edits(tree).replace_node(call.func, name)
        else:
            draft.edits(tree).wrap_node(call, f"{name}(", ")")


def _mixed(draft: Draft, site: Site, paths: Sequence[str], uneven: Sequence[str]) -> bool:
    """Whether the call also builds blocks that change the shape and pass through without a skip.

    Raises:
        PatchError: it builds something that gets no skip for another reason.
    """
    others = [p for p in draft.facts.born.get(site, ()) if p not in paths]
    if any(p not in uneven for p in others):
        raise PatchError(
            f"{site.file}:{site.line} builds blocks that get a skip and others that get none",
            place=f"{site.file}:{site.line}",
        )
    return bool(others)


def _residual(draft: Draft, tree: Tree, near: cst.CSTNode, skips: Sequence[Skip], *, mixed: bool) -> str:
    """The name of the Residual class in this file, which is added where there is none yet."""
    scales = {skip.scale for skip in skips}
    if len(scales) > 1:
        raise PatchError(f"the skips in {tree.place(near)} differ in scale", place=tree.place(near))
    scale = scales.pop()
    branch = "y" if scale == 1.0 else f"{scale!r} * y"
    plain = "super().forward(x)" if scale == 1.0 else f"{scale!r} * super().forward(x)"
    lines = [_CLASS[0] % draft.spelling(tree).write("torch.nn.Sequential"), *_CLASS[1:]]
    if mixed:
        lines[1] = (
            '    """The identity skip of He et al. (2016), where input and output have the same shape."""'
        )
        lines += [
            "        y = super().forward(x)",
            f"        return x + {branch} if x.shape == y.shape else y",
        ]
    else:
        lines += [f"        return x + {plain}"]
    return draft.define(tree, near, "Residual", lines)


# --- runs in a Sequential -----------------------------------------------------------------------------------------


def _around_runs(draft: Draft, runs: Sequence[Skip], uneven: Sequence[str]) -> None:
    """nn.Linear(...), nn.Tanh() -> Residual(nn.Linear(...), nn.Tanh()) in one nn.Sequential."""
    births = [draft.facts.births(getattr(run, side) for run in runs) for side in ("first", "last")]
    for found in births:
        if isinstance(found, str):
            raise PatchError(found)
    groups: dict[tuple[Site, Site], list[Skip]] = {}
    for run in runs:
        first, last = (draft.facts.parts[p].birth for p in (run.first, run.last))
        if first is not None and last is not None:
            groups.setdefault((first.site, last.site), []).append(run)
    for (one, two), some in groups.items():
        mixed = _mixed(draft, one, [run.first for run in some], uneven)
        tree, first_call = draft.call(one)
        other, last_call = draft.call(two)
        spots = (spot_of(tree, first_call), spot_of(other, last_call))
        if tree is not other:
            raise _apart(spots[0])
        for holder in {run.first.rpartition(".")[0] for run in some}:
            refuse_counted(draft, holder, spots[0])
        name = _residual(draft, tree, first_call, some, mixed=mixed)
        _one_run(draft, spots, some, name)


def _one_run(draft: Draft, spots: tuple[Spot, Spot], runs: Sequence[Skip], name: str) -> None:
    first, last = spots
    tree, edits = first.tree, draft.edits(first.tree)
    if first.kind == last.kind == "element" and first.holder is last.holder:
        whole = isinstance(first.holder, cst.Call) and _is_all(first, last)
        if whole and isinstance(first.holder, cst.Call):
            edits.replace_node(first.holder.func, name)
        else:
            alone = isinstance(first.holder, cst.Tuple) and _covers(first.holder.elements, first, last)
            behind = "),"[: 2 if alone else 1]  # a tuple of one
            edits.wrap(tree.start(first.node), tree.close(last.node), f"{name}(", behind)
    elif first.kind == last.kind == "append" and first.name == last.name and _is_list(first):
        lengths = {_length(draft, run) for run in runs}
        statements = [tree.statement(spot.holder) for spot in spots]
        if len(lengths) > 1 or tree.parents[statements[0]] is not tree.parents[statements[1]]:
            raise _apart(first)
        some = f"{first.name}[-{lengths.pop()}:]"
        edits.lines_after(statements[1], [f"{some} = [{name}(*{some})]"])
    elif first.kind == last.kind == "pair" and tree.parents[first.holder] is not tree.parents[last.holder]:
        _join_pairs(draft, first, last, runs, name)
    else:
        raise _apart(first)


def _join_pairs(draft: Draft, first: Spot, last: Spot, runs: Sequence[Skip], name: str) -> None:
    """("fc", nn.Linear(...)), ("act", nn.Tanh()) -> ("fc", Residual(nn.Linear(...), nn.Tanh()))."""
    tree, edits = first.tree, draft.edits(first.tree)
    if not any(run.first in draft.inserted for run in runs):
        edits.replace(tree.close(first.node), tree.start(last.node), ", ")
        edits.wrap(tree.start(first.node), tree.close(last.node), f"{name}(", ")")
        return
    mapping = tree.above(first.holder, cst.Call)  # a norm stands between them: they keep their names
    if (
        mapping is None
        or not isinstance(first.holder, cst.Tuple)
        or "Dict" not in (dotted(mapping.func) or "")
    ):
        raise _apart(first)
    label = tree.code(first.holder.elements[0].value)
    start = tree.start(first.holder.lpar[0])
    edits.wrap(start, tree.close(last.holder), f"({label}, {name}({tree.code(mapping.func)}([", "])))")


def _apart(spot: Spot) -> PatchError:
    place = spot.tree.place(spot.node)
    return PatchError(f"the layer in {place} and its activation are not built side by side", place=place)


def _is_all(first: Spot, last: Spot) -> bool:
    """Whether the two are the first and the last argument of nn.Sequential itself."""
    call = first.holder
    named = isinstance(call, cst.Call) and (dotted(call.func) or "").rpartition(".")[2] == "Sequential"
    return named and isinstance(call, cst.Call) and _covers(call.args, first, last)


def _covers(items: Sequence[cst.Arg | cst.BaseElement], first: Spot, last: Spot) -> bool:
    return bool(items) and items[0].value is first.node and items[-1].value is last.node


def _is_list(spot: Spot) -> bool:
    """Whether the name that is appended to is a plain list."""
    tree, scope = spot.tree, spot.tree.scope(spot.node)
    for node in tree.uses(spot.name, scope):
        assign = (
            tree.parents[tree.parents[node]] if isinstance(tree.parents[node], cst.AssignTarget) else None
        )
        if isinstance(assign, cst.Assign) and not isinstance(assign.value, (cst.List, cst.ListComp)):
            return False
    return "." not in spot.name


def _length(draft: Draft, run: Skip) -> int:
    """How many modules the run has, with the norms that this patch puts in."""
    siblings = draft.facts.children(run.first.rpartition(".")[0])
    inside = siblings[siblings.index(run.first) : siblings.index(run.last) + 1]
    return len(inside) + sum(p in draft.inserted for p in inside)
