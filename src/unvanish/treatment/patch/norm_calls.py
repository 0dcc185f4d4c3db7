"""Norms as attributes of a module: built behind the layer, and called around the layer's call in forward."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Norm, Site
from unvanish.treatment.patch.norm_text import norm_text
from unvanish.treatment.patch.reach import refuse_reached
from unvanish.treatment.patch.spots import Spot, add_behind, spot_of, suffixed, width_text
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
        _in_list(draft, norms)
    elif whole and spot_of(tree, call).kind == "add_module":
        _by_name(draft, tree, call, norms)
    else:
        _as_attribute(draft, tree, call, norms, whole=whole)


def _call_sites(draft: Draft, norms: Sequence[Norm]) -> list[Site]:
    """Where the layers are called in forward, each place once.

    Raises:
        PatchError: library code calls them, or the pass was not seen.
    """
    sites: list[Site] = []
    for norm in norms:
        called = draft.facts.calls_of(norm.layer)
        if not called or any(site is None for site in called):
            raise PatchError(f"where forward calls {norm.layer} is not in the sources")
        sites += [site for site in called if site is not None and site not in sites]
    return sites


# --- attributes ---------------------------------------------------------------------------------------------------


def _as_attribute(draft: Draft, tree: Tree, call: cst.Call, norms: Sequence[Norm], *, whole: bool) -> None:
    """self.fc1 = nn.Linear(...) gets self.fc1_norm, and self.fc1(x) becomes self.fc1_norm(self.fc1(x))."""
    calls = [draft.call(site) for site in _call_sites(draft, norms)]
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
        width = _width_of(draft, f"self.{name}", some)
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
                raise _not_seen(where, one)
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


def _not_seen(tree: Tree, node: cst.CSTNode) -> PatchError:
    place = tree.place(node)
    return PatchError(f"{place} runs the layers, too, and was not seen to run", place=place)


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


def _width_of(draft: Draft, layer: str, norms: Sequence[Norm]) -> str | None:
    """How many features a layer gives out, asked of the layer itself."""
    linear = draft.facts.parts[norms[0].layer].base == "torch.nn.Linear"
    return f"{layer}.{'out_features' if linear else 'out_channels'}"


def _by_name(draft: Draft, tree: Tree, call: cst.Call, norms: Sequence[Norm]) -> None:
    """self.add_module(f"fc{i}", ...) gets a neighbour f"fc{i}_norm", and so does getattr(self, f"fc{i}")(x)."""
    spot = spot_of(tree, call)
    text = norm_text(draft, spot, norms, width_text(tree, call, spot, draft.facts.parts[norms[0].layer].base))
    if spot.name != "self" or not add_behind(draft, spot, text):
        raise PatchError(f"the name in {tree.place(call)} is not understood", place=tree.place(call))
    for site in _call_sites(draft, norms):
        where, one = draft.call(site)
        found = one.func
        asks = isinstance(found, cst.Call) and dotted(found.func) == "getattr"
        named = argument(found, 1, "name") if asks and isinstance(found, cst.Call) else None
        name = None if named is None else suffixed(where, named.value)
        if name is None or where is not tree:
            place = where.place(one)
            raise PatchError(f"the call of a layer in {place} is not understood", place=place)
        draft.edits(where).wrap_node(one, f"getattr(self, {name})(", ")")


# --- lists of layers ----------------------------------------------------------------------------------------------


def _in_list(draft: Draft, norms: Sequence[Norm]) -> None:
    """self.layers gets self.layers_norms beside it, and the loop over the one goes over both."""
    facts = draft.facts
    lists = list(dict.fromkeys(norm.layer.rpartition(".")[0] for norm in norms))
    for one in lists:
        every = [n for n in draft.norms if n.layer.rpartition(".")[0] == one]
        key = f"list {one}"
        if key in draft.done:
            continue
        draft.done.add(key)
        children = facts.children(one)
        normed = [n.layer for n in every]
        if children[: len(normed)] != normed:
            raise PatchError(f"the layers of {one} that get a norm are not its first ones")
        _one_list(draft, one, every, len(children))


def _one_list(draft: Draft, path: str, norms: Sequence[Norm], count: int) -> None:
    part = draft.facts.parts[path]
    birth = part.birth
    if birth is None or not birth.direct:
        raise PatchError(f"where {path} is built was not seen")
    tree, call = draft.call(birth.site)
    spot = spot_of(tree, call)
    if spot.kind != "attribute" or spot.name != part.name:
        raise PatchError(
            f"{path} in {tree.place(call)} is not an attribute of its own", place=tree.place(call)
        )
    name = draft.free_name(tree, f"{part.name}_norms")
    sites = _call_sites(draft, norms)
    for site in sites:
        _norm_in_loop(draft, tree, site, path, part.name, name, len(norms))
    _refuse_unseen(draft, tree, spot, path, part.name)
    _define_list(draft, tree, spot, norms, part.name, name, count)


def _refuse_unseen(draft: Draft, tree: Tree, spot: Spot, path: str, layers: str) -> None:
    """Refuse where another method goes through the list: it would run the layers without their norms."""
    seen = [draft.call(s)[1] for p, s in draft.facts.visits if s is not None and p.rpartition(".")[0] == path]
    loops = [_loop_of(tree, call) for call in seen]
    for node in tree.attributes(layers, tree.above(spot.node, cst.ClassDef)):
        if not is_self(node) or tree.scope(node) is tree.scope(spot.node):
            continue
        called = [c for c in tree.around(node) if isinstance(c, cst.Call)]
        known = any(c is one for c in called for one in seen) or any(
            loop is not None and tree.inside(node, loop) for loop in loops
        )
        if not known and not any(dotted(c.func) == "len" for c in called):
            raise _not_seen(tree, node)


def _define_list(
    draft: Draft, tree: Tree, spot: Spot, norms: Sequence[Norm], layers: str, name: str, count: int
) -> None:
    key = f"norms {tree.path} {tree.start(spot.node)}"
    if key in draft.done:  # another instance of the same class
        return
    draft.done.add(key)
    text = norm_text(draft, spot, norms, _width_of(draft, "layer", norms))
    some = f"self.{layers}" if len(norms) == count else f"self.{layers}[:{len(norms) - count}]"
    module_list = draft.spelling(tree).write("torch.nn.ModuleList")
    line = f"self.{name} = {module_list}({text} for layer in {some})"
    draft.edits(tree).lines_after(_complete(tree, spot, layers), [line])


def _complete(tree: Tree, spot: Spot, layers: str) -> cst.CSTNode:
    """The statement after which the list has all its layers: its own, or the last loop that appends to it."""
    last: cst.CSTNode = tree.statement(spot.node, shared=True)
    scope = tree.scope(spot.node)
    for node in tree.attributes(layers, scope):
        above = tree.parents[node]
        if (
            is_self(node)
            and isinstance(above, cst.Attribute)
            and above.attr.value in ("append", "extend", "insert")
        ):
            outer: cst.CSTNode = tree.statement(node)
            for around in tree.around(node):
                if around is scope:
                    break
                if isinstance(around, (cst.For, cst.While, cst.If, cst.With)):
                    outer = around
            if tree.end(outer) > tree.end(last):
                last = outer
    return last


def _norm_in_loop(
    draft: Draft, home: Tree, site: Site, path: str, layers: str, name: str, count: int
) -> None:
    tree, call = draft.call(site)
    if tree is not home:
        raise PatchError(f"{path} is called in another file than it is built in", place=tree.place(call))
    key = f"call {tree.path} {tree.start(call)}"
    if key in draft.done:
        return
    draft.done.add(key)
    here = [p for p, s in draft.facts.visits if s == site and p.rpartition(".")[0] == path]
    indexed = _index_of(call.func, layers)
    loop = _loop_of(tree, call)
    if (
        len(here) != count
    ):  # the loop goes over layers without a norm, too: it has to be where the activation is
        index = tree.code(indexed) if indexed is not None else _counter(loop, layers)
        if index is None:
            raise _not_all(tree, call)
        _norm_at_activation(draft, tree, call, path, f"self.{name}[{index}]")
    elif indexed is not None:
        draft.edits(tree).wrap_node(call, f"self.{name}[{tree.code(indexed)}](", ")")
    elif loop is not None:
        _widen(draft, tree, loop, call, layers, name)
    else:
        raise _not_all(tree, call)


def _counter(loop: cst.For | None, layers: str) -> str | None:
    """i in `for i, layer in enumerate(self.layers)`."""
    if loop is None or not isinstance(loop.iter, cst.Call) or dotted(loop.iter.func) != "enumerate":
        return None
    plain = len(loop.iter.args) == 1 and _is_list(loop.iter.args[0].value, layers)
    if not plain or not isinstance(loop.target, cst.Tuple):
        return None
    return dotted(loop.target.elements[0].value)


def _norm_at_activation(draft: Draft, tree: Tree, call: cst.Call, path: str, norm: str) -> None:
    """act(x) -> act(norm(x)): the activation is called for just the layers that get a norm."""
    sites = set()
    for one in (n for n in draft.norms if n.layer.rpartition(".")[0] == path):
        called = [one.function] if one.activation is None else draft.facts.calls_of(one.activation)
        sites |= set(called)
    site = sites.pop() if len(sites) == 1 else None
    if site is None:
        raise _not_all(tree, call)
    where, act = draft.call(site)
    if where is not tree or where.above(act, cst.For) is not tree.above(call, cst.For):
        raise _not_all(tree, call)
    if act.args:
        draft.edits(tree).wrap_node(act.args[0].value, f"{norm}(", ")")
    elif isinstance(act.func, cst.Attribute):
        draft.edits(tree).wrap_node(act.func.value, f"{norm}(", ")")


def _not_all(tree: Tree, call: cst.Call) -> PatchError:
    place = tree.place(call)
    return PatchError(f"the loop around {place} also calls layers that get no norm", place=place)


def _index_of(func: cst.BaseExpression, layers: str) -> cst.BaseExpression | None:
    """i in self.layers[i]."""
    if isinstance(func, cst.Subscript) and is_self(func.value, layers) and len(func.slice) == 1:
        index = func.slice[0].slice
        if isinstance(index, cst.Index):
            return index.value
    return None


def _loop_of(tree: Tree, call: cst.Call) -> cst.For | None:
    """The loop whose variable is called."""
    if not isinstance(call.func, cst.Name):
        return None
    for node in tree.around(call):
        if isinstance(node, cst.For) and any(
            isinstance(n, cst.Name) and n.value == call.func.value
            for n in [node.target, *_names_in(node.target)]
        ):
            return node
        if isinstance(node, cst.FunctionDef):
            return None
    return None


def _names_in(target: cst.CSTNode) -> list[cst.CSTNode]:
    if isinstance(target, cst.Tuple):
        return [n for e in target.elements for n in [e.value, *_names_in(e.value)]]
    return []


def _widen(draft: Draft, tree: Tree, loop: cst.For, call: cst.Call, layers: str, name: str) -> None:
    """for layer in self.layers -> for layer, norm in zip(self.layers, self.layers_norms)."""
    edits, source = draft.edits(tree), loop.iter
    norm = draft.free_name(tree, "norm")
    edits.wrap_node(call, f"{norm}(", ")")
    called = dotted(source.func) if isinstance(source, cst.Call) else None
    if _is_list(source, layers) and isinstance(loop.target, cst.Name):
        edits.behind(tree.end(loop.target), f", {norm}")
        edits.wrap_node(source, "zip(", f", self.{name})")
    elif isinstance(source, cst.Call) and called == "enumerate" and isinstance(loop.target, cst.Tuple):
        first, second = source.args[0].value, loop.target.elements[-1].value
        if not _is_list(first, layers) or not isinstance(second, cst.Name):
            raise _not_understood(tree, loop)
        edits.wrap_node(second, "(", f", {norm})")
        edits.wrap_node(first, "zip(", f", self.{name})")
    elif isinstance(source, cst.Call) and called == "zip" and isinstance(loop.target, cst.Tuple):
        if not any(_is_list(arg.value, layers) for arg in source.args) or loop.target.lpar:
            raise _not_understood(tree, loop)
        edits.behind(tree.end(loop.target), f", {norm}")
        edits.behind(tree.end(source.args[-1].value), f", self.{name}")
    else:
        raise _not_understood(tree, loop)


def _is_list(node: cst.CSTNode, layers: str) -> bool:
    """self.layers, or a slice of it that begins at its beginning."""
    if isinstance(node, cst.Subscript) and len(node.slice) == 1:
        part = node.slice[0].slice
        return (
            isinstance(part, cst.Slice)
            and part.lower is None
            and part.step is None
            and is_self(node.value, layers)
        )
    return is_self(node, layers)


def _not_understood(tree: Tree, loop: cst.For) -> PatchError:
    place = tree.place(loop)
    return PatchError(f"the loop in {place} is not understood", place=place)
