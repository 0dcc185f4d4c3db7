"""Where a value is written: from a name back to the one literal (or class) that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import libcst as cst

from unvanish.treatment.patch.bindings import (
    Variable,
    assigned,
    bindings,
    is_target,
    key_of,
    option,
    parameter_of,
    text_of,
    uses_of,
)
from unvanish.treatment.patch.facts import Site
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, argument, dotted, is_self

Accept = Callable[[Tree, cst.BaseExpression], bool]
_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Origin:
    """The expression that holds the value, and the variables that lead to it with the use that was followed."""

    tree: Tree
    node: cst.BaseExpression
    trail: tuple[tuple[Variable, cst.CSTNode], ...] = ()

    def through(self, variable: Variable, use: cst.CSTNode) -> Origin:
        """The same, seen from one variable further away."""
        return Origin(self.tree, self.node, (*self.trail, (variable, use)))


class Origins:
    """Follows names through all files of a patch."""

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        """`trees` by their paths."""
        self._trees = trees

    def find(
        self,
        tree: Tree,
        node: cst.BaseExpression,
        accept: Accept,
        outer: Sequence[Site] = (),
        depth: int = _DEPTH,
    ) -> Origin | None:
        """The one expression, accepted by the caller, that this expression's value comes from; else None.

        `outer` are the calls that led to the running function, the innermost first: they tell what a parameter was.
        """
        if accept(tree, node):
            return Origin(tree, node)
        if depth == 0:
            return None
        if isinstance(node, cst.IfExp):
            return _only(self.find(tree, side, accept, outer, depth - 1) for side in (node.body, node.orelse))
        if isinstance(node, cst.Name):
            return self._name(tree, node, accept, outer, depth)
        if isinstance(node, cst.Attribute):
            return self._attribute(tree, node, accept, outer, depth)
        if isinstance(node, cst.Subscript):
            return self._entry(tree, node, accept, depth)
        return None

    def covered(self, origins: Iterable[Origin]) -> bool:
        """Whether every use of every variable on the way was followed: no other use sees the change."""
        followed = [pair for origin in origins for pair in origin.trail]
        for variable in {v for v, _ in followed}:
            seen = {id(use) for v, use in followed if v == variable}
            if any(id(use) not in seen for use in uses_of(variable)) or self._imported(variable):
                return False
        return True

    def _imported(self, variable: Variable) -> bool:
        """Whether another file imports a name of the module's body."""
        if variable.scope is not variable.tree.module:
            return False
        module = variable.tree.path.rpartition("/")[2].removesuffix(".py")
        for tree in self._trees.values():
            if tree is variable.tree:
                continue
            for node in tree.all(cst.ImportFrom):
                name = dotted(node.module) if node.module is not None else ""
                if (name or "").rpartition(".")[2] == module and tree.uses(variable.name):
                    return True
        return False

    # --- names ----------------------------------------------------------------------------------------------

    def _name(
        self, tree: Tree, node: cst.Name, accept: Accept, outer: Sequence[Site], depth: int
    ) -> Origin | None:
        scope: cst.CSTNode = tree.scope(node)
        while True:
            if isinstance(scope, (cst.FunctionDef, cst.Lambda)):
                parameter = parameter_of(scope, node.value)
                if parameter is not None:
                    if isinstance(scope, cst.Lambda) or bindings(tree, node.value, scope, parameter):
                        return None
                    found = self._argument(tree, scope, parameter, accept, outer, depth)
                    return found and found.through(Variable(tree, scope, node.value), node)
            bound = bindings(tree, node.value, scope, None)
            if bound:
                value = assigned(tree, bound)
                if value is None:
                    return None
                inner = outer if isinstance(scope, cst.FunctionDef) else ()
                found = self.find(tree, value, accept, inner, depth - 1)
                return found and found.through(Variable(tree, scope, node.value), node)
            if isinstance(scope, cst.Module):
                return None
            scope = tree.scope(scope)
            while isinstance(scope, cst.ClassDef):
                scope = tree.scope(scope)

    def _argument(
        self,
        tree: Tree,
        function: cst.FunctionDef,
        parameter: cst.Param,
        accept: Accept,
        outer: Sequence[Site],
        depth: int,
    ) -> Origin | None:
        """What the running call handed over for a parameter; its default where that call leaves it out."""
        call, where = None, tree
        rest: tuple[Site, ...] = ()
        for place, site in enumerate(outer):
            where = self._trees.get(site.file, tree)
            try:
                call = where.call_at(site)
            except PatchError:
                continue  # the frame of a comprehension
            if where is not tree or not tree.inside(call, function.body):
                rest = tuple(outer[place + 1 :])
                break
            call = None
        if call is None or any(arg.star for arg in call.args):
            return None
        listed = [p.name.value for p in [*function.params.posonly_params, *function.params.params]]
        place = listed.index(parameter.name.value) if parameter.name.value in listed else 10**6
        if isinstance(tree.scope(function), cst.ClassDef):
            place -= 1
        given = argument(call, place, parameter.name.value)
        if given is not None:
            return self.find(where, given.value, accept, rest, depth - 1)
        return (
            None if parameter.default is None else self.find(tree, parameter.default, accept, (), depth - 1)
        )

    # --- attributes and entries -----------------------------------------------------------------------------

    def _attribute(
        self, tree: Tree, node: cst.Attribute, accept: Accept, outer: Sequence[Site], depth: int
    ) -> Origin | None:
        name = node.attr.value
        if is_self(node):
            owner = tree.above(node, cst.ClassDef)
            if owner is None:
                return None
            bound = [a for a in tree.attributes(name, owner) if is_self(a) and is_target(tree, a)]
            value = assigned(tree, bound)
            if value is None:
                return None
            # what __init__ was handed: the calls around it are those that built the module
            found = self.find(tree, value, accept, outer, depth - 1)
            return found and found.through(Variable(tree, owner, f".{name}"), node)
        base = self.find(tree, node.value, _is_call, outer, depth - 1)
        if base is None or not isinstance(base.node, cst.Call):
            return None
        called = dotted(base.node.func) or ""
        value, home = None, base.tree
        if called.endswith(("parse_args", "parse_known_args")):
            value = option(base.tree, name)
        else:
            home, value = self._field(base.tree, called, base.node, name)
        if value is None or not accept(home, value):
            return None
        variable = Variable(tree, tree.module, f"{dotted(node.value)}.{name}")
        return Origin(home, value, ((variable, node),))

    def _field(
        self, tree: Tree, name: str, call: cst.Call, attribute: str
    ) -> tuple[Tree, cst.BaseExpression | None]:
        """A keyword of the call that built a settings object, or the default in its (data)class."""
        given = argument(call, 10**6, attribute)
        if given is not None:
            return tree, given.value
        for home in self._trees.values():
            for owner in home.all(cst.ClassDef):
                if owner.name.value == name.rpartition(".")[2] and not call.args:
                    for node in home.all(cst.AnnAssign):
                        if home.scope(node) is owner and dotted(node.target) == attribute:
                            return home, node.value
                    bound = [
                        n for n in home.uses(attribute, owner)
                        if home.scope(n) is owner and isinstance(home.parents[n], cst.AssignTarget)
                    ]  # fmt: skip
                    return home, assigned(home, bound)
        return tree, None

    def _entry(self, tree: Tree, node: cst.Subscript, accept: Accept, depth: int) -> Origin | None:
        """D["key"], where D is one dict literal or dict(key=...)."""
        key = key_of(node)
        name = dotted(node.value)
        if key is None or name is None:
            return None
        base = self.find(tree, node.value, _is_mapping, (), depth - 1)
        if base is None:
            return None
        value: cst.BaseExpression | None = None
        if isinstance(base.node, cst.Dict):
            for element in base.node.elements:
                if isinstance(element, cst.DictElement) and text_of(element.key) == key:
                    value = element.value
        elif isinstance(base.node, cst.Call):
            given = argument(base.node, 10**6, key)
            value = None if given is None else given.value
        if value is None or not accept(base.tree, value):
            return None
        variable = Variable(tree, tree.module, f"{name}[{key}]")
        return Origin(base.tree, value, ((variable, node),))


def _is_call(_: Tree, node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.Call)


def _is_mapping(_: Tree, node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.Dict) or (isinstance(node, cst.Call) and dotted(node.func) == "dict")


def _only(found: Iterable[Origin | None]) -> Origin | None:
    some = [origin for origin in found if origin is not None]
    return some[0] if len(some) == 1 else None
