"""One backward pass of a model at hand, measured in full, with nothing trained and everything left as it was."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.errors import CaptureError
from unvanish.probe import through_time
from unvanish.probe.architecture import describe, weigh
from unvanish.probe.backward import Tracing, Walker
from unvanish.probe.batch import LossFunction
from unvanish.probe.bounds import measure_bounds
from unvanish.probe.discover import unwrap
from unvanish.probe.example import kept
from unvanish.probe.forward import Call, ForwardWatch
from unvanish.probe.local import class_name
from unvanish.probe.objective import loss_of
from unvanish.probe.sites import Sited, output_operation, site
from unvanish.schema.graph import Graph, Trace
from unvanish.schema.run import PARAMETER_STATISTICS, ModelInfo, ModelRun, ParameterInfo

WHOLE = 2**62  # elements of a signal: all of them
OF_OUTPUTS = 2**16  # elements of a module's output, which its spread is estimated from


def trace_once(
    model: nn.Module, batch: Any, loss_fn: LossFunction | None, name: str | None = None
) -> ModelRun:
    """The same as a run's first traced step would hold of this model, bounds included.

    Gradients, buffers and random states are left alone.

    Raises:
        UsageError: the model or the loss could not be called, or there is no loss that hangs on a parameter.
        CaptureError: the graph is too large, or could not be measured.
    """
    model = unwrap(model)
    with kept(model, loss_fn), torch.enable_grad():
        loss, calls = watched_loss(model, batch, loss_fn)
        sited, trace = _backward(model, loss, calls)
        weights = weigh(sited.nodes, sited.graph.operations, {})
    info = replace(describe_model(model, name), training_modules=sum(m.training for m in model.modules()))
    return ModelRun(
        info=info,
        steps=array("q", [0]),
        seconds=array("d", [0.0]),
        losses=array("d", [float(loss.detach())]),
        parameter_steps=array("q"),
        parameter_stats={statistic: array("d") for statistic in PARAMETER_STATISTICS},
        snapshots=(),
        graphs={sited.graph.key: sited.graph},
        traces=(trace,),
        architecture=describe(sited, weights, sited.numbers(exponents=False).entries),
    )


def describe_model(model: nn.Module, name: str | None = None) -> ModelInfo:
    """The noun for a model that no optimizer was seen to hold."""
    return ModelInfo(
        index=0,
        name=name or class_name(model),
        class_name=class_name(model),
        parameters=tuple(
            ParameterInfo(
                index=i,
                name=own,
                shape=tuple(p.shape),
                dtype=str(p.dtype).removeprefix("torch."),
                requires_grad=p.requires_grad,
                optimizer=None,
                sampled=p.numel(),
            )
            for i, (own, p) in enumerate(model.named_parameters())
        ),
        optimizers=(),
    )


def watched_loss(model: nn.Module, batch: Any, loss_fn: LossFunction | None) -> tuple[Tensor, list[Call]]:
    """The loss, and which calls of which modules it was made by."""
    faults: list[Exception] = []
    watch = ForwardWatch(lambda _, error: faults.append(error), size=OF_OUTPUTS)
    watch.arm()
    try:
        loss = loss_of(model, batch, loss_fn)
        calls = list(watch.calls)
    finally:
        watch.disarm()
    _raise_first(faults)
    return loss, calls


def walked(loss: Tensor, calls: list[Call]) -> tuple[Tracing, list[Exception]]:
    """The graph behind a loss, and where its hooks' faults go."""
    faults: list[Exception] = []
    tracing = Walker().walk(loss, calls, lambda _, error: faults.append(error), WHOLE)
    if tracing is None:
        raise CaptureError(
            "the graph behind the loss is too large", "explain a part of the model, or fewer time steps"
        )
    return tracing, faults


def _backward(model: nn.Module, loss: Tensor, calls: list[Call]) -> tuple[Sited, Trace]:
    tracing, faults = walked(loss, calls)
    measure_bounds(tracing.nodes)
    leaves = list({id(x.parameter): x.parameter for n in tracing.nodes for x in n.leaves}.values())
    tracing.arm()
    through_time.arm(tracing)
    try:
        torch.autograd.grad(loss, leaves, allow_unused=True)
    finally:
        tracing.disarm()
    _raise_first(faults)
    sited = site(tracing, *names_of(model), {})
    trace = Trace(
        model=0,
        step=0,
        backward=0,
        graph=sited.graph.key,
        loss=float(loss.detach()),
        stats=sited.numbers(exponents=False).stats,
        output=model_output(sited.graph, [node.count for node in sited.nodes]),
        through_time=sited.through_time(),
    )
    return sited, trace


def model_output(graph: Graph, counts: Sequence[int]) -> int | None:
    """The operation that made the model's output.

    A single number inside of the model is no loss (a net with one output, called with one sample), where the loss is
    made outside.
    """
    apart = bool(graph.operations) and graph.operations[-1].module is None
    inside = [apart and o.module is not None for o in graph.operations]
    return output_operation(graph, [max(2, n) if own else n for n, own in zip(counts, inside, strict=True)])


def names_of(model: nn.Module) -> tuple[dict[int, str], dict[int, str]]:
    """Paths by id of the module, names by id of the parameter."""
    return (
        {id(m): path for path, m in model.named_modules()},
        {id(p): name for name, p in model.named_parameters()},
    )


def _raise_first(faults: list[Exception]) -> None:
    if faults:
        error = faults[0]
        raise CaptureError(
            f"the backward pass could not be measured ({type(error).__name__}: {error})", "please report this"
        ) from error
