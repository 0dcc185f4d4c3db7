"""What the tests of many ranks let each of their processes do; run by mode_processes."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from mode_base import Mode, Setting, Training, seed
from mode_measure import by_name, watching
from torch import Tensor, distributed

from unvanish.probe import models, schedule
from unvanish.probe.local import local_gradient, local_tensor
from unvanish.store import read_run

Watch = tuple[Path, int | None] | None  # (folder for the runs, every)


def build(mode: Mode) -> Training:
    """The training of this rank, from the same seed on all."""
    seed()
    return mode.make(Setting(dtype=mode.dtype, width=mode.width, rows=mode.rows))


def trained(rank: int, name: str, steps: int, watch: dict[int, Watch]) -> dict[str, Any]:
    """Train; watched on the ranks in `watch`, each with its own schedule. What came of it, and what was exchanged."""
    training = build(by_name(name))
    before = exchanges()
    how = watch.get(rank)
    traces, incidents = 0, ()
    if how is None:
        for _ in range(steps):
            training.step()
    else:
        with watching(training, how[0] / str(rank), how[1]) as (folder,):
            for _ in range(steps):
                training.step()
        run = read_run(folder)
        traces, incidents = sum(len(m.traces) for m in run.models), run.incidents
    made = exchanges() - before
    return {"weights": digest(training), "exchanges": made, "traces": traces, "incidents": incidents}


def exchanges() -> int:
    """How many collectives this process has issued, on all its groups."""
    groups = list(distributed.distributed_c10d._world.pg_map)
    return sum(group._get_sequence_number_for_group() for group in groups)


def digest(training: Training) -> str:
    """Of all weights that this process holds, bit by bit."""
    sums = hashlib.sha256()
    for model in training.models:
        for p in model.parameters():
            sums.update(local_tensor(p).detach().contiguous().numpy().tobytes())
    return sums.hexdigest()


def beside_naive_hooks(rank: int, name: str, out: Path) -> tuple[Path, dict[str, Any]]:
    """One step under watch, with the hooks that people write: norms of the gradient by parameter, and how many fired."""
    training = build(by_name(name))
    (model,) = training.models
    norms: dict[str, float] = {}
    fired: Counter[str] = Counter()
    for full, p in model.named_parameters():
        path = full.removeprefix("module.")

        def after(p: Tensor, path: str = path) -> None:
            gradient = local_gradient(p)
            if gradient is not None:
                norms[path] = float(torch.linalg.vector_norm(gradient))

        def hook(gradient: Tensor, path: str = path) -> None:
            fired[path] += 1
            norms[f"hook {path}"] = float(torch.linalg.vector_norm(local_tensor(gradient)))

        p.register_post_accumulate_grad_hook(after)
        p.register_hook(hook)
    with watching(training, out / str(rank), 1) as (folder,):
        training.step()
    return folder, {"norms": norms, "fired": dict(fired)}


def spared(rank: int, name: str, steps: int, out: Path) -> Path:
    """Train under watch with the default schedule, as if one copy in full and two ranks that trace were enough."""
    models.COPIES_IN_FULL, models.TRACING_RANKS, models.COPY_PACE = 1, 2, 16
    schedule.BUDGET = 1e9  # on a busy machine the pace would spare all of them
    training = build(by_name(name))
    with watching(training, out / str(rank), None) as (folder,):
        for _ in range(steps):
            training.step()
    return folder
