"""Another call in the place of one in forward: the rest of the user's code runs as it is written."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar, Literal, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.treatment import activations
from unvanish.treatment.blocks import add_back
from unvanish.treatment.dressing import Coat
from unvanish.treatment.source import Method

_VALUE_NAMES = ("input", "x", "tensor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change of one call expression, found by the place in the file where it ends.

    `swap`: another function (`name`, with `value` as slope) of the value alone. `callee`: another function
    with the same arguments. `keep`: the call's first argument is kept in a variable of this name. `add`: what was
    kept in it is added, `value` times the call's result.
    """

    end_line: int
    end_column: int
    action: Literal["swap", "callee", "keep", "add"]
    name: str
    value: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Rewritten(Coat):
    """Methods of the class with some of their calls changed: (name, edits) pairs."""

    rank: ClassVar[int] = 0
    methods: tuple[tuple[str, tuple[Edit, ...]], ...]

    def put_on(self, base: type[nn.Module]) -> dict[str, Any]:
        """Compile the edited methods.

        Raises:
            SurgeryError: a method's source is not at hand, or not what runs.
        """
        return {name: _rewritten(plain_method(base, name), edits) for name, edits in self.methods}

    def with_edits(self, method: str, edits: tuple[Edit, ...]) -> Rewritten:
        """These edits, and more of one method."""
        known = dict(self.methods)
        known[method] = (*known.get(method, ()), *edits)
        return Rewritten(tuple(known.items()))


def plain_method(kind: type, name: str) -> FunctionType:
    """A method as the script wrote it, where surgery has rewritten it already.

    Raises:
        SurgeryError: it is no plain python function.
    """
    found: Any = inspect.getattr_static(kind, name)
    found = getattr(found, "unvanish_original", found)
    if not isinstance(found, FunctionType):
        raise SurgeryError(f"{kind.__name__}.{name} is no plain method", "make the change in the source")
    return found


def _rewritten(function: FunctionType, edits: tuple[Edit, ...]) -> FunctionType:
    method = Method(function)
    editor = _Editor(method, edits)
    made = method.rewritten(editor, _Helpers(edits).values)
    if editor.left:
        raise SurgeryError(
            f"{function.__qualname__} has changed since it was looked at", "start the script anew"
        )
    made.__dict__["unvanish_original"] = function
    return made


class _Helpers:
    """The functions that edited calls go to, under names that no script has."""

    def __init__(self, edits: tuple[Edit, ...]) -> None:
        """One for each edit that needs one."""
        self.values: dict[str, Callable[..., Any]] = {}
        for place, edit in enumerate(edits):
            helper = _helper(edit)
            if helper is not None:
                self.values[_helper_name(place)] = helper


def _helper_name(place: int) -> str:
    return f"_unvanish_{place}"


def _helper(edit: Edit) -> Callable[..., Any] | None:
    if edit.action == "swap":
        return activations.function(edit.name, edit.value)
    if edit.action == "callee":
        named: Callable[..., Any] = getattr(nn.functional, edit.name)
        return named
    return functools.partial(add_back, scale=edit.value) if edit.action == "add" else None


class _Editor(ast.NodeTransformer):
    def __init__(self, method: Method, edits: tuple[Edit, ...]) -> None:
        self._method = method
        self._edits = list(enumerate(edits))
        self.left = len(edits)

    def visit_Call(self, node: ast.Call) -> ast.expr:  # ast's own name
        here = (node.end_lineno, node.end_col_offset)
        method_style = None
        edits = [(p, e) for p, e in self._edits if (e.end_line, e.end_column) == here]
        edits.sort(
            key=lambda entry: entry[1].action == "add"
        )  # whatever the call is by then, the sum goes around it
        if any(e.action in ("swap", "callee") for _, e in edits):
            method_style = self._method.method_style(node)
        self.generic_visit(node)
        made: ast.expr = node
        for place, edit in edits:
            self.left -= 1
            made = ast.copy_location(_edited(made, node, place, edit, method_style=method_style), node)
        return made


def _edited(made: ast.expr, call: ast.Call, place: int, edit: Edit, *, method_style: bool | None) -> ast.expr:
    helper = ast.Name(id=_helper_name(place), ctx=ast.Load())
    if edit.action == "keep":
        target = ast.Name(id=edit.name, ctx=ast.Store())
        call.args[0] = ast.copy_location(ast.NamedExpr(target=target, value=call.args[0]), call.args[0])
        return made
    if edit.action == "add":
        kept = ast.Name(id=edit.name, ctx=ast.Load())
        return ast.Call(func=helper, args=[made, kept], keywords=[])
    value, rest, named = split_arguments(call, method_style=bool(method_style))
    if edit.action == "swap":
        rest, named = [], []
    return ast.Call(func=helper, args=[value, *rest], keywords=named)


def split_arguments(
    call: ast.Call, *, method_style: bool
) -> tuple[ast.expr, list[ast.expr], list[ast.keyword]]:
    """(the value that flows through, the other arguments, the other keywords) of a call."""
    if method_style and isinstance(call.func, ast.Attribute):
        return call.func.value, list(call.args), list(call.keywords)
    if call.args:
        return call.args[0], call.args[1:], list(call.keywords)
    value = next(k.value for k in call.keywords if k.arg in _VALUE_NAMES)
    return value, [], [k for k in call.keywords if k.arg not in _VALUE_NAMES]
