"""Keep functions of ours out of what dynamo compiles, at next to no cost where nothing is compiled.

torch's own way (torch._dynamo.disable) takes some ten microseconds a call, which is one per cent of a short step
when four hooks do it. Here it is taken only while dynamo is at work in this thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._C._dynamo import eval_frame

F = TypeVar("F", bound=Callable[..., Any])
_callback = getattr(eval_frame, "get_eval_frame_callback", None)
_set_strategy = getattr(eval_frame, "set_code_exec_strategy", None)


def hidden(function: F) -> F:
    """`function`, which dynamo neither compiles nor looks into."""
    disabled: Any = torch._disable_dynamo(function)  # type: ignore[attr-defined]
    if _callback is None or _set_strategy is None:  # another torch than those that this was written for
        return disabled  # type: ignore[no-any-return]
    at_work = _callback

    def inner(*args: Any, **kwargs: Any) -> Any:
        if at_work() is None:
            return function(*args, **kwargs)
        return disabled(*args, **kwargs)

    frames = eval_frame._FrameAction
    _set_strategy(inner.__code__, eval_frame._FrameExecStrategy(frames.SKIP, frames.DEFAULT))
    inner._torchdynamo_disable = True  # type: ignore[attr-defined]  # dynamo meets it as a call: no look inside
    functools.update_wrapper(inner, function)
    return inner  # type: ignore[return-value]
