"""Running the user's forward once more than the script does, without leaving a trace of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def undisturbed(root: nn.Module) -> Iterator[None]:
    """Put buffers and plain attributes of all modules back at the end, lists and dicts with what was in them.

    What forward prints is not shown. The caller guards the random state.
    """
    buffers = [(b, b.clone()) for b in root.buffers()]
    restore = [_restorer(module.__dict__) for module in root.modules()]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
        for step in restore:
            step()


def _restorer(own: dict[str, Any]) -> Callable[[], None]:
    before = {name: value for name, value in own.items() if not name.startswith("_")}
    contents = [(v, v.copy()) for v in before.values() if type(v) in (list, dict, set)]

    def restore() -> None:
        for name in [n for n in own if not n.startswith("_") and n not in before]:
            del own[name]
        own.update(before)
        for held, was in contents:
            if type(held) is list:
                held[:] = was
            else:
                held.clear()
                held.update(was)

    return restore
