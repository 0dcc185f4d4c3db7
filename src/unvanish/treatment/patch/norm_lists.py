"""Norms for the layers of an nn.ModuleList: a list of their own beside it, and the loop goes over both."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Norm, Site
from unvanish.treatment.patch.norm_text import call_sites, norm_text, not_seen, width_of
from unvanish.treatment.patch.spots import Spot, spot_of
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, dotted, is_self


def norms_in_lists(draft: Draft, norms: Sequence[Norm]) -> None:
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
    sites = call_sites(draft, norms)
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
            raise not_seen(tree, node)


def _define_list(
    draft: Draft, tree: Tree, spot: Spot, norms: Sequence[Norm], layers: str, name: str, count: int
) -> None:
    key = f"norms {tree.path} {tree.start(spot.node)}"
    if key in draft.done:  # another instance of the same class
        return
    draft.done.add(key)
    text = norm_text(draft, spot, norms, width_of(draft, "layer", norms))
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
