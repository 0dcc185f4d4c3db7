"""One trial: a user's script, untouched, in this process, with a treatment put in when it builds its optimizer."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from unvanish.errors import UnvanishError
from unvanish.explanation.gains import measured_gain_per_layer, predicted_gain_per_layer
from unvanish.launch.by_hand import surgeon_class
from unvanish.launch.held_out import HeldOut
from unvanish.launch.isolation import folders_of, isolated
from unvanish.launch.seeds import shifted_seeds
from unvanish.launch.surgeon import Surgeon
from unvanish.launch.tail import Tail, quiet
from unvanish.present.signal import signal_map
from unvanish.probe.buffer import Buffer
from unvanish.probe.engine import Probe, StopTraining
from unvanish.schema.assemble import assemble
from unvanish.schema.run import Event, ModelRun
from unvanish.schema.treatment import TrialMap
from unvanish.treatment.script_modules import room_for_modules_in
from unvanish.verify.trial import LAST, Target, TrialOutcome, TrialSpec, diverged, fallen_below

MAP_TRACES = 32  # of a trial whose map is kept: log-spaced, enough for 100,000 steps
LONGEST_WAIT = 50  # times a trial's steps: what else the script may train before the model that is meant
MAP_ROWS = 2000  # a map of more layers is not kept

NEVER = "the script never built an optimizer for the model that was to be treated"
IDLE = (
    "the treated model takes no part in the training: no gradient came to it (a copy beside the one that is trained,"
    " or master weights that the script keeps by hand)"
)


def run_trial(spec: TrialSpec) -> TrialOutcome:
    """Run one trial to its end. What goes wrong, in the script or in the surgery, is an outcome with an error.

    The script's own seeds are shifted by `spec.seed` (0 = as it is), so that a script that seeds itself gives
    different weights and another data order for each seed, and the same ones for every candidate.
    """
    began = time.monotonic()
    events: list[Event] = []
    buffer = Buffer(events.extend)
    traces = (MAP_TRACES if spec.draw else 2) if spec.trace else 0
    probe = Probe(buffer, traces=traces, parameters=False, by_hand=spec.by_hand)
    held_out = HeldOut(lambda: probe.steps)
    faults: list[str] = []

    def on_fault(error: UnvanishError) -> None:
        faults.append(str(error))
        raise StopTraining

    surgeon = surgeon_class(by_hand=spec.by_hand, loose=spec.loose)(
        spec.prescriptions,
        mark=spec.mark,
        rate_factor=spec.learning_rate_factor,
        patient=True,
        on_fault=on_fault,
    )
    error: str | None = None
    with (
        _process_state(spec.target),
        room_for_modules_in(Path(_folder_of(spec.target))),
        shifted_seeds(spec.seed),
        held_out.watched(),
        surgeon.at_work(),
    ):
        probe.attach()
        try:
            with _ends_early(spec, probe, buffer, events):
                error = _run(spec.target)
        finally:
            probe.detach()
            buffer.flush()
    error = next(iter(faults), None if error is None else surgeon.explained(error))
    if error is None and not surgeon.done:
        error = f"the script {surgeon.never}" if spec.by_hand else NEVER
    if error is None and surgeon.idle:
        error = IDLE
    if error is None:
        error = surgeon.fault
    outcome = _outcome(spec, assemble(events), surgeon, error)
    surgeon.forget()
    gc.collect()
    return TrialOutcome(**{**outcome, "held_out": held_out.losses, "wall_seconds": time.monotonic() - began})


def run_isolated_trial(spec: TrialSpec) -> TrialOutcome:
    """Run one trial in a process that ends with it: what the script writes it alone can see, and then it is gone."""
    target = spec.target
    folders = folders_of(
        target.program, target.directory, is_module=target.is_module, arguments=target.arguments
    )
    with isolated(folders):
        return run_trial(spec)


def _outcome(
    spec: TrialSpec, models: tuple[ModelRun, ...], surgeon: Surgeon, error: str | None
) -> dict[str, Any]:
    model = _meant(spec, models)
    if error is None and (model is None or not len(model.losses)):
        error = "the script made no optimizer step"
    if model is None or error is not None:
        return {"spec": spec, "error": error}
    chances = [t.chance for t in model.traces if t.chance is not None]
    return {
        "spec": spec,
        "losses": tuple(model.losses)[: spec.steps],
        "measured_gain": measured_gain_per_layer(model) if spec.trace else None,
        "predicted_gain": predicted_gain_per_layer(model) if spec.trace else None,
        "depth": len(model.architecture) or None,
        "learning_rate": surgeon.learning_rate,
        "chance": chances[-1] if chances else None,
        "signal": _drawn(model) if spec.draw else None,
    }


def _drawn(model: ModelRun) -> TrialMap | None:
    """The map of the signal, small enough to be kept with the result; None where nothing was traced."""
    seen = signal_map(model)
    if not 0 < len(seen["rows"]) <= MAP_ROWS:
        return None
    return TrialMap(
        rows=tuple(seen["rows"]),
        steps=tuple(seen["steps"]),
        cells=tuple(map(tuple, seen["cells"])),
        gauge_free=seen["gauge_free"],
    )


def _meant(spec: TrialSpec, models: tuple[ModelRun, ...]) -> ModelRun | None:
    """The model that the trial is about: by its name in the script, else the largest."""
    named = [m for m in models if m.info.name == spec.model]
    return max(named or models, key=lambda m: sum(p.numel for p in m.info.parameters), default=None)


@contextlib.contextmanager
def _ends_early(spec: TrialSpec, probe: Probe, buffer: Buffer, events: list[Event]) -> Iterator[None]:
    """End the script after so many steps of the model that is meant, whatever else it trains before and beside it.

    Sooner at a loss that is lost, and, where that is all that is asked, at one that has clearly fallen.
    """
    due = LAST

    def look(*_: Any) -> None:
        nonlocal due
        if probe.steps < min(due, spec.steps):
            return
        buffer.flush()
        models = assemble(events)
        model = _meant(spec, models)
        if model is None or (spec.model is not None and model.info.name != spec.model):
            if probe.steps >= LONGEST_WAIT * spec.steps:
                raise StopTraining
            due = probe.steps + LAST
            return
        losses = tuple(model.losses)
        if len(losses) >= spec.steps:
            raise StopTraining
        due = probe.steps + min(LAST, spec.steps - len(losses))
        if len(losses) < 2 * LAST:
            return
        if diverged(losses) or (spec.fallen_to is not None and fallen_below(losses, spec.fallen_to)):
            raise StopTraining

    handle = register_optimizer_step_post_hook(look)
    probe.after_step_by_hand = look
    try:
        yield
    finally:
        handle.remove()
        probe.after_step_by_hand = None


def _folder_of(target: Target) -> str:
    """What python puts first in sys.path for it."""
    if target.is_module:
        return target.directory
    return str(Path(target.directory, target.program).resolve().parent)


def _run(target: Target) -> str | None:
    """Run the script; its output is not shown. The error in one line, or None."""
    os.chdir(target.directory)
    folder = _folder_of(target)
    sys.argv = [target.program, *target.arguments]
    sys.path.insert(0, folder)
    with quiet() as output:
        return _ran(target, output)


def _ran(target: Target, output: Tail) -> str | None:
    try:
        if target.is_module:
            runpy.run_module(target.program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(target.program, run_name="__main__")
    except StopTraining:
        return None
    except SystemExit as end:
        if end.code in (None, 0):
            return None
        said = f" ({output.last_line})" if output.last_line else ""
        return f"the script ended with exit code {end.code}{said}"
    except Exception as failure:  # noqa: BLE001 - whatever the script raises is the outcome
        return f"{type(failure).__name__}: {failure}"
    return None


@contextlib.contextmanager
def _process_state(target: Target) -> Iterator[None]:
    """What a script may change of its process, put back for the next trial."""
    main, argv, path, cwd = sys.modules["__main__"], sys.argv, list(sys.path), Path.cwd()
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    known, environment = set(sys.modules), dict(os.environ)
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
        os.environ.clear()
        os.environ.update(environment)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.use_deterministic_algorithms(deterministic)
        _forget_modules_of(target, known)


def _forget_modules_of(target: Target, known: set[str]) -> None:
    """The script's own modules are imported afresh by the next trial, with whatever state they hold."""
    folder = Path(target.directory if target.is_module else target.program).absolute()
    root = str(folder if target.is_module else folder.parent) + os.sep
    for name in [n for n in sys.modules if n not in known]:
        file = getattr(sys.modules[name], "__file__", None)
        if file and str(file).startswith(root) and "site-packages" not in file:
            del sys.modules[name]
