"""One symbolic trace of a model (torch.fx) that remembers from which expression of the source each call came."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import itertools
import linecache
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import fx, nn

from unvanish.treatment.blocks import Joined, Preceded
from unvanish.treatment.dressing import inner_type
from unvanish.treatment.structures import map_tensors

_SITE = "unvanish.site"
_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_FACTORIES = (torch.zeros, torch.ones, torch.empty, torch.full, torch.rand, torch.randn, torch.arange)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The expression of a call: in a method (`code`) of the module at path `owner`, at this place of the file.

    `instruction` tells calls on one line apart; columns are None where the interpreter keeps none (Python 3.10).
    """

    owner: str
    code: CodeType
    instruction: int
    line: int
    end_line: int | None = None
    end_column: int | None = None


class _Tracer(fx.Tracer):
    """A tracer that runs no hooks: the watching hooks must not see symbolic values."""

    def __init__(self, is_leaf: Callable[[nn.Module], bool]) -> None:
        """`is_leaf` says which modules are not looked into, beside torch's own."""
        super().__init__(autowrap_functions=_FACTORIES)  # their sizes may be symbolic: torch.zeros(len(x), 8)
        self._is_leaf = is_leaf
        search = getattr(self, "_autowrap_search", None)
        if isinstance(search, list):
            search.append(torch)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._is_leaf(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],  # noqa: ARG002  # fx's own, which would run the hooks
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return super().call_module(m, m.forward, args, kwargs)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Arguments that scripts may leave out are left out: a mask that is symbolic is a mask that is not None."""
        fn, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        for place, parameter in enumerate(inspect.signature(root_fn).parameters.values()):
            given = parameter.kind in kinds and parameter.default is not inspect.Parameter.empty
            if given and place < len(args):
                args[place] = parameter.default
        return fn, args

    def to_bool(self, obj: fx.Proxy) -> bool:
        """What is asserted holds: an assertion is no branch."""
        frame = _users_frame()
        line = "" if frame is None else linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        return True if line.lstrip().startswith(("assert ", "assert(")) else super().to_bool(obj)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, *args, **kwargs)
        if kind.startswith("call_"):
            set_site(node, self._site(node))
        return node

    def _site(self, node: fx.Node) -> Site | None:
        stack = [entry[0] for entry in node.meta.get("nn_module_stack", {}).values()]
        inside = [p for p in stack if not (node.op == "call_module" and p == node.target)]
        return running_site(self.root, inside, self.submodule_paths or {})


def running_site(root: nn.Module, inside: Sequence[str], paths: Mapping[nn.Module, str]) -> Site | None:
    """The user's expression that is running, None where it is not the innermost module's own code.

    `inside` are the paths of the modules whose forward is running, the innermost last.
    """
    running = list(inside)
    while running and isinstance(root.get_submodule(running[-1]), (Joined, Preceded)):
        running.pop()  # it stands in the place of a module that the script calls
    frame = _users_frame()
    if frame is None:
        return None
    path = running[-1] if running else ""
    method: FrameType | None = frame
    while method is not None and method.f_code.co_name.startswith("<"):  # a lambda, a comprehension
        method = method.f_back
    if method is None or method.f_code.co_filename != frame.f_code.co_filename:
        return None
    held = (v for f in (frame, method) for v in f.f_locals.values() if isinstance(v, nn.Module))
    if not any(paths.get(module) == path for module in held):
        return None
    line, end_line, end_column = _position(frame)
    return Site(
        owner=path,
        code=method.f_code,
        instruction=frame.f_lasti,
        line=line,
        end_line=end_line,
        end_column=end_column,
    )


def trace(root: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> fx.Graph | None:
    """Trace the model symbolically; None where that can't be done (control flow on data, say)."""
    try:
        # a copy that shares the tensors: what forward writes on self must not reach the user's model
        shared: dict[int, Any] = {id(t): t for t in [*root.parameters(), *root.buffers()]}
        for (
            module
        ) in root.modules():  # what a forward has left on self (an attention map) may refuse to be copied
            kept = [v for v in module.__dict__.values() if isinstance(v, (torch.Tensor, list, tuple))]
            map_tensors(kept, lambda t: shared.setdefault(id(t), t))
        twin = copy.deepcopy(root, shared)
        for module in twin.modules():
            object.__setattr__(module, "__class__", inner_type(module))
        with contextlib.redirect_stdout(io.StringIO()):  # a forward that prints would print symbols
            return _Tracer(is_leaf).trace(twin)
    except Exception:  # noqa: BLE001  # the user's forward may raise anything on symbolic values
        return None


def set_site(node: fx.Node, site: Site | None) -> None:
    """Note where in the user's source a call was made."""
    node.meta[_SITE] = site


def site_of(node: fx.Node) -> Site | None:
    """Where in the user's source this call was made, None where that is not known."""
    found = node.meta.get(_SITE)
    return found if isinstance(found, Site) else None


def _users_frame() -> FrameType | None:
    """The innermost frame that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    return frame


def _position(frame: FrameType) -> tuple[int, int | None, int | None]:
    positions = getattr(frame.f_code, "co_positions", None)
    if positions is None:
        return frame.f_lineno, None, None
    place = next(itertools.islice(positions(), frame.f_lasti // 2, None), (None,) * 4)
    return frame.f_lineno, place[1], place[3]
