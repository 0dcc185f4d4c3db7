"""What binds a name in a source, which values it is given, and who reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from unvanish.treatment.patch.tree import Tree, argument, dotted


@dataclass(frozen=True, slots=True)
class Variable:
    """A name in a scope, or (with a dot in front) an attribute; and the file."""

    tree: Tree
    scope: cst.CSTNode
    name: str


def bindings(tree: Tree, name: str, scope: cst.CSTNode, parameter: cst.Param | None) -> list[cst.CSTNode]:
    """Everything in a scope (not in functions inside of it) that binds the name."""
    found: list[cst.CSTNode] = []
    for node in tree.uses(name, scope):
        if tree.scope(node) is not scope or (parameter is not None and tree.inside(node, parameter)):
            continue
        if is_target(tree, node):
            found.append(node)
    return found


def is_target(tree: Tree, node: cst.CSTNode) -> bool:
    """Whether a name or attribute is given a value here."""
    outer: cst.CSTNode = tree.parents[node]
    while isinstance(outer, (cst.Tuple, cst.List, cst.Element, cst.StarredElement)):
        node = outer
        outer = tree.parents[outer]
    if isinstance(
        outer, (cst.AssignTarget, cst.AnnAssign, cst.AugAssign, cst.For, cst.CompFor, cst.NamedExpr)
    ):
        return outer.target is node
    if isinstance(outer, (cst.FunctionDef, cst.ClassDef)):
        return outer.name is node
    if isinstance(outer, (cst.ImportAlias, cst.AsName)):
        return True
    return isinstance(outer, (cst.Del, cst.Global, cst.NameItem))


def assigned(tree: Tree, bound: Sequence[cst.CSTNode]) -> cst.BaseExpression | None:
    """The one value that is ever assigned; None where there are several, or it is no plain assignment."""
    if len(bound) != 1:
        return None
    node, outer = bound[0], tree.parents[bound[0]]
    if isinstance(outer, cst.AssignTarget):
        assign = tree.parents[outer]
        return assign.value if isinstance(assign, cst.Assign) else None
    if isinstance(outer, cst.AnnAssign):
        return outer.value
    if isinstance(outer, cst.Element):
        return _unpacked(tree, node, tree.parents[outer])
    return None


def _unpacked(tree: Tree, node: cst.CSTNode, targets: cst.CSTNode) -> cst.BaseExpression | None:
    """The value of one name in `a, b = x, y`."""
    target = tree.parents[targets]
    assign = tree.parents[target]
    if not isinstance(targets, cst.Tuple) or not isinstance(assign, cst.Assign):
        return None
    if not isinstance(assign.value, cst.Tuple):
        return None
    names, values = targets.elements, assign.value.elements
    if len(names) != len(values) or any(isinstance(e, cst.StarredElement) for e in [*names, *values]):
        return None
    return next(v.value for n, v in zip(names, values, strict=True) if n.value is node)


def parameter_of(function: cst.FunctionDef | cst.Lambda, name: str) -> cst.Param | None:
    """The function's parameter of this name."""
    params = function.params
    for parameter in [*params.posonly_params, *params.params, *params.kwonly_params]:
        if parameter.name.value == name:
            return parameter
    return None


def uses_of(variable: Variable) -> list[cst.CSTNode]:
    """All places that read the variable."""
    tree, name = variable.tree, variable.name
    if name.endswith("]"):
        key = name.rpartition("[")[2][:-1]
        return [n for n in tree.all(cst.Subscript) if key_of(n) == key]
    if "." in name:
        base, _, attribute = name.rpartition(".")
        return [
            n for n in tree.attributes(attribute, variable.scope)
            if dotted(n.value) == (base or "self") and not is_target(tree, n)
        ]  # fmt: skip
    return [
        n for n in tree.uses(name, variable.scope)
        if not is_target(tree, n) and not isinstance(tree.parents[n], cst.Param)
    ]  # fmt: skip


def option(tree: Tree, name: str) -> cst.BaseExpression | None:
    """The default of argparse's --name."""
    found = []
    for call in tree.all(cst.Call):
        if isinstance(call.func, cst.Attribute) and call.func.attr.value == "add_argument":
            flags = [text_of(a.value) or "" for a in call.args if a.keyword is None]
            dest = argument(call, 10**6, "dest")
            names = [text_of(dest.value)] if dest else [f.lstrip("-").replace("-", "_") for f in flags]
            default = argument(call, 10**6, "default")
            if name in names and default is not None:
                found.append(default.value)
    return found[0] if len(found) == 1 else None


def key_of(node: cst.Subscript) -> str | None:
    """The word in D["word"]; None for any other index."""
    if len(node.slice) == 1 and isinstance(node.slice[0].slice, cst.Index):
        return text_of(node.slice[0].slice.value)
    return None


def text_of(node: cst.CSTNode) -> str | None:
    """The text that a plain string literal holds."""
    if isinstance(node, cst.SimpleString):
        value = node.evaluated_value
        return value if isinstance(value, str) else None
    return None
