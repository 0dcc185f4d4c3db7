"""Another class in the place of a module's: at the call that builds it, or where that class is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Site, Swap
from unvanish.treatment.patch.origin import Origin
from unvanish.treatment.patch.reach import refuse_reached, refuse_untrained
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, argument, dotted


@dataclass(frozen=True, slots=True)
class _Place:
    """One call that builds modules to be swapped, all in the same way."""

    tree: Tree
    call: cst.Call
    swap: Swap
    paths: tuple[str, ...]


def swap_modules(draft: Draft, swaps: Sequence[Swap]) -> None:
    """Make all swaps.

    Raises:
        PatchError: a module is built by library code, or by a call that also builds what has to stay.
    """
    learned = [s.path.rpartition(".")[0] for s in swaps if s.new == "PReLU"]
    if learned:
        refuse_reached(draft, learned)
        refuse_untrained(draft, learned)
    chosen: list[tuple[_Place, list[tuple[Origin, str]]]] = []
    for place in _places(draft, swaps):
        if _names(draft, place.tree, place.call.func, place.swap.old):
            _swap_call(draft, place)
            continue
        found = _chosen_elsewhere(draft, place)
        if not found:
            _write_call(draft, place)
        else:
            chosen.append((place, found))
    pairs = [pair for _, found in chosen for pair in found]
    if draft.origins.covered(origin for origin, _ in pairs):
        for origin, text in pairs:
            draft.edits(origin.tree).replace_node(origin.node, text)
    else:  # the same variable serves others as well
        for place, _ in chosen:
            _write_call(draft, place)


def all_born_at(draft: Draft, site: Site, paths: Sequence[str], what: str) -> None:
    """Make sure that a call builds these modules and no others.

    Raises:
        PatchError: it builds another one, too.
    """
    others = [p for p in draft.facts.born.get(site, ()) if p not in paths]
    if others:
        other = "a module of another model" if others[0] is None else others[0]
        raise PatchError(
            f"{site.file}:{site.line} builds {paths[0]}, which {what}, and {other}, which does not",
            place=f"{site.file}:{site.line}",
        )


def _places(draft: Draft, swaps: Sequence[Swap]) -> list[_Place]:
    births = draft.facts.births(swap.path for swap in swaps)
    if isinstance(births, str):
        raise PatchError(births, place=_near(draft, swaps))
    by_path = {swap.path: swap for swap in swaps}
    places = []
    for site, paths in births.items():
        all_born_at(draft, site, paths, "becomes another")
        kinds = {(by_path[p].old, by_path[p].new, by_path[p].arguments) for p in paths}
        if len(kinds) > 1:
            raise PatchError(
                f"{site.file}:{site.line} builds modules that become different ones",
                place=f"{site.file}:{site.line}",
            )
        tree, call = draft.call(site)
        places.append(_Place(tree, call, by_path[paths[0]], tuple(paths)))
    return places


def _near(draft: Draft, swaps: Sequence[Swap]) -> str:
    """file:line of what is known of the first module whose building was not seen."""
    for swap in swaps:
        part = draft.facts.parts.get(swap.path)
        if part is not None and part.birth is not None and not part.birth.direct:
            return f"{part.birth.site.file}:{part.birth.site.line}"
    return ""


def _names(draft: Draft, tree: Tree, node: cst.BaseExpression, kind: str) -> bool:
    return draft.spelling(tree).meaning(node) == f"torch.nn.{kind}"


def _swap_call(draft: Draft, place: _Place) -> None:
    """nn.Sigmoid() -> nn.ReLU(): the class, and the arguments where they are others."""
    tree, call, swap = place.tree, place.call, place.swap
    name = draft.spelling(tree).write(f"torch.nn.{swap.new}", like=call.func)
    draft.edits(tree).replace_node(call.func, name)
    if swap.arguments is not None:
        inner = tree.code(call)[len(tree.code(call.func)) :]
        if inner.strip("() \r\n\t") or swap.arguments:
            draft.edits(tree).replace(tree.end(call.func), tree.end(call), f"({swap.arguments})")


def _write_call(draft: Draft, place: _Place) -> None:
    """act() -> nn.ReLU(), whatever act was."""
    tree, call, swap = place.tree, place.call, place.swap
    name = draft.spelling(tree).write(f"torch.nn.{swap.new}")
    if swap.arguments is None:
        draft.edits(tree).replace_node(call.func, name)
    else:
        draft.edits(tree).replace_node(call, f"{name}({swap.arguments})")


def _chosen_elsewhere(draft: Draft, place: _Place) -> list[tuple[Origin, str]]:
    """Where the class is chosen, by itself or by a word, and what is to stand there; none = not to be told."""
    if place.call.args or place.swap.arguments:
        return []
    swap = place.swap
    outers = [part.birth.outer for p in place.paths if (part := draft.facts.parts[p]).birth is not None]
    found: list[tuple[Origin, str]] = []
    for outer in dict.fromkeys(outers):
        origin = draft.origins.find(
            place.tree, place.call.func, lambda t, n: _names(draft, t, n, swap.old), outer
        )
        if origin is not None:
            name = draft.spelling(origin.tree).write(f"torch.nn.{swap.new}", like=origin.node)
            found.append((origin, name))
            continue
        worded = _by_word(draft, place, outer)
        if worded is None:
            return []
        found.append(worded)
    return found


def _by_word(draft: Draft, place: _Place, outer: Sequence[Site]) -> tuple[Origin, str] | None:
    """ACTS[name]() and getattr(nn, name)(): the word that the name stands for."""
    func, tree, swap = place.call.func, place.tree, place.swap
    if isinstance(func, cst.Call) and dotted(func.func) == "getattr":
        word = argument(func, 1, "")
        if word is None:
            return None
        origin = draft.origins.find(tree, word.value, _is_word, outer)
        return (
            None if origin is None or _word(origin.node) != swap.old else (origin, _quoted(origin, swap.new))
        )
    if not isinstance(func, cst.Subscript) or len(func.slice) != 1:
        return None
    index, table = func.slice[0].slice, draft.origins.find(tree, func.value, _is_dict, outer)
    if not isinstance(index, cst.Index) or table is None or not isinstance(table.node, cst.Dict):
        return None
    origin = draft.origins.find(tree, index.value, _is_word, outer)
    words = {
        _word(e.key): draft.spelling(table.tree).meaning(e.value)
        for e in table.node.elements
        if isinstance(e, cst.DictElement)
    }
    wanted = [word for word, meaning in words.items() if meaning == f"torch.nn.{swap.new}"]
    if origin is None or not wanted or words.get(_word(origin.node)) != f"torch.nn.{swap.old}":
        return None
    return origin, _quoted(origin, wanted[0] or "")


def _is_word(_: Tree, node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.SimpleString)


def _is_dict(_: Tree, node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.Dict)


def _word(node: cst.CSTNode) -> str | None:
    value = node.evaluated_value if isinstance(node, cst.SimpleString) else None
    return value if isinstance(value, str) else None


def _quoted(origin: Origin, word: str) -> str:
    quote = origin.node.quote if isinstance(origin.node, cst.SimpleString) else '"'
    return f"{quote}{word}{quote}"
