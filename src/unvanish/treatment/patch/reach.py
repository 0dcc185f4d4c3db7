"""Whether the script's own loops over a model would reach what a patch puts in, or lose what it moves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Walk
from unvanish.treatment.patch.spots import Spot
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, dotted

_ALL = ("parameters", "named_parameters", "modules", "named_modules", "apply")
_DIRECT = ("children", "named_children", "__iter__", "__getitem__")
_WRITE = re.compile(r"\binit\b|\b\w+_\(|\.data\b|requires_grad|\bcopy_\b|no_grad")
_COUNTING = ("enumerate", "len", "reversed")
_SHIFTING = ("pop", "insert", "remove", "index")
_NORM = re.compile(r"Norm")


def refuse_reached(draft: Draft, paths: Iterable[str]) -> None:
    """Refuse new norms in these modules where a loop of the script would initialise them, too.

    Raises:
        PatchError: there is such a loop, or weights are loaded by name.
    """
    holders = set(paths)
    for walk in draft.facts.walks:
        inside = any(_within(h, walk.path) for h in holders) if walk.method in _ALL else walk.path in holders
        if walk.method == "load_state_dict":
            _refuse_loading(draft, walk)
        elif inside and walk.method != "__getitem__":
            for tree, body in _writing_bodies(draft, walk):
                if not _asks_for_kind(tree, body):
                    raise _reaches(walk, "would initialise what is new, too")
        if inside and _picks_by_number(draft, walk):
            raise _reaches(walk, "takes parts of the model by their number, which new ones would shift")


def refuse_counted(draft: Draft, holder: str, spot: Spot) -> None:
    """Refuse to change how many modules a container has, where some code counts on it.

    Raises:
        PatchError: modules are taken by their number, sliced, popped or counted.
    """
    parts, statement = draft.facts.parts, spot.tree.statement_or_none(spot.node)
    names = {spot.name.rpartition(".")[2], parts[holder].name if holder else ""}
    names |= {n.rpartition(".")[2] for n in _targets(statement)}
    if not holder:
        names |= {n.rpartition(".")[2] for o in draft.facts.optimizers for n in o.names}
        names |= {n.rpartition(".")[2] for _, own in draft.facts.began for n in own}
    words = [n for n in names if n and not n.isdigit()]
    for tree in draft.trees():
        for node in tree.all(cst.Subscript):
            if _by_number(node) and _is_one_of(node.value, words):
                raise _counts(tree, node)
        for call in tree.all(cst.Call):
            counting = dotted(call.func) in _COUNTING and _mentions(tree.code(call), words)
            method = call.func if isinstance(call.func, cst.Attribute) else None
            if counting or (
                method is not None
                and method.attr.value in _SHIFTING
                and _mentions(tree.code(method.value), words)
            ):
                raise _counts(tree, call)


def _counts(tree: Tree, node: cst.CSTNode) -> PatchError:
    place = tree.place(node)
    return PatchError(
        f"the script's own code in {place} counts on the places of modules in a list", place=place
    )


def _targets(statement: cst.SimpleStatementLine | None) -> list[str]:
    first = statement.body[0] if statement is not None else None
    if isinstance(first, cst.Assign):
        return [dotted(t.target) or "" for t in first.targets]
    return [dotted(first.target) or ""] if isinstance(first, (cst.AugAssign, cst.AnnAssign)) else []


def _is_one_of(node: cst.BaseExpression, words: Sequence[str]) -> bool:
    """net, self.net, list(net.children())."""
    if isinstance(node, cst.Call) and dotted(node.func) in ("list", "tuple", "sorted") and node.args:
        inner = node.args[0].value
        base = (
            inner.func.value
            if isinstance(inner, cst.Call) and isinstance(inner.func, cst.Attribute)
            else inner
        )
        return _is_one_of(base, words)
    return (dotted(node) or "").rpartition(".")[2] in words


def _mentions(code: str, words: Iterable[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", code) for word in words)


def _by_number(node: cst.Subscript) -> bool:
    return not any(
        isinstance(s.slice, cst.Index) and isinstance(s.slice.value, (cst.SimpleString, cst.FormattedString))
        for s in node.slice
    )


def refuse_untrained(draft: Draft, paths: Iterable[str]) -> None:
    """Refuse new parameters in these modules where no optimizer would get them.

    An update by hand that would leave them out lets norms scale and shift as they begin, which is no harm.

    Raises:
        PatchError: the script hands the optimizer its layers one by one.
    """
    if not draft.facts.optimizers:
        return
    handed = [w.path for w in draft.facts.walks if w.method in ("parameters", "named_parameters")]
    missed = [p for p in paths if not any(_within(p, path) for path in handed)]
    if missed:
        site = draft.facts.optimizers[0].site if draft.facts.optimizers else None
        place = "" if site is None else f"{site.file}:{site.line}"
        raise PatchError(
            "the optimizer is handed its layers one by one, and would not get the new norms", place=place
        )
    for walk in draft.facts.walks:
        if walk.path == "" and walk.method in ("parameters", "named_parameters"):
            _note_holder(draft, walk)
    if any(len(o.rates) > 1 for o in draft.facts.optimizers):
        draft.note("the script's own rule decides which parameter group the new parameters are in")


def _note_holder(draft: Draft, walk: Walk) -> None:
    """Say so where something else than the optimizer is handed the parameters: in the trials it lacks new ones."""
    try:
        tree, call = draft.call(walk.site)
    except PatchError:
        return
    held = tree.parents.get(call)
    taker = tree.parents[held] if isinstance(held, cst.Arg) else None
    name = (dotted(taker.func) or "").rpartition(".")[2] if isinstance(taker, cst.Call) else ""
    if name[:1].isupper() and name not in {o.kind for o in draft.facts.optimizers}:
        draft.note(
            f"{name} in {tree.place(call)} is handed the new parameters as well, which in the trials it was not"
        )


def refuse_hidden(draft: Draft, paths: Iterable[str]) -> None:
    """Refuse to put layers of these containers one level deeper where a loop over the container needs them.

    Raises:
        PatchError: there is such a loop, or weights are loaded by name.
    """
    holders = set(paths)
    for walk in draft.facts.walks:
        if walk.method == "load_state_dict":
            _refuse_loading(draft, walk)
        elif walk.path in holders and walk.method in _DIRECT:
            if walk.method == "__getitem__" or _picks_by_number(draft, walk):
                raise _reaches(walk, "takes a layer out of its container")
            if list(_writing_bodies(draft, walk)):
                raise _reaches(walk, "would no longer find the layers that are one level deeper")


def _reaches(walk: Walk, what: str) -> PatchError:
    place = f"{walk.site.file}:{walk.site.line}"
    return PatchError(f"the script's own code in {place} {what}", place=place)


def _refuse_loading(draft: Draft, walk: Walk) -> None:
    """Weights from a file have the old names."""
    tree, call = draft.call(walk.site)
    if "load(" in tree.code(call).partition("load_state_dict")[2] or "load" in _argument_names(call):
        raise _reaches(walk, "loads weights by the names that the model has now")


def _argument_names(call: cst.Call) -> str:
    return " ".join(dotted(arg.value) or "" for arg in call.args)


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(outer + ".")


def _picks_by_number(draft: Draft, walk: Walk) -> bool:
    """list(model.children())[0], next(model.children())."""
    if walk.method in ("__iter__", "__getitem__", "apply", "load_state_dict"):
        return False
    try:
        tree, call = draft.call(walk.site)
    except PatchError:
        return False
    for around in tree.around(call):
        if isinstance(around, cst.Subscript):
            return True
        if isinstance(around, cst.Call) and dotted(around.func) == "next":
            return walk.method not in (
                "parameters",
                "named_parameters",
            )  # the device is asked for in this way
        if isinstance(around, (cst.BaseCompoundStatement, cst.SimpleStatementLine)):
            return False
    return False


def _writing_bodies(draft: Draft, walk: Walk) -> Iterable[tuple[Tree, cst.CSTNode]]:
    """The loop's body (or the function handed to apply) where it writes to what it goes through."""
    tree = draft.tree(walk.site.file)
    body: cst.CSTNode | None
    if walk.method == "apply":
        _, call = draft.call(walk.site)
        name = (dotted(call.args[0].value) or "").rpartition(".")[2] if call.args else ""
        found = [(t, f) for t in draft.trees() for f in t.all(cst.FunctionDef) if f.name.value == name]
        bodies: list[tuple[Tree, cst.CSTNode]] = [(t, f) for t, f in found] or [(tree, call)]
    elif walk.method == "__iter__":
        bodies = [(tree, f) for f in tree.all(cst.For) if tree.line(f) == walk.site.line]
    else:
        _, call = draft.call(walk.site)
        body = next(
            (n for n in tree.around(call) if isinstance(n, (cst.For, cst.ListComp, cst.GeneratorExp))), None
        )
        at_head = isinstance(body, cst.For) and tree.inside(call, body.iter)
        bodies = [(tree, body)] if isinstance(body, cst.For) and at_head else []
        bodies += _handed_to(draft, tree, call)
    for where, node in bodies:
        inner = node.body if isinstance(node, (cst.For, cst.FunctionDef)) else node
        if _WRITE.search(where.module.code_for_node(inner)):
            yield where, node


def _handed_to(draft: Draft, tree: Tree, call: cst.Call) -> list[tuple[Tree, cst.CSTNode]]:
    """The function that the parts are handed to, where it may write to them: init_all(model.parameters())."""
    held = tree.parents.get(call)
    taker = tree.parents[held] if isinstance(held, cst.Arg) else None
    if not isinstance(taker, cst.Call):
        return []
    name = (dotted(taker.func) or "").rpartition(".")[2]
    found = [(t, f) for t in draft.trees() for f in t.all(cst.FunctionDef) if f.name.value == name]
    return [*found] or ([(tree, taker)] if re.search(r"init|_$", name) else [])


def _asks_for_kind(tree: Tree, node: cst.CSTNode) -> bool:
    """Whether everything is written under `if isinstance(m, <no norm>)` or `if p.dim() > 1`, without an else."""
    inner = node.body if isinstance(node, (cst.For, cst.FunctionDef)) else node
    statements = list(inner.body) if isinstance(inner, (cst.IndentedBlock, cst.SimpleStatementSuite)) else []
    for statement in statements:
        code = tree.module.code_for_node(statement)
        if not _WRITE.search(code):
            continue
        if not isinstance(statement, cst.If) or not _is_guarded(tree, statement):
            return False
    return bool(statements)


def _is_guarded(tree: Tree, statement: cst.If) -> bool:
    test = tree.code(statement.test)
    kind = "isinstance" in test and not _NORM.search(test) and "not isinstance" not in test
    wide = re.search(r"(\.dim\(\)|\.ndim|len\(\w+\.(shape|size\(\))\))\s*(>|>=|==)\s*[1-9]", test)
    guarded = kind or (wide is not None and "== 1" not in test and ">= 1" not in test)
    rest = statement.orelse
    if not guarded:
        return False
    if rest is None or not _WRITE.search(tree.module.code_for_node(rest)):
        return True
    return isinstance(rest, cst.If) and _is_guarded(tree, rest)
