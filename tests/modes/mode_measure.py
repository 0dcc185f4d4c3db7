"""Train a mode under watch, and hold what was recorded against the twin, or against the same mode unwatched."""

from __future__ import annotations

import math
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mode_base import DEVICE, Mode, Setting, Training, seed, waited
from mode_processes import PROCESSES
from mode_twin import Key, TwinModel, twin_of
from torch import Tensor, distributed, nn

import unvanish
from unvanish import session
from unvanish.probe.local import local_tensor
from unvanish.schema.run import ModelRun, Run
from unvanish.store import merge_ranks, read_run

FLOOR = 1e-5  # of the largest of its kind at this step: what is smaller is rounding, and compared with this


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Largest relative errors against the twin, and over how many numbers each was taken."""

    gradient: float
    update: float
    signal: float
    loss: float
    gradients: int
    updates: int
    signals: int
    signals_each: int  # at the step that had the fewest
    steps: int
    unmeasured: frozenset[str]  # parameters that have a gradient and no number
    sampled: (
        int | None
    )  # of the parameters that are looked at in part, the fewest elements; None = all are whole

    def allowed(self, tolerance: float) -> float:
        """The tolerance for the parameters' numbers: where these are sampled, about 1 / sqrt(elements)."""
        return tolerance if self.sampled is None else max(tolerance, 4 / math.sqrt(self.sampled))


@contextmanager
def watching(training: Training, out: Path, every: int | None) -> Iterator[list[Path]]:
    """Watch a training as a user would; the list holds the run's folder. Ranks have a folder of their own each."""
    alone = len(training.models) == 1
    ranks = distributed.is_available() and distributed.is_initialized()
    if alone and not ranks:
        with unvanish.watch(training.models[0], list(training.optimizers), out=out, every=every) as w:
            yield [w.path]
        return
    one = session.Session(out=out, command=("modes",), every=every)
    one.start((training.models[0], training.optimizers) if alone else None)
    try:
        yield [one.path]
    finally:
        one.finish("finished")


def watched_run(mode: Mode, out: Path, *, every: int | None = 1) -> Run:
    """Train the mode under watch and read the record, that of all ranks merged."""
    if mode.ranks > 1:
        folders = PROCESSES.run(watch_rank, mode.ranks, mode.name, out, every)
        return merge_ranks([read_run(folder) for folder in folders])
    return session.load(_watched(mode, out, every))


def watch_rank(rank: int, name: str, out: Path, every: int | None) -> Path:
    """One rank's part of `watched_run`, in a process of its own: gives the folder of its record."""
    return _watched(by_name(name), out / str(rank), every)


def by_name(name: str) -> Mode:
    """The mode of that name: what is sent to other processes."""
    from mode_registry import MODES

    return next(mode for mode in MODES if mode.name == name)


def _watched(mode: Mode, out: Path, every: int | None) -> Path:
    seed()
    training = mode.make(Setting(dtype=mode.dtype, width=mode.width, rows=mode.rows))
    with watching(training, out, every) as (path,):
        for _ in range(mode.steps):
            training.step()
    training.close()
    return path


def errors(mode: Mode, run: Run) -> Errors:
    """Hold a watched run against the twin."""
    twins = twin_of(mode, steps=mode.steps)
    assert len(run.models) == len(twins), [m.info.name for m in run.models]
    found = _Found()
    for model, twin in zip(run.models, twins, strict=True):
        assert list(model.steps) == list(range(len(twin.gradients))), (list(model.steps), len(twin.gradients))
        assert list(model.parameter_steps) == list(model.steps), "every step is measured with every=1"
        for step in range(len(twin.gradients)):
            found.parameters(model, twin, step)
            found.loss(model, twin, step)
            if mode.signals:
                found.signals(model, twin, step)
    return Errors(
        gradient=max(found.gradient, default=0.0),
        update=max(found.update, default=0.0),
        signal=max(found.signal, default=0.0),
        loss=max(found.losses, default=0.0),
        gradients=len(found.gradient),
        updates=len(found.update),
        signals=len(found.signal),
        signals_each=min(found.each, default=0),
        steps=len(twins[0].gradients),
        unmeasured=frozenset(found.missing),
        sampled=min(
            (p.sampled for m in run.models for p in m.info.parameters if p.sampled < p.numel), default=None
        ),
    )


class _Found:
    """Relative errors, collected."""

    def __init__(self) -> None:
        self.gradient: list[float] = []
        self.update: list[float] = []
        self.signal: list[float] = []
        self.losses: list[float] = []
        self.each: list[int] = []
        self.missing: set[str] = set()

    def parameters(self, model: ModelRun, twin: TwinModel, step: int) -> None:
        width = len(model.info.parameters)
        names = {p.name for p in model.info.parameters}
        self.missing |= {n for n, v in twin.gradients[step].items() if v is not None} - names
        truth = twin.gradients[step], twin.updates[step]
        for statistic, true, into in zip(
            ("gradient_rms", "update_rms"), truth, (self.gradient, self.update), strict=True
        ):
            floor = FLOOR * max((v for v in true.values() if v), default=0.0)
            for p in model.info.parameters:
                value = model.parameter_stats[statistic][step * width + p.index]
                expected = true.get(p.name)
                if expected is None:
                    if statistic == "gradient_rms":
                        assert math.isnan(value), f"{p.name} has no gradient at step {step}, yet {value}"
                elif math.isnan(value) and not math.isnan(expected):
                    self.missing.add(p.name)
                else:
                    into.append(relative(value, expected, floor))

    def loss(self, model: ModelRun, twin: TwinModel, step: int) -> None:
        true = twin.losses[step]
        self.losses.append(relative(model.losses[step], sum(true) / len(true), 0.0))

    def signals(self, model: ModelRun, twin: TwinModel, step: int) -> None:
        traces = [t for t in model.traces if t.step == step]
        passes = twin.passes[step]
        assert len(traces) == len(passes), f"step {step}: {len(traces)} passes traced, {len(passes)} made"
        compared = 0
        for trace, true in zip(traces, passes, strict=True):
            seen = last_operations(model, trace)
            floor = FLOOR * max(true.values())
            both = seen.keys() & true.keys()
            self.signal += [relative(seen[key], true[key], floor) for key in sorted(both)]
            compared += len(both)
        self.each.append(compared)


def last_operations(model: ModelRun, trace: Any) -> dict[Key, float]:
    """The norm that arrives at the end of every call of every module: at its last operation."""
    graph = model.graphs[trace.graph]
    return {
        (o.module, o.call): s.norm
        for o, s in zip(graph.operations, trace.stats, strict=True)
        if o.module is not None
    }


def relative(value: float, expected: float, floor: float) -> float:
    """|value - expected| / max(expected, floor); 0 where both are the same NaN or Inf."""
    if math.isnan(expected) or math.isinf(expected):
        return 0.0 if not math.isfinite(value) else math.inf
    if not math.isfinite(value):
        return math.inf
    size = max(abs(expected), floor)
    return 0.0 if value == expected else math.inf if size == 0 else abs(value - expected) / size


def check_skipped(mode: Mode, run: Run, found: Errors) -> None:
    """What has no number is what the mode says has none, and the run says so too."""
    allowed = re.compile(mode.unmeasured or r"(?!)")
    assert all(allowed.search(name) for name in found.unmeasured), found.unmeasured
    said = [f"{s.what}: {s.why}" for s in run.skipped]
    if mode.skipped is not None:
        assert any(re.search(mode.skipped, line) for line in said), said


# --- bit by bit -----------------------------------------------------------------------------------------------


def differences(mode: Mode, *, every: int | None) -> list[str]:
    """What is not bit-identical after a long training with and without watching; empty = nothing."""
    if mode.ranks > 1:
        found = PROCESSES.run(differences_of_rank, mode.ranks, mode.name, every)
        return [f"rank {rank}: {name}" for rank, names in enumerate(found) for name in names]
    return _differences(mode, every)


def differences_of_rank(rank: int, name: str, every: int | None) -> list[str]:
    """One rank's part of `differences`, in a process of its own."""
    return _differences(by_name(name), every)


def _differences(mode: Mode, every: int | None) -> list[str]:
    plain = _outcome(mode, None)
    with tempfile.TemporaryDirectory() as folder:
        seen = _outcome(mode, (Path(folder), every))
    assert plain.keys() == seen.keys()
    return [name for name in plain if plain[name] != seen[name]]


def _outcome(mode: Mode, watch: tuple[Path, int | None] | None) -> dict[str, Any]:
    seed()
    training = mode.make(Setting(dtype=mode.dtype, width=mode.width, rows=mode.rows))
    if watch is None:
        for _ in range(mode.lasting):
            training.step()
    else:
        with watching(training, *watch) as (path,):
            for _ in range(mode.lasting):
                training.step()
        run = session.load(path)
        assert not run.incidents, run.incidents
        assert run.models and len(run.models[0].steps) > 1, "nothing was seen"
    training.close()
    out: dict[str, Any] = {
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "the device's generator": torch.cuda.get_rng_state().numpy().tobytes() if DEVICE != "cpu" else b"",
        "numpy's generator": repr(np.random.get_state()),  # noqa: NPY002
        "python's generator": random.getstate(),
    }
    for i, model in enumerate(training.models):
        out.update({f"weights {i}.{name}": _bytes(t) for name, t in model.state_dict().items()})
    for i, optimizer in enumerate(training.optimizers):
        for j, state in enumerate(optimizer.state.values()):
            tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
            out.update({f"optimizer {i}.{j}.{k}": _bytes(v) for k, v in tensors.items()})
    return out


def _bytes(value: Any) -> bytes:
    if not isinstance(value, Tensor):
        return repr(value).encode()
    value = local_tensor(value.detach())  # of a sharded one what this process holds
    value = value.to_dense() if value.is_sparse else value
    return value.contiguous().reshape(-1).view(torch.uint8).cpu().numpy().tobytes()


# --- the clock ------------------------------------------------------------------------------------------------


def overhead(mode: Mode, *, width: int = 192, rows: int = 128, steps: int = 120) -> float:
    """Step time watched over unwatched: two trainings of the same kind, step by step in turn, medians. Rough."""
    seed()
    setting = Setting(dtype=mode.dtype, width=width, rows=rows)
    plain, seen = mode.make(setting), mode.make(setting)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, watching(seen, Path(folder), None):
        for i in range(steps):
            for training in (plain, seen) if i % 2 else (seen, plain):
                waited()
                began = time.perf_counter()
                training.step()
                waited()
                if i >= steps // 4:  # after the dense beginning of the schedules
                    seconds[training is seen].append(time.perf_counter() - began)
    plain.close()
    seen.close()
    return statistics.median(seconds[True]) / statistics.median(seconds[False])


def nothing_of_ours(module: nn.Module) -> list[str]:
    """Names of hooks and attributes of ours that are left in a model."""
    left: list[str] = []
    for path, one in module.named_modules():
        hooks = (one._forward_hooks, one._forward_pre_hooks, one._backward_hooks, one._backward_pre_hooks)
        owners = [getattr(h, "__module__", "") for table in hooks for h in table.values()]
        owners += [getattr(type(v), "__module__", "") for v in vars(one).values()]
        left += [f"{path}: {owner}" for owner in owners if owner.startswith("unvanish")]
        left += [f"{path}: {name}" for name in vars(one) if "unvanish" in name]
    return left
