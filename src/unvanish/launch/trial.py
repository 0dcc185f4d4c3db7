"""One trial: a user's script, untouched, in this process, with a treatment put in before its first training step."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as nn_module

from unvanish.errors import UnvanishError
from unvanish.explanation.gains import measured_gain_per_layer, predicted_gain_per_layer
from unvanish.probe.buffer import Buffer
from unvanish.probe.engine import Probe, StopTraining
from unvanish.schema.assemble import assemble
from unvanish.schema.call import Batch
from unvanish.schema.run import Event, ModelRun
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import Undo, apply
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec


def run_trial(spec: TrialSpec) -> TrialOutcome:
    """Run one trial to its end. What goes wrong, in the script or in the surgery, is an outcome with an error.

    The script's own seeds are shifted by `spec.seed` (0 = as it is), so that a script that seeds itself gives
    different weights and another data order for each seed, and the same ones for every candidate.
    """
    began = time.monotonic()
    events: list[Event] = []
    buffer = Buffer(events.extend)
    probe = Probe(buffer, stop_after=spec.steps, traces=2 if spec.trace else 0, parameters=False)
    surgeon = _Surgeon(spec.prescriptions, spec.seed)
    error: str | None = None
    with _process_state(), _shifted_seeds(spec.seed), surgeon.at_work(spec.learning_rate_factor):
        probe.attach()
        try:
            error = _run(spec.target)
        finally:
            probe.detach()
            buffer.flush()
    outcome = _outcome(spec, assemble(events), surgeon, error or surgeon.error)
    surgeon.forget()
    gc.collect()
    return TrialOutcome(**{**outcome, "wall_seconds": time.monotonic() - began})


def _outcome(
    spec: TrialSpec, models: tuple[ModelRun, ...], surgeon: _Surgeon, error: str | None
) -> dict[str, Any]:
    model = max(models, key=lambda m: sum(p.numel for p in m.info.parameters), default=None)
    if error is None and (model is None or not len(model.losses)):
        error = "the script made no optimizer step"
    if model is None or error is not None:
        return {"spec": spec, "error": error}
    chances = [t.chance for t in model.traces if t.chance is not None]
    return {
        "spec": spec,
        "losses": tuple(model.losses),
        "measured_gain": measured_gain_per_layer(model) if spec.trace else None,
        "predicted_gain": predicted_gain_per_layer(model) if spec.trace else None,
        "depth": len(model.architecture) or None,
        "learning_rate": surgeon.learning_rate,
        "chance": chances[-1] if chances else None,
    }


def _run(target: Target) -> str | None:
    """Run the script; its output is not shown. The error in one line, or None."""
    os.chdir(target.directory)
    folder = target.directory if target.is_module else str(Path(target.program).absolute().parent)
    sys.argv = [target.program, *target.arguments]
    sys.path.insert(0, folder)
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            if target.is_module:
                runpy.run_module(target.program, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(target.program, run_name="__main__")
    except StopTraining:
        return None
    except SystemExit as end:
        return None if end.code in (None, 0) else f"the script ended with exit code {end.code}"
    except Exception as failure:  # noqa: BLE001 - whatever the script raises is the outcome
        return f"{type(failure).__name__}: {failure}"
    return None


class _Surgeon:
    """Puts the treatment in at the first training forward of a module whose parameters an optimizer holds.

    At that moment the optimizer exists (its groups are remapped), the batch is at hand (for inits that look at
    data), and nothing was trained. The global random state is the same before and after.
    """

    def __init__(self, prescriptions: tuple[Prescription, ...], seed: int) -> None:
        """Nothing is done before `at_work`."""
        self._prescriptions = prescriptions
        self._seed = seed
        self._optimizers: list[torch.optim.Optimizer] = []
        self._undo: Undo | None = None
        self._done = False
        self.error: str | None = None
        self.learning_rate: float | None = None

    @contextlib.contextmanager
    def at_work(self, factor: float) -> Iterator[None]:
        """While this lasts, optimizers get `factor` times their rate, and the treatment waits for its moment."""
        original = torch.optim.Optimizer.__init__

        def scaled(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            for group in optimizer.param_groups:
                if "lr" in group:
                    group["lr"] = group["lr"] * factor
            self._optimizers.append(optimizer)
            if self.learning_rate is None and optimizer.param_groups:
                self.learning_rate = float(optimizer.param_groups[0].get("lr", float("nan")))

        handle = nn_module.register_module_forward_pre_hook(self._before_forward)
        torch.optim.Optimizer.__init__ = scaled  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.optim.Optimizer.__init__ = original  # type: ignore[method-assign]
            handle.remove()

    def forget(self) -> None:
        """Let go of the script's objects."""
        self._optimizers = []
        self._undo = None

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        if self._done or not self._prescriptions or not torch.is_grad_enabled():
            return
        own = {id(p) for p in module.parameters()}
        holding = [
            o for o in self._optimizers if any(id(p) in own for g in o.param_groups for p in g["params"])
        ]
        if not own or not holding:
            return
        self._done = True
        try:
            batch = Batch(args=tuple(args)) if isinstance(args, tuple) else None
            self._undo = apply(module, self._prescriptions, optimizer=holding, batch=batch, seed=self._seed)
        except UnvanishError as error:
            self.error = str(error)
            raise StopTraining from None


@contextlib.contextmanager
def _process_state() -> Iterator[None]:
    """What a script may change of its process, put back for the next trial."""
    main, argv, path, cwd = sys.modules["__main__"], sys.argv, list(sys.path), Path.cwd()
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    # the same start whatever ran before in this process, for scripts that seed nothing
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - scripts use the global generator
    torch.manual_seed(0)
    try:
        yield
    finally:
        sys.modules["__main__"], sys.argv = main, argv
        sys.path[:] = path
        os.chdir(cwd)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.use_deterministic_algorithms(deterministic)


@contextlib.contextmanager
def _shifted_seeds(shift: int) -> Iterator[None]:
    """Add `shift` to every seed that the script sets; shift the unseeded start as well."""
    places: list[tuple[Any, str]] = [
        (torch, "manual_seed"),
        (torch.random, "manual_seed"),
        (np.random, "seed"),
        (random, "seed"),
    ]
    originals = [getattr(owner, name) for owner, name in places]

    def shifted(original: Callable[..., Any]) -> Callable[..., Any]:
        def seed(value: Any = None, *args: Any, **kwargs: Any) -> Any:
            moved = (value + shift) % 2**32 if isinstance(value, int) else value
            return original(moved, *args, **kwargs)

        return seed

    for original in (torch.manual_seed, np.random.seed, random.seed):
        original(shift)
    for (owner, name), original in zip(places, originals, strict=True):
        setattr(owner, name, shifted(original))
    try:
        yield
    finally:
        for (owner, name), original in zip(places, originals, strict=True):
            setattr(owner, name, original)
