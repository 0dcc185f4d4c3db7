"""FILE.py:NAME: a callable that builds a model, with or without a batch and a loss function."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from unvanish.errors import ScriptError
from unvanish.precheck.batch import as_call, example_for
from unvanish.precheck.check import Subject
from unvanish.probe.discover import unwrap
from unvanish.probe.once import describe_model

_MEND = "return a model, (model, batch) or (model, batch, loss_fn)"


def subject_from(path: str, name: str, seed: int) -> Subject:
    """Import the file, call the factory, and read what it gives.

    Raises:
        ScriptError: no such file or name, or what it gives is no model. UsageError: its batch can't be read.
    """
    factory = _find(_imported(path), path, name)
    try:
        made = factory()
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ScriptError(
            f"{name}() failed ({said[:300]})", "a factory is called without arguments"
        ) from error
    model, batch, loss_fn = _taken_apart(made, name)
    inner = unwrap(model)
    if batch is None:
        call, loss = example_for(inner, seed), None
    else:
        call, loss = as_call(inner, batch, loss_fn)
    return Subject(model=inner, batch=call, loss=loss, info=describe_model(inner, name))


def _imported(path: str) -> ModuleType:
    file = Path(path).absolute()
    if not file.exists():
        raise ScriptError(f"there is no file {path}", "the form is FILE.py:NAME; check the path")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ScriptError(f"{path} is no python file", "name the file that holds the factory")
    module = importlib.util.module_from_spec(spec)
    with _beside(str(file.parent)):
        sys.modules.setdefault(file.stem, module)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ScriptError(
                f"{path} can't be imported ({said[:300]})", f"see whether `python {path}` runs"
            ) from error
    return module


@contextlib.contextmanager
def _beside(folder: str) -> Iterator[None]:
    """Files beside the factory's are found, as when it is run."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _find(module: ModuleType, path: str, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            there = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            near = difflib.get_close_matches(name, there, n=1)
            mend = (
                f"did you mean {near[0]}?"
                if near
                else f"it defines {', '.join(there[:8]) or 'nothing to call'}"
            )
            raise ScriptError(f"there is no {name} in {path}", mend)
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        return lambda: found
    if not callable(found):
        raise ScriptError(f"{name} in {path} is a {type(found).__name__}, not something to call", _MEND)
    return found


def _taken_apart(made: Any, name: str) -> tuple[nn.Module, Any, Any]:
    parts = tuple(made) if isinstance(made, tuple | list) else (made,)
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], nn.Module):
        what = ", ".join(type(p).__name__ for p in parts[:4]) or "nothing"
        raise ScriptError(f"{name}() gives {what}, not a model", _MEND)
    model, batch, loss_fn = (*parts, None, None)[:3]
    if loss_fn is not None and not callable(loss_fn):
        raise ScriptError(
            f"{name}() gives a {type(loss_fn).__name__} where the loss function should be",
            "return (model, (inputs, targets), loss_fn)",
        )
    return model, batch, loss_fn
