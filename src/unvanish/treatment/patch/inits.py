"""Another init: a function in the user's script, called straight before the optimizer is built.

A script that updates its weights by hand has no such place: there it is called in front of the training loop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Change
from unvanish.treatment.patch.init_code import init_function
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, dotted

# what tells that weights may be anywhere but on the CPU in float32 when the script runs elsewhere
_MOVES = re.compile(
    r"\.cuda\(|\.to\(|device|\.half\(|float16|float64|\.double\(|channels_last|set_default_dtype"
)


@dataclass(frozen=True, slots=True)
class Moment:
    """The call in front of whose statement the model is treated, or the loop; and its name there."""

    tree: Tree
    call: cst.Call | cst.For | cst.While
    model: str

    def put(self, draft: Draft, lines: list[str]) -> None:
        """Write these lines there."""
        if isinstance(self.call, cst.Call):
            draft.edits(self.tree).before(self.call, lines)
        else:
            draft.edits(self.tree).lines_before(self.call, lines)


def place_init(draft: Draft, change: Change, *, renamed: bool) -> None:
    """Add the function and its call.

    Raises:
        PatchError: there is no place where the model has a name and its optimizer is still to be built.
    """
    moment = moment_of(draft)
    in_place = not any(_MOVES.search(tree.text) for tree in draft.trees())
    lines = init_function(
        draft.facts, change, draft.spelling(moment.tree), in_place=in_place, renamed=renamed
    )
    name = draft.define(moment.tree, moment.call, "init_weights", lines)
    moment.put(draft, [f"{name}({moment.model})"])


def moment_of(draft: Draft) -> Moment:
    """The moment in front of the model's first optimizer: the recipe is applied there, too.

    A function that is called from several places trains several models; then it is the call that trains this one.

    Raises:
        PatchError: there is no such place.
    """
    if not draft.facts.optimizers:
        return _before_the_loop(draft)
    first = draft.facts.optimizers[0]
    frames = [*([(first.site, first.names)] if first.site is not None else []), *first.outer]
    for site, names in frames:
        try:
            tree, call = draft.call(site)
        except PatchError:
            continue
        if names and not _is_shared(draft, tree, call) and _is_simple(tree, call):
            return Moment(tree, call, _best(names, tree.code(call)))
    where = f"{frames[0][0].file}:{frames[0][0].line}" if frames else ""
    raise PatchError("the model has no name where its optimizer is built", place=where)


def _before_the_loop(draft: Draft) -> Moment:
    """In front of the outermost loop around the first training call that the model is not built in.

    Of the functions that lead to that call the outermost that has a name for the model: inner ones may be called at
    each step.

    Raises:
        PatchError: there is no such place.
    """
    for site, names in reversed(draft.facts.began):
        try:
            tree, call = draft.call(site)
        except PatchError:
            continue
        loops = _loops(tree, call)
        if names:
            model = _best(names, tree.code(call))
            free = _outside_of_binding(tree, loops, model.partition(".")[0])
            if free or _is_simple(tree, call):
                return Moment(tree, free[-1] if free else call, model)
        if names or loops:
            place = tree.place(call)
            raise PatchError(f"the model has no name outside of the loop in {place}", place=place)
    raise PatchError("the model has no name in front of its training loop")


def _loops(tree: Tree, node: cst.CSTNode) -> list[cst.For | cst.While]:
    """Those around it in the same function, the innermost first."""
    inner = takewhile(
        lambda n: not isinstance(n, (cst.FunctionDef, cst.Lambda, cst.ClassDef)), tree.around(node)
    )
    return [n for n in inner if isinstance(n, (cst.For, cst.While))]


def _outside_of_binding(tree: Tree, loops: list[cst.For | cst.While], name: str) -> list[cst.For | cst.While]:
    """The loops, up to the first in which this name is bound."""
    bound = [t for t in tree.all(cst.AssignTarget) if dotted(t.target) == name]
    return list(takewhile(lambda loop: not any(tree.inside(t, loop) for t in bound), loops))


def _is_simple(tree: Tree, call: cst.Call) -> bool:
    """Whether it is in a simple statement, not in the head of a loop or a lambda's body."""
    for around in tree.around(call):
        if isinstance(around, (cst.BaseCompoundStatement, cst.Lambda, cst.BaseComp)):
            return False
        if isinstance(around, cst.BaseSmallStatement):
            return True
    return False


def _best(names: tuple[str, ...], code: str) -> str:
    """The name that the optimizer's call itself uses, else the first."""
    used = [n for n in names if re.search(rf"(?<![\w.]){re.escape(n)}(?!\w)", code)]
    return (used or list(names))[0]


def _is_shared(draft: Draft, tree: Tree, node: cst.CSTNode) -> bool:
    """Whether the function around is called from several places."""
    function = tree.above(node, cst.FunctionDef)
    if function is None:
        return False
    name = function.name.value
    owner = tree.scope(function)
    if name == "__init__" and isinstance(owner, cst.ClassDef):
        name = owner.name.value
    calls = [
        call for t in draft.trees() for call in t.all(cst.Call)
        if (dotted(call.func) or "").rpartition(".")[2] == name
    ]  # fmt: skip
    return len(calls) > 1
