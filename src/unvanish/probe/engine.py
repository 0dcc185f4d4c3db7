"""The probe: places its hooks, keeps the clock of every model, and hands events to the buffer."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as optim_module

from unvanish.probe import chance
from unvanish.probe.architecture import describe, weigh
from unvanish.probe.backward import Tracing, index_of, walk
from unvanish.probe.beside import Beside
from unvanish.probe.buffer import Buffer, Lazy
from unvanish.probe.discover import LooseParameters, unwrap
from unvanish.probe.forward import ForwardWatch
from unvanish.probe.models import Models, Watched
from unvanish.probe.reduce import quantiles
from unvanish.probe.sites import Sited, output_operation, site
from unvanish.schema.graph import Trace
from unvanish.schema.run import (
    ArchitectureEvent,
    Event,
    GraphEvent,
    Incident,
    ModelEvent,
    Skipped,
    Snapshot,
    StepEvent,
    TraceEvent,
)

MAX_TRACED_PASSES = 4  # backward passes measured per step (gradient accumulation makes many)
MAX_INCIDENTS = 20
KEPT_STEPS = 3  # optimizer steps for which forward calls are remembered, before all optimizers are known


class StopTraining(BaseException):
    """Raised out of optimizer.step() when enough steps were made. Not an Exception: scripts don't swallow it."""


class Probe:
    """Watches every model that a torch optimizer trains in this process, or one given model.

    Placed globally: the optimizers' step hooks, and a wrapper around torch.autograd.backward that sees the loss.
    Module hooks and graph hooks exist only at traced steps. Nothing raised here reaches the training
    loop, save StopTraining; the first faults are kept as incidents.
    """

    def __init__(
        self,
        buffer: Buffer,
        *,
        every: int | None = None,
        stop_after: int | None = None,
        only: tuple[nn.Module, Sequence[torch.optim.Optimizer]] | None = None,
        traces: int | None = None,
        parameters: bool = True,
    ) -> None:
        """`every`: trace each so many steps. `only`: a model and its optimizers, all others are ignored.

        A trial needs less: at most `traces` traced steps, and with `parameters` False the losses alone.
        """
        self._buffer = buffer
        self._stop_after = stop_after
        self._forward = ForwardWatch(self._fault)
        self._beside = Beside(self._forward, self._fault, self._say)
        self._models = Models(every=every, only=None if only is None else (unwrap(only[0]), only[1]))
        self._only = only
        self._traces_left = traces
        self._parameters = parameters
        self._pid = os.getpid()
        self._active = False
        self._handles: list[Any] = []
        self._original_backward: Callable[..., Any] | None = None
        self._backward: Callable[..., Any] = torch.autograd.backward
        self._original_compile: Callable[..., Any] | None = None
        self._losses: list[Tensor] = []
        self._tracings: list[Tracing] = []
        self._consumed: tuple[list[Tensor], list[Tracing]] = ([], [])
        self._stepped_at: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._watching: list[Watched] = []
        self._incidents = 0
        self._start = time.perf_counter()
        self.steps = 0

    # --- placing and removing ------------------------------------------------------------------------------

    def attach(self) -> None:
        """Place the hooks. The first step is traced."""
        self._handles = [
            optim_module.register_optimizer_step_pre_hook(self._before_step),
            optim_module.register_optimizer_step_post_hook(self._after_step),
        ]
        self._wrap_backward()
        self._wrap_compile()
        self._active = True
        self._start = time.perf_counter()
        if self._traces_left != 0:
            self._forward.arm()
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _silence(reference))

    def detach(self) -> None:
        """Take every hook away."""
        self._active = False
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._forward.disarm()
        self._beside.part()
        if self._original_backward is not None:
            torch.autograd.backward = self._original_backward
            self._original_backward = None
            self._backward = torch.autograd.backward
        if self._original_compile is not None:
            torch.compile = self._original_compile
            self._original_compile = None
        self._losses, self._tracings, self._consumed = [], [], ([], [])

    def _wrap_backward(self) -> None:
        original = self._original_backward = torch.autograd.backward

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._active or self._forward.in_backward:
                return original(tensors, *args, **kwargs)
            tracing = self._begin_backward(tensors, args, kwargs)
            done = False
            try:
                result = original(tensors, *args, **kwargs)
                done = True
            finally:
                self._end_backward(tracing, args, kwargs, done)
            return result

        backward.__wrapped__ = original  # type: ignore[attr-defined]
        backward.__doc__ = original.__doc__
        torch.autograd.backward = self._backward = backward
        self._beside.meet(backward)

    def _wrap_compile(self) -> None:
        original = self._original_compile = torch.compile

        def compile(*args: Any, **kwargs: Any) -> Any:  # noqa: A001 - it stands in for torch.compile
            with self._forward.aside():  # what it makes keeps nn.Module.__call__ as it finds it
                made = original(*args, **kwargs)
            self._beside.meet(self._backward)
            return made

        compile.__wrapped__ = original  # type: ignore[attr-defined]
        compile.__doc__ = original.__doc__
        torch.compile = compile

    # --- the backward pass ---------------------------------------------------------------------------------

    @torch._disable_dynamo
    def _begin_backward(self, tensors: Any, args: Any, kwargs: Any) -> Tracing | None:
        tracing = None
        try:
            loss = tensors if isinstance(tensors, Tensor) else None
            if loss is None and isinstance(tensors, list | tuple) and len(tensors) == 1:
                loss = tensors[0]
            if isinstance(loss, Tensor):
                if loss.numel() == 1:
                    self._losses.append(loss.detach().clone().reshape(()))
                if self._forward.armed and len(self._tracings) < MAX_TRACED_PASSES:
                    tracing = walk(loss, self._forward.calls, self._fault)
                    if tracing is not None:
                        tracing = self._beside.begin(tracing, loss, _argument(args, kwargs, 0, "grad_tensors"))
                    if tracing is not None:
                        tracing.targets = chance.targets_of(loss)
                        if tracing.targets is not None:
                            tracing.targets_at = index_of(tracing, tracing.targets.number)
                        tracing.arm()
        except Exception as error:
            self._fault("backward", error)
        self._forward.in_backward = True
        return tracing

    @torch._disable_dynamo
    def _end_backward(self, tracing: Tracing | None, args: Any, kwargs: Any, done: bool) -> None:
        try:
            if tracing is not None:
                tracing.disarm()
                keeps = _argument(args, kwargs, 1, "retain_graph") or _argument(args, kwargs, 2, "create_graph")
                measured = self._beside.end(tracing, done=done, retained=bool(keeps))
                if measured is not None:
                    self._tracings.append(measured)
        finally:
            self._forward.in_backward = False

    # --- the optimizer's step ------------------------------------------------------------------------------

    @torch._disable_dynamo
    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._active or not self._models.ours(optimizer):
            return
        self._watching = []
        try:
            self._watching = self._to_measure(optimizer)
        except Exception as error:
            self._fault("step", error)
        if not _closure(args, kwargs):
            self._measure(optimizer)

    @torch._disable_dynamo
    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._active or not self._models.ours(optimizer):
            return
        if _closure(args, kwargs):
            self._measure(optimizer)  # gradients exist only inside the step
        try:
            self._finish(optimizer)
            self._models.stepped(optimizer)
            self._rearm()
        except Exception as error:
            self._fault("step", error)
        self.steps += 1
        if self._stop_after is not None and self.steps >= self._stop_after:
            raise StopTraining

    def _measure(self, optimizer: Any) -> None:
        try:
            losses, tracings = self._take()
            for watched in self._clocked(optimizer):
                watched.losses = losses
                if watched in self._watching:
                    watched.sampler.gradients(getattr(optimizer, "grad_scale", None))
                if self._forward.armed and watched.traces.due(watched.step):
                    watched.traces.done(watched.step)
                    for number, tracing in enumerate(tracings):
                        self._trace(watched, watched.step, number, tracing)
        except Exception as error:
            self._fault("step", error)

    def _take(self) -> tuple[list[Tensor], list[Tracing]]:
        """The backward passes since the last step of any optimizer; else those that the last step saw."""
        if self._losses or self._tracings:
            self._consumed = (self._losses, self._tracings)
            self._losses, self._tracings = [], []
        return self._consumed

    def _clocked(self, optimizer: Any) -> list[Watched]:
        """The models whose clock this optimizer drives."""
        found = self._models.of(optimizer, self._forward.roots, self._announce)
        return [watched for watched in found if watched.primary() is optimizer]

    def _to_measure(self, optimizer: Any) -> list[Watched]:
        """Those of them whose parameters are to be measured at this step; their weights are looked at now."""
        due = [w for w in self._clocked(optimizer) if self._parameters and w.measures()]
        for watched in due:
            watched.sampler.before()
            if watched.snapshots.due(watched.step):
                watched.snapshots.done(watched.step)
                self._snapshot(watched, watched.step, watched.sampler.snapshot())
        return due

    def _finish(self, optimizer: Any) -> None:
        """Hand over what is known of the step that was just made."""
        for watched in self._clocked(optimizer):
            table = watched.sampler.after() if watched in self._watching else None
            if table is not None and watched.elsewhere:
                table[watched.elsewhere, 5:] = math.nan  # another optimizer's step changes these
            self._buffer.put(self._step_events(watched, watched.step, watched.losses, table))

    def _step_events(self, watched: Watched, step: int, losses: list[Tensor], table: Tensor | None) -> Lazy:
        seconds = time.perf_counter() - self._start

        def events() -> list[Event]:
            values = [float(v) for v in losses]
            loss = sum(values) / len(values) if values else None
            rows = tuple(tuple(row) for row in table.tolist()) if table is not None else None
            watched.consider(step, rows)
            return [StepEvent(model=watched.index, step=step, seconds=seconds, loss=loss, rows=rows)]

        return events

    def _snapshot(self, watched: Watched, step: int, weights: Tensor) -> None:
        numels = [p.numel() for p in watched.sampler.parameters]

        def events() -> list[Event]:
            found = quantiles(weights, watched.sampler.counts, numels)
            return [
                Snapshot(model=watched.index, step=step, parameter=i, norm=norm, quantiles=levels)
                for i, (norm, levels) in enumerate(found)
            ]

        self._buffer.put(events, detail=True)

    def _trace(self, watched: Watched, step: int, number: int, tracing: Tracing) -> None:
        paths, names = watched.paths(), watched.names()
        if not any(id(leaf.parameter) in names for node in tracing.nodes for leaf in node.leaves):
            return  # a backward pass of another model
        sited = site(tracing, paths, names)
        output = output_operation(sited.graph, [node.count for node in sited.nodes])
        fresh = watched.first_sight(sited.graph.key)
        weights = weigh(sited.nodes, sited.graph.operations) if watched.describe_once() else None
        targets, targets_at = watched.know(tracing.targets), tracing.targets_at
        loss = tracing.loss if tracing.loss.numel() == 1 else tracing.loss.double().mean()

        def events() -> list[Event]:
            out: list[Event] = [GraphEvent(model=watched.index, graph=sited.graph)] if fresh else []
            if weights:
                out.append(ArchitectureEvent(model=watched.index, layers=describe(sited, weights)))
            trace = Trace(
                model=watched.index,
                step=step,
                backward=number,
                graph=sited.graph.key,
                loss=float(loss),
                stats=sited.stats(),
                output=output,
                chance=_chance(targets, targets_at, sited),
            )
            return [*out, TraceEvent(trace=trace)]

        self._buffer.put(events, detail=True)

    # --- arming, announcing, faults ------------------------------------------------------------------------

    def _rearm(self) -> None:
        if self._forward.armed and self._traces_left is not None:
            self._traces_left -= 1
        if self._traces_left != 0 and self._models.any_due():
            self._forward.forget(max(KEPT_STEPS, self._models.optimizers))
            self._forward.arm()
        else:
            self._forward.disarm()
        self._beside.forget()

    def _announce(self, watched: Watched) -> None:
        self._put(ModelEvent(info=watched.info()))
        if isinstance(watched.module(), LooseParameters):
            why = "no nn.Module holds these tensors; operations are shown without modules"
            self._put(Skipped(model=watched.index, what="attribution to modules", why=why))

    def _say(self, what: str, why: str) -> None:
        self._put(Skipped(model=None, what=what, why=why))

    def _put(self, event: Event) -> None:
        self._buffer.put(lambda: [event])

    def _fault(self, where: str, error: Exception) -> None:
        self._incidents += 1
        if self._incidents <= MAX_INCIDENTS:
            self._put(Incident(step=self.steps, where=where, what=f"{type(error).__name__}: {error}"))


def _chance(targets: chance.Targets | None, at: int | None, sited: Sited) -> float | None:
    """Chance loss, times what the script multiplied the loss by (= the gradient at the loss operation)."""
    if targets is None or at is None:
        return None
    measured = sited.nodes[at].measured
    value = chance.guess(targets) * float(measured[0]) if measured is not None else math.nan
    return value if math.isfinite(value) else None


def _argument(args: Any, kwargs: Any, position: int, name: str) -> Any:
    """An argument of torch.autograd.backward, which comes after `tensors` by position or by name."""
    return args[position] if len(args) > position else kwargs.get(name)


def _closure(args: Any, kwargs: Any) -> bool:
    return bool((args and callable(args[0])) or callable(kwargs.get("closure")))


def _silence(reference: weakref.ref[Probe]) -> None:
    """A forked child (a DataLoader's worker, say) records nothing."""
    probe = reference()
    if probe is not None:
        probe._active = False
        probe._forward.disarm()
