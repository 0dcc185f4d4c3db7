"""Which engine: by its name, with as many workers as the machine bears."""

from __future__ import annotations

import importlib
import os
from contextlib import AbstractContextManager

import torch

from unvanish.errors import UsageError
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.trial import Engine

ENGINES = ("local", "ray")


def engine_named(name: str, runner: str) -> AbstractContextManager[Engine]:
    """The engine of this name. Local: a trial for each core; one at a time where there is a GPU to share.

    Raises:
        UsageError: there is none of this name, or what it needs is not installed.
    """
    if name == "local":
        return LocalEngine(1 if torch.cuda.is_available() else os.cpu_count() or 1, runner)
    if name == "ray":  # an extra: not imported where nobody asks for it
        made: AbstractContextManager[Engine] = importlib.import_module(
            "unvanish.verify.engines.ray"
        ).RayEngine(runner)
        return made
    raise UsageError(f"there is no engine {name!r}", f"choose from {', '.join(ENGINES)}")
