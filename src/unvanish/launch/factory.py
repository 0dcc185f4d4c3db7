"""``FILE.py:FACTORY``: a function of the user's that builds a model, and perhaps a batch and a loss."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unvanish.errors import UsageError
from unvanish.launch.target import FACTORY
from unvanish.probe.example import example_input

_WANTED = "return (model, batch, loss_fn), (model, batch) or the model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a factory gave. `loss_fn` None: the gradient of a random direction at the output is taken."""

    model: nn.Module
    batch: Any
    loss_fn: Callable[..., Any] | None


def load_factory(spec: str) -> Built:
    """Import the file as a module (not as ``__main__``), call the function, and check what it gives.

    Raises:
        UsageError: no such file or function, it raised, or it gave something else.
    """
    match = FACTORY.match(spec)
    if match is None:
        raise UsageError(
            f"{spec!r} is not FILE.py:FACTORY", "name a function in a file, such as nets.py:build"
        )
    path, name = Path(match["file"]), match["name"]
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "check the path before the colon")
    with _beside(path):
        factory = _function(_module(path), path, name)
        return _built(_called(factory, spec), spec)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[None]:
    """As for a script, what lies beside the file can be imported."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _module(path: Path) -> Any:
    name = f"{path.stem}_of_unvanish_{os.getpid()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} can't be imported", "name a python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(
            f"{path} could not be imported: {_said(error)}",
            'what trains belongs under if __name__ == "__main__":, the factory is called by itself',
        ) from error
    return module


def _function(module: Any, path: Path, name: str) -> Callable[[], Any]:
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, nn.Module):  # a model is callable, too, but that is not meant
        return lambda: found
    if callable(found):
        return found  # type: ignore[no-any-return]
    if found is not None:
        raise UsageError(
            f"{name} in {path} is of type {type(found).__name__}, not something to call", _WANTED
        )
    there = [
        n
        for n, v in vars(module).items()
        if callable(v) and getattr(v, "__module__", None) == module.__name__
    ]
    near = difflib.get_close_matches(name, there, n=1)
    mend = f"did you mean {near[0]}?" if near else f"functions there: {', '.join(there[:8]) or 'none'}"
    raise UsageError(f"{path} has no function {name!r}", mend)


def _called(factory: Any, spec: str) -> Any:
    needed: list[str] = []
    with contextlib.suppress(TypeError, ValueError):
        kinds = (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
        needed = [
            p.name
            for p in inspect.signature(factory).parameters.values()
            if p.default is p.empty and p.kind in kinds
        ]
    if needed:
        raise UsageError(
            f"{spec} can't be called without arguments (it wants {', '.join(needed)})",
            "give them defaults, or write a function without arguments that calls it",
        )
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{spec} raised {_said(error)}", "call it by itself first: it has to run without training"
        ) from error


def _built(given: Any, spec: str) -> Built:
    parts = given if isinstance(given, tuple | list) else (given,)
    if not parts or len(parts) > 3 or not isinstance(parts[0], nn.Module):
        what = type(parts[0]).__name__ if isinstance(given, tuple | list) and parts else type(given).__name__
        place = "its first value" if isinstance(given, tuple | list) else "it"
        said = (
            f"{spec} gave {len(parts)} values"
            if len(parts) > 3
            else f"{spec}: {place} is of type {what}, not an nn.Module"
        )
        raise UsageError(said, _WANTED)
    model = parts[0]
    loss_fn = parts[2] if len(parts) == 3 else None
    if loss_fn is not None and not callable(loss_fn):
        raise UsageError(
            f"{spec}: the loss is of type {type(loss_fn).__name__}, not a function", "return it as loss_fn"
        )
    if not any(True for _ in model.parameters()):
        raise UsageError(f"{spec}: the model has no parameters", "there is nothing to train in it")
    batch = parts[1] if len(parts) > 1 else example_input(model)
    return Built(model=model, batch=batch, loss_fn=loss_fn)


def _said(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
