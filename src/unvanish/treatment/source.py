"""The source of a method, as a syntax tree that is proved to be what runs; and the calls in it."""

from __future__ import annotations
import __future__

import ast
import copy
import functools
import inspect
from collections.abc import Collection, Iterator
from types import CellType, CodeType, FunctionType
from typing import Any, cast

from unvanish.errors import SurgeryError
from unvanish.treatment.tracing import Site

_FUTURES = functools.reduce(
    int.__or__, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)


class Method:
    """A function with its syntax tree; positions are those of the file."""

    def __init__(self, function: FunctionType) -> None:
        """Read the source, and prove that compiling it gives the very code that runs.

        Raises:
            SurgeryError: there is no source at hand, or it is not that of the running code.
        """
        self.function = function
        self._flags = function.__code__.co_flags & _FUTURES
        file = _file_tree(function)
        self._imports = list(_module_imports(file))
        self._tree = _definition(function, file)
        if not _same(self._compile(self._tree, ()), function.__code__):
            raise SurgeryError(
                f"the source of {function.__qualname__} is not what runs (a decorator, or the file has changed)",
                "make the change in the source",
            )
        self._parents = {child: node for node in ast.walk(self._tree) for child in ast.iter_child_nodes(node)}

    def call_at(self, site: Site, names: Collection[str], part: str | None = None) -> ast.Call:
        """The call expression at a site: of a function of one of these names, or of a module with last name `part`.

        Pythons that know the line alone find it by name there, and not at all where that is not certain.

        Raises:
            SurgeryError: there is none, or several.
        """
        calls = [node for node in ast.walk(self._tree) if isinstance(node, ast.Call)]
        if site.end_column is not None:
            found = [c for c in calls if (c.end_lineno, c.end_col_offset) == (site.end_line, site.end_column)]
        else:
            here = [c for c in calls if c.lineno == site.line]
            functions = [c for c in here if _last_name(c.func) in names]
            named = [c for c in here if _last_name(c.func) == part]
            others = [c for c in here if c not in functions]  # a module of a list is called by another name
            found = functions if part is None else named or others
        if not found:
            raise SurgeryError(
                f"the call in line {site.line} is not written in {self.function.__qualname__} itself",
                "call it in forward itself",
            )
        if len(found) > 1:
            raise SurgeryError(
                f"line {site.line} of {self.function.__qualname__} can't be told apart into its calls",
                "write one call to a line",
            )
        return found[0]

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node around this one."""
        return self._parents.get(node)

    def scope(self, node: ast.AST) -> ast.AST:
        """The innermost function (lambda, comprehension) around a node."""
        scopes = (
            ast.FunctionDef,
            ast.AsyncFunctionDef,
            ast.Lambda,
            ast.ListComp,
            ast.SetComp,
            ast.DictComp,
            ast.GeneratorExp,
        )
        around = self.parent(node)
        while around is not None and not isinstance(around, scopes):
            around = self.parent(around)
        return self._tree if around is None else around

    def method_style(self, call: ast.Call) -> bool:
        """Whether the value comes before the dot (x.relu()), and not as an argument (torch.relu(x)).

        Raises:
            SurgeryError: that can't be told.
        """
        if not isinstance(call.func, ast.Attribute):
            return False
        base = call.func.value
        while isinstance(base, ast.Attribute):
            base = base.value
        if isinstance(base, ast.Name) and base.id == self._own_name:
            return False  # self.act(x); a tensor kept on self would be x.relu() of a parameter, no activation
        if isinstance(base, ast.Name) and self._is_outside(base.id):
            return False
        if call.args or any(k.arg in ("input", "x", "tensor") for k in call.keywords):
            raise SurgeryError(
                f"what {ast.unparse(call.func)} is in {self.function.__qualname__} can't be told",
                "write torch.<name>(x)",
            )
        return True

    def rewritten(self, editor: ast.NodeTransformer, helpers: dict[str, Any]) -> FunctionType:
        """The function with an edited tree, in which the names of `helpers` stand for these values."""
        tree = ast.fix_missing_locations(editor.visit(copy.deepcopy(self._tree)))
        code = self._compile(tree, tuple(helpers))
        old = self.function
        cells = dict(zip(old.__code__.co_freevars, old.__closure__ or (), strict=True))
        cells.update({name: CellType(value) for name, value in helpers.items()})
        closure = tuple(cells[name] for name in code.co_freevars)
        made = FunctionType(code, old.__globals__, old.__name__, old.__defaults__, closure)
        functools.update_wrapper(made, old)
        del made.__dict__["__wrapped__"]
        made.__kwdefaults__ = old.__kwdefaults__
        return made

    @property
    def _own_name(self) -> str:
        names = self.function.__code__.co_varnames
        return names[0] if self.function.__code__.co_argcount else ""

    def _is_outside(self, name: str) -> bool:
        """A global or enclosing name, such as torch or F: no value that flows."""
        code = self.function.__code__
        return name not in code.co_varnames and name not in code.co_cellvars

    def _compile(self, tree: ast.FunctionDef, helpers: tuple[str, ...]) -> CodeType:
        """Compile a definition with the names it closes over, inside of a class: private names depend on it."""
        old = self.function
        bare = copy.copy(tree)
        bare.decorator_list = []
        names = [ast.arg(arg=name) for name in (*old.__code__.co_freevars, *helpers)]
        nothing = ast.arguments(posonlyargs=[], args=names, kwonlyargs=[], kw_defaults=[], defaults=[])
        around = ast.parse("def around(): pass\nclass Around: pass").body
        factory, owner = cast(ast.FunctionDef, around[0]), cast(ast.ClassDef, around[1])
        factory.args, factory.body = nothing, [bare]
        owner.body, owner.name = [factory], _class_name(old)
        # the compiler calls functions of imported modules in another way than methods, so the imports come along
        module = ast.fix_missing_locations(ast.Module(body=[*self._imports, owner], type_ignores=[]))
        code = compile(module, old.__code__.co_filename, "exec", flags=self._flags, dont_inherit=True)
        for _ in ("class", "factory", "method"):
            code = next(c for c in code.co_consts if isinstance(c, CodeType))
        name = getattr(old.__code__, "co_qualname", None)  # since Python 3.11
        made: CodeType = code if name is None else code.replace(co_qualname=name)
        return made


def is_code_of(function: FunctionType, code: CodeType) -> bool:
    """Whether this code is the function's (torch.fx runs a copy of it where there are *args)."""
    own = function.__code__
    return own is code or (own.co_firstlineno == code.co_firstlineno and own.co_code == code.co_code)


def _file_tree(function: FunctionType) -> ast.Module:
    try:
        lines, _ = inspect.findsource(function.__code__)
        return ast.parse("".join(lines))
    except (OSError, SyntaxError, ValueError, IndexError, TypeError) as error:
        raise SurgeryError(
            f"the source of {function.__qualname__} is not at hand", "write the model in a file"
        ) from error


def _module_imports(tree: ast.AST) -> Iterator[ast.stmt]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "__future__":
            yield node
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from _module_imports(node)


def _definition(function: FunctionType, file: ast.Module) -> ast.FunctionDef:
    code = function.__code__
    for node in ast.walk(file):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first == code.co_firstlineno:
                return node
    raise SurgeryError(f"the source of {function.__qualname__} has changed", "start the script anew")


def _same(a: CodeType, b: CodeType) -> bool:
    """Whether two code objects do the same, wherever their lines are."""
    parts = (
        "co_code",
        "co_names",
        "co_varnames",
        "co_freevars",
        "co_cellvars",
        "co_argcount",
        "co_kwonlyargcount",
    )
    if any(getattr(a, part) != getattr(b, part) for part in parts) or len(a.co_consts) != len(b.co_consts):
        return False
    return all(
        _same(x, y) if isinstance(x, CodeType) and isinstance(y, CodeType) else type(x) is type(y) and x == y
        for x, y in zip(a.co_consts, b.co_consts, strict=True)
    )


def _class_name(function: FunctionType) -> str:
    parts = function.__qualname__.split(".")
    return parts[-2] if len(parts) > 1 and parts[-2].isidentifier() else "Around"


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
