"""The calls in the user's forward methods as places where another call can stand."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from types import FunctionType
from typing import Literal

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.treatment.activations import FUNCTIONS
from unvanish.treatment.dressing import coats_of, inner_type
from unvanish.treatment.flow import SOFTMAX_FUNCTIONS, Stage
from unvanish.treatment.rewriting import Edit, Rewritten, plain_method, split_arguments
from unvanish.treatment.source import Method, is_code_of
from unvanish.treatment.surgery import Surgery
from unvanish.treatment.tracing import Site

# functions of these kinds may have been exchanged for another one by an earlier edit, which the source does not show
_NAMES = {"activation": tuple(FUNCTIONS), "softmax": tuple(SOFTMAX_FUNCTIONS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call expression in a method of `owner`."""

    owner: nn.Module
    method: str
    source: Method
    node: ast.Call

    @property
    def words(self) -> str:
        """As a reader would say it."""
        return f"{ast.unparse(self.node.func)} in {type(self.owner).__name__}.{self.method}, line {self.node.lineno}"


class Wiring:
    """Finds calls, collects edits of them, and carries all of them out at once."""

    def __init__(self, surgery: Surgery) -> None:
        """Nothing is edited before `carry_out`."""
        self._surgery = surgery
        self._methods: dict[FunctionType, Method] = {}
        self._edits: dict[int, tuple[nn.Module, dict[str, list[Edit]]]] = {}

    def find(self, stage: Stage) -> Call:
        """The expression that makes a stage's call.

        Raises:
            SurgeryError: it is not in a method of the module, or its source is not at hand.
        """
        site, name = stage.site, stage.path or stage.activation
        if site is None:
            raise SurgeryError(f"{name} is not called in a method of a module", "call it in forward itself")
        owner = self._surgery.root.get_submodule(site.owner)
        method, function = _method_with(owner, site)
        if function not in self._methods:
            self._methods[function] = Method(function)
        source = self._methods[function]
        part = None if stage.path is None else stage.path.rpartition(".")[2]
        names = _NAMES.get(stage.kind, (stage.name,)) if part is None else FUNCTIONS
        return Call(owner=owner, method=method, source=source, node=source.call_at(site, names, part))

    def edit(
        self, call: Call, action: Literal["swap", "callee", "keep", "add"], name: str, value: float = 0.0
    ) -> None:
        """Note one change of a call. The same one twice is one."""
        line, column = call.node.end_lineno, call.node.end_col_offset
        if line is None or column is None:
            raise SurgeryError(f"the place of {call.words} is not known", "make the change in the source")
        made = Edit(end_line=line, end_column=column, action=action, name=name, value=value)
        _, methods = self._edits.setdefault(id(call.owner), (call.owner, {}))
        known = methods.setdefault(call.method, [])
        if made not in known:
            known.append(made)

    def carry_out(self) -> None:
        """Make all edits.

        Raises:
            SurgeryError: a class can't be extended.
        """
        for owner, methods in self._edits.values():
            coat = next((c for c in coats_of(owner) if isinstance(c, Rewritten)), Rewritten(()))
            for method, edits in methods.items():
                coat = coat.with_edits(method, tuple(edits))
            self._surgery.dress(owner, coat)
        self._edits.clear()


def refuse_lost_arguments(call: Call, stage: Stage) -> None:
    """Refuse to put another function in the place of a call that does more than to give a value back.

    Raises:
        SurgeryError: the result is not used, the value is changed in place and used again, or an argument is
            computed by a call of its own.
    """
    value, rest, named = split_arguments(call.node, method_style=call.source.method_style(call.node))
    around = call.source.parent(call.node)
    fault = ""
    if isinstance(around, ast.Expr):
        fault = "is called for its effect on the tensor alone"
    elif stage.in_place and not isinstance(value, ast.Call) and not _assigned_back(value, around):
        fault = "changes a tensor in place that has another name, too"
    elif isinstance(value, ast.Starred) or any(k.arg is None for k in named):
        fault = "gets its arguments from a list"
    elif any(isinstance(n, (ast.Call, ast.NamedExpr, ast.Await, ast.Yield))
             for part in [*rest, *(k.value for k in named)] for n in ast.walk(part)):  # fmt: skip
        fault = "has an argument that is a call of its own"
    if fault:
        raise SurgeryError(f"{call.words}, {fault}", "write x = torch.<name>(x)")


def _assigned_back(value: ast.expr, around: ast.AST | None) -> bool:
    """x = relu_(x): nobody else holds on to the old values by this name."""
    return (
        isinstance(around, ast.Assign)
        and len(around.targets) == 1
        and isinstance(value, ast.Name)
        and isinstance(around.targets[0], ast.Name)
        and around.targets[0].id == value.id
    )


def _method_with(owner: nn.Module, site: Site) -> tuple[str, FunctionType]:
    kind = inner_type(owner)
    for name in {n for c in kind.__mro__ for n, v in vars(c).items() if isinstance(v, FunctionType)}:
        running = inspect.getattr_static(kind, name)
        if isinstance(running, FunctionType) and is_code_of(running, site.code):
            return name, plain_method(kind, name)
    raise SurgeryError(
        f"line {site.line} ({site.code.co_name}) is not in a plain method of {kind.__name__}",
        "call it in forward itself",
    )
