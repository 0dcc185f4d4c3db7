"""A model that is treated in the middle of its own call, as by a forward pre-hook: the call takes the new forward.

torch looks up `forward` before it runs the hooks, so that this one call would still run the old one. That function
object is borrowed for a moment: its first call gives it its own code back, and goes to the new forward.
"""

from __future__ import annotations

import sys
import warnings
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.treatment.journal import Step

_NAME = "_unvanish_redirected"


def redirect_running_call(module: nn.Module) -> Step:
    """If a call of this module has begun, have it run type(module).forward as it is now; returns the way back.

    Raises:
        SurgeryError: its forward is no python function.
    """
    frame = _call_of(module)
    if frame is None:
        return _nothing
    begun = frame.f_locals.get("forward_call", module.forward)
    function = begun.__func__ if isinstance(begun, MethodType) else begun
    if not isinstance(function, FunctionType):
        raise SurgeryError(
            "the forward that is running is no python function", "treat the model before its first call"
        )
    if function.__code__.co_name == _NAME:  # by an earlier edit of the same treatment
        return _nothing
    own = function.__code__

    def give_back() -> None:
        if function.__code__.co_name == _NAME:
            function.__code__ = own

    def relay(*args: Any, **kwargs: Any) -> Any:
        give_back()
        if args and args[0] is module:
            return type(module).forward(*args, **kwargs)
        return function(*args, **kwargs)  # another object of the class was called first

    function.__code__ = _code_that_calls(relay, own.co_freevars)
    return give_back


def _call_of(module: nn.Module) -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    code = nn.Module._call_impl.__code__
    while frame is not None:
        if frame.f_code is code and frame.f_locals.get("self") is module:
            return frame
        frame = frame.f_back
    return None


def _code_that_calls(target: Any, free: tuple[str, ...]) -> CodeType:
    """The code of a function that hands all it gets to `target`; it closes over as many cells as are asked for."""
    cells = ", ".join(f"cell_{place}" for place in range(len(free)))
    source = (
        f"def outer({cells}):\n"
        f"    def {_NAME}(*args, **kwargs):\n"
        f"        [{cells}]\n"
        f"        return '{_NAME}'(*args, **kwargs)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a text can't be called: it is the place of the target
        outer = compile(source, __file__, "exec").co_consts[0]
    inner = next(c for c in outer.co_consts if isinstance(c, CodeType))
    return inner.replace(co_consts=tuple(target if c == _NAME else c for c in inner.co_consts))


def _nothing() -> None:
    """No call was redirected."""
