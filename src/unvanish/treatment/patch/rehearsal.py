"""Running a script in this process as it would be after a patch, without writing a file: does it do the same?

For a child process: a script may do anything. The patch itself needs none of this.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from unvanish.errors import UnvanishError
from unvanish.schema.call import Batch
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply
from unvanish.treatment.patch.facts import Facts
from unvanish.treatment.patch.passes import backward_passes
from unvanish.treatment.patch.places import names_of_modules
from unvanish.treatment.patch.reading import read_facts
from unvanish.treatment.patch.record import Recorded, Recorder
from unvanish.treatment.recipe import Recipe, has_fingerprint
from unvanish.treatment.script_modules import room_for_modules_in


class _Enough(BaseException):
    """So many losses were seen."""


def record_script(
    script: Path, root: Path, *, arguments: Sequence[str] = (), seed: int = 0, by_hand: str | None = None
) -> Recorder:
    """Run a script until its first optimizer step, and give what was seen of it.

    `by_hand`: the fingerprint of the model that it updates by hand; then until its first backward pass.
    """
    recorder = Recorder(root, by_hand=by_hand)
    with recorder.at_work(), contextlib.suppress(Recorded, SystemExit):
        run_script(script, arguments=arguments, seed=seed)
    return recorder


def facts_of(script: Path, root: Path, recipe: Recipe | Sequence[Prescription], *, seed: int = 0) -> Facts:
    """What a patch of this script needs."""
    return read_facts(record_script(script, root, seed=seed), recipe)


def losses_patched(
    script: Path,
    root: Path,
    files: Mapping[str, bytes],
    *,
    steps: int,
    seed: int = 0,
    arguments: Sequence[str] = (),
    by_hand: bool = False,
) -> list[float]:
    """The first losses of the script as it would be after the patch (`files` by paths relative to `root`)."""
    texts = {os.path.realpath(root / path): raw for path, raw in files.items()}
    with _losses(steps, by_hand) as losses:
        run_script(script, arguments=arguments, seed=seed, texts=texts)
    return losses


def losses_treated(
    script: Path,
    prescriptions: Sequence[Prescription],
    mark: str,
    *,
    steps: int,
    seed: int = 0,
    arguments: Sequence[str] = (),
    by_hand: bool = False,
) -> list[float]:
    """The first losses of the unchanged script when its model (of fingerprint `mark`) is treated at its optimizer.

    `by_hand`: at its first training forward, as there is no optimizer.

    Raises:
        SurgeryError: it can't be treated.
    """
    surgeon = _Surgeon(tuple(prescriptions), mark, by_hand)
    with _losses(steps, by_hand) as losses, surgeon.at_work():
        run_script(script, arguments=arguments, seed=seed)
    if surgeon.error is not None:
        raise surgeon.error
    return losses


def run_script(
    script: Path, *, arguments: Sequence[str] = (), seed: int = 0, texts: Mapping[str, bytes] | None = None
) -> None:
    """Run a script as __main__, from other texts where there are some; what it raises comes out.

    Modules that it imports from its own folder are forgotten afterwards.
    """
    served = dict(texts or {})
    place = os.path.realpath(script)
    code = compile(served.get(place, script.read_bytes()), str(script), "exec", dont_inherit=True)
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=str(script), __builtins__=__builtins__)
    with (
        _process(place, arguments, served),
        room_for_modules_in(Path(place).parent),
        Path(os.devnull).open("w", encoding="utf-8") as nothing,
        contextlib.redirect_stdout(nothing),
    ):
        sys.modules["__main__"] = main
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # scripts use the global generator
        torch.manual_seed(seed)
        exec(code, main.__dict__)  # noqa: S102  # running the user's script is what this is for


class _Served(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports files of which there are other texts."""

    def __init__(self, texts: Mapping[str, bytes]) -> None:
        self._texts = texts

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None or os.path.realpath(spec.origin) not in self._texts:
            return None
        spec.loader = self
        return spec

    def exec_module(self, module: types.ModuleType) -> None:
        origin = str(module.__file__)
        text = self._texts[os.path.realpath(origin)]
        exec(compile(text, origin, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  # as python's own import


@contextlib.contextmanager
def _process(script: str, arguments: Sequence[str], texts: Mapping[str, bytes]) -> Iterator[None]:
    """argv, path, modules and torch's settings as a fresh python would have them; put back at the end."""
    main, argv, path, modules = sys.modules["__main__"], sys.argv, list(sys.path), set(sys.modules)
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    served = _Served(texts)
    folder = str(Path(script).parent)
    sys.argv = [script, *arguments]
    sys.path.insert(0, folder)
    sys.meta_path.insert(0, served)
    try:
        yield
    finally:
        sys.meta_path.remove(served)
        sys.modules["__main__"], sys.argv = main, argv
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and os.path.realpath(file).startswith(folder + os.sep):
                del sys.modules[name]
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)


@contextlib.contextmanager
def _losses(steps: int, by_hand: bool) -> Iterator[list[float]]:
    """Collect what `backward` is called on, and end the script after so many."""
    losses: list[float] = []

    def seen(tensor: torch.Tensor) -> None:
        if tensor.numel() == 1:
            losses.append(float(tensor.detach()))
        if len(losses) >= steps:
            raise _Enough

    with contextlib.suppress(_Enough, SystemExit), backward_passes(seen, by_hand):
        yield losses


class _Surgeon:
    """Treats the model of a fingerprint when its first optimizer is built, or else when it is first called."""

    def __init__(self, prescriptions: tuple[Prescription, ...], mark: str, by_hand: bool) -> None:
        self._prescriptions = prescriptions
        self._by_hand = by_hand
        self._mark = mark
        self._optimizers: list[Optimizer] = []
        self._model: nn.Module | None = None
        self.error: UnvanishError | None = None

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts, it waits for its moment."""
        init, call = Optimizer.__init__, nn.Module.__call__

        def built(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            init(optimizer, *args, **kwargs)
            self._built(optimizer, sys._getframe(1))

        def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self._model is None and torch.is_grad_enabled() and has_fingerprint(module, self._mark):
                self._treat(module, Batch(args=args, kwargs=dict(kwargs)))
            return call(module, *args, **kwargs)

        Optimizer.__init__ = built  # type: ignore[method-assign, assignment]
        nn.Module.__call__ = called  # type: ignore[method-assign]
        try:
            yield
        finally:
            Optimizer.__init__ = init  # type: ignore[method-assign]
            nn.Module.__call__ = call  # type: ignore[method-assign]

    def _built(self, optimizer: Optimizer, frame: types.FrameType | None) -> None:
        self._optimizers.append(optimizer)
        while self._model is None and frame is not None:
            for module in names_of_modules(frame).values():
                if has_fingerprint(module, self._mark) and _holds(optimizer, module):
                    self._treat(module, None)
                    return
            frame = frame.f_back
        if self._model is not None and _holds(optimizer, self._model):
            rates = [p for p in self._prescriptions if p.treatment == "learning_rate"]
            apply(self._model, rates, optimizer=optimizer)

    def _treat(self, model: nn.Module, batch: Batch | None) -> None:
        """Treat it now; what can only be read from a real batch waits for the first one."""
        holding = [o for o in self._optimizers if _holds(o, model)]
        try:
            apply(model, self._prescriptions, optimizer=holding, batch=batch, by_hand=self._by_hand)
            self._model = model
        except UnvanishError as error:
            if batch is not None:
                self.error = error
                raise _Enough from error


def _holds(optimizer: Optimizer, model: nn.Module) -> bool:
    own = {id(p) for p in model.parameters()}
    return any(id(p) in own for g in optimizer.param_groups for p in g["params"])
