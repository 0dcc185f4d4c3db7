"""What the tests of the probe share: watch a piece of training in this process, and read back what was seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.probe.buffer import Buffer
from unvanish.probe.engine import Probe
from unvanish.schema.assemble import assemble
from unvanish.schema.graph import Operation, OperationStats
from unvanish.schema.run import Event, Incident, ModelRun, Skipped

E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class Seen:
    """What a probe handed over."""

    events: list[Event]
    models: tuple[ModelRun, ...]

    @property
    def model(self) -> ModelRun:
        """The one model."""
        assert len(self.models) == 1, [m.info.name for m in self.models]
        return self.models[0]

    @property
    def incidents(self) -> list[Incident]:
        """The faults that were kept."""
        return [e for e in self.events if isinstance(e, Incident)]

    @property
    def skipped(self) -> list[Skipped]:
        """What was said not to be measured."""
        return [e for e in self.events if isinstance(e, Skipped)]

    def named(self, name: str) -> ModelRun:
        """The model of this name."""
        return next(m for m in self.models if m.info.name == name)


def watched(
    train: Callable[[], Any],
    *,
    every: int | None = None,
    only: tuple[nn.Module, Sequence[torch.optim.Optimizer]] | None = None,
    stop_after: int | None = None,
) -> Seen:
    """Run `train` under a probe, in this thread alone."""
    events: list[Event] = []
    buffer = Buffer(events.extend)
    probe = Probe(buffer, every=every, only=only, stop_after=stop_after)
    probe.attach()
    try:
        train()
    finally:
        probe.detach()
        buffer.flush()
    return Seen(events, assemble(events))


def at(
    run: ModelRun, module: str | None, name: str | None = None, *, call: int = 0, trace: int = 0
) -> list[OperationStats]:
    """The numbers of the operations of a module (and of a kind, by autograd's name) in one trace."""
    one = run.traces[trace]
    graph = run.graphs[one.graph]
    return [
        s
        for o, s in zip(graph.operations, one.stats, strict=True)
        if o.module == module and (name is None or o.name == name) and o.call == call
    ]


def operations(run: ModelRun, *, trace: int = 0) -> Sequence[Operation]:
    """The operations of one trace."""
    return run.graphs[run.traces[trace].graph].operations


def only_one(found: list[OperationStats]) -> OperationStats:
    """The one operation that was looked for."""
    assert len(found) == 1, f"{len(found)} operations"
    return found[0]


def weights_at(
    run: ModelRun, parameter: str, *, trace: int = 0
) -> list[tuple[Operation, OperationStats, float | None]]:
    """All uses of a parameter: (operation, its numbers, L2 norm of the parameter's share of the gradient)."""
    one = run.traces[trace]
    graph = run.graphs[one.graph]
    return [
        (o, s, s.parameter_norms[o.parameters.index(parameter)])
        for o, s in zip(graph.operations, one.stats, strict=True)
        if parameter in o.parameters
    ]


def norm(tensor: Tensor | None) -> float:
    """L2 norm in float64."""
    assert tensor is not None
    return float(torch.linalg.vector_norm(tensor.detach().double()))


def grad(tensor: Tensor) -> float:
    """L2 norm of a tensor's gradient."""
    return norm(tensor.grad)


def std(tensor: Tensor) -> float:
    """Standard deviation over all elements."""
    return float(tensor.detach().double().std(unbiased=False))


def rms(tensor: Tensor) -> float:
    """Root mean square over all elements."""
    return float(tensor.detach().double().square().mean().sqrt())


def random_states() -> tuple[Any, ...]:
    """The state of every global generator."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002


def seed(value: int = 0) -> None:
    """Seed every global generator."""
    torch.manual_seed(value)
    np.random.seed(value)  # noqa: NPY002
    random.seed(value)
