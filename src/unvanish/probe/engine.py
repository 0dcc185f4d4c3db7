"""The probe: places its hooks, keeps the clock of every model, and hands events to the buffer."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as optim_module

from unvanish.errors import CaptureError
from unvanish.probe import chance, through_time
from unvanish.probe.architecture import describe, weigh
from unvanish.probe.backward import Tracing, Walker, places_of
from unvanish.probe.beside import Beside
from unvanish.probe.bounds import measure_bounds
from unvanish.probe.buffer import Buffer
from unvanish.probe.by_hand import ByHand, asked_for
from unvanish.probe.discover import LooseParameters, unwrap
from unvanish.probe.forward import Call, ForwardWatch
from unvanish.probe.hidden import hidden
from unvanish.probe.incidents import words
from unvanish.probe.local import here, local_tensor
from unvanish.probe.models import Models, Turn, Watched
from unvanish.probe.parameters import Look
from unvanish.probe.place import own_place
from unvanish.probe.ready import NOW, Ready
from unvanish.probe.samples import LEAN_SAMPLE, TRACE_SAMPLE
from unvanish.probe.schedule import FIRST_LOOKS
from unvanish.probe.seams import LossScale, Seams, see_clipping
from unvanish.probe.sites import output_operation, site
from unvanish.probe.standin import LAYERS
from unvanish.probe.steps import Note
from unvanish.probe.trigger import Trigger
from unvanish.schema.graph import Trace
from unvanish.schema.run import (
    ArchitectureEvent,
    Event,
    GraphEvent,
    ModelEvent,
    PlaceEvent,
    Skipped,
    TraceEvent,
)

MAX_TRACED_PASSES = 4  # backward passes measured per step (gradient accumulation makes many)
EVERYTHING = 2**62  # elements
EXACT_BYTES = 2**30  # of whole tensors may wait for the writer
RECOMPUTED = "CheckpointFunction"
NOT_IN_RECOMPUTED = (
    "operations inside of recomputed parts",
    "a reentrant checkpoint hides their graph; with checkpoint(..., use_reentrant=False) they are seen",
)
MOST_LOSSES = 1024  # backward passes of one step whose losses are kept
Given = Sequence[tuple[Tensor, Tensor | None]]  # weights with the gradients that torch.autograd.grad returned
Explain = Callable[[Tensor, list[Call], list[nn.Module]], None]
KEPT_STEPS = 3  # optimizer steps for which forward calls are remembered, before all optimizers are known


class StopTraining(SystemExit):
    """Raised out of optimizer.step() when enough steps were made. Not an Exception: scripts don't swallow it.

    A child process, which nobody of ours runs, ends of it with code 0 and without a word.
    """


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
        exact: bool = False,
        explain: Explain | None = None,
        by_hand: bool = False,
    ) -> None:
        """`every`: trace each so many steps. `only`: a model and its optimizers, all others are ignored.

        A trial needs less: at most `traces` traced steps, and with `parameters` False the losses alone.
        `exact`: look at every element of everything, whatever it costs. `explain`: take the bounds of all
        operations as well, and show every traced loss, before its backward pass, with the calls that it was made by
        and the modules that the script called. `by_hand`: it is known that the script trains without an optimizer, so
        that its first backward pass counts, too.
        """
        self._buffer = buffer
        self._stop_after = stop_after
        self._forward = ForwardWatch(self._fault)
        self._beside = Beside(self._forward, self._fault, self._say)
        self._models = Models(
            every=every,
            only=None if only is None else (unwrap(only[0]), only[1]),
            dropped=self._count_dropped,
            on_fault=self._fault,
            exact=exact,
        )
        self._exact = exact
        self._explain = explain
        self._walker = Walker()
        self._lean = False  # whether this step, if it is traced, is traced for the signal alone
        if exact:
            buffer.detail_bytes = EXACT_BYTES
        self._forward.size = self._size
        buffer.sources.append(self._models.drain)
        self._only = only
        self._traces_left = traces
        self._parameters = parameters
        self._pid = os.getpid()
        self._active = False
        self._handles: list[Any] = []
        self._seams = Seams()
        self._scale = LossScale(self._step_was_skipped, self._fault)
        self._captures = buffer.captures
        self._losses: list[Tensor] = []
        self._tracings: list[Tracing] = []
        self._consumed: tuple[list[Tensor], list[Tracing]] = ([], [])
        self._awaiting: list[Watched] = []  # models whose step came before their backward pass was over
        self._now: list[Watched] = []  # the models that the step under way is a step of
        self._by_hand = ByHand(waiting=only is None, known=by_hand)
        self._grad_seam = Seams()  # while it may be that the script trains by hand
        self.after_step_by_hand: Callable[[], None] | None = None  # as torch's hooks are for optimizers
        self._said: set[str] = set()
        self._own = 0.0  # seconds of this step that were ours
        self._busy = 0.0
        self._rank: PlaceEvent | None = None
        self._start = time.perf_counter()
        self.steps = 0
        self.began = 0.0  # when the first step was made, seconds since 1970

    @property
    def _size(self) -> int:
        return EVERYTHING if self._exact else LEAN_SAMPLE if self._lean else TRACE_SAMPLE

    @property
    def rank(self) -> int | None:
        """Which of several processes that train together this one is; known from its first step on."""
        return None if self._rank is None or self._rank.ranks == 1 else self._rank.rank

    # --- placing and removing ------------------------------------------------------------------------------

    def attach(self, trigger: Trigger | None = None) -> None:
        """Place the hooks. The first step is traced. CaptureError when that fails; nothing is left in place then.

        `trigger`: what has set this off. Within a step its hooks are taken, as none can be registered then.
        """
        try:
            self._place(trigger)
        except Exception as error:
            self.detach()
            raise CaptureError(
                f"the watching could not begin ({words(error)})",
                "all that was placed is taken back, and training works as ever without it; please report this",
            ) from error
        except BaseException:
            self.detach()
            raise

    def _place(self, trigger: Trigger | None) -> None:
        if trigger is not None and trigger.in_step:
            trigger.before, trigger.after = self._before_step, self._after_step
            self._handles.append(trigger)
        else:
            if trigger is not None:  # one frame less, so that names are found as in a process without it
                trigger.remove()
            for register, hook in (
                (optim_module.register_optimizer_step_pre_hook, self._before_step),
                (optim_module.register_optimizer_step_post_hook, self._after_step),
            ):
                self._handles.append(register(hook))
        self._seams.place(torch.autograd, "backward", self._around_backward)
        if self._by_hand.waiting:
            self._grad_seam.place(torch.autograd, "grad", self._around_grad)
        self._seams.place(torch, "compile", self._before_compile)
        see_clipping(self._seams, self._clipped)
        self._scale.place(self._seams)
        self._captures.place(self._seams)
        self._active = True
        self._start = time.perf_counter()
        if self._traces_left != 0:
            self._forward.arm()
        _PROBES.add(self)

    def detach(self) -> None:
        """Take every hook away, whatever fails on the way."""
        steps: list[Callable[[], object]] = [partial(self._close, w) for w in self._models.open_turns()]
        self._active = False
        self._models.ending = True
        steps += [handle.remove for handle in self._handles]
        steps += [self._forward.disarm, self._beside.part, self._grad_seam.take_back, self._seams.take_back]
        for step in steps:
            try:
                step()
            except Exception as error:
                self._fault("the end", error)
        self._handles = []
        self._losses, self._tracings, self._consumed = [], [], ([], [])

    def _around_backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._active or self._forward.in_backward or self._captures.active:
                return original(tensors, *args, **kwargs)
            tracing = self._begin_backward(tensors, args, kwargs)
            done = False
            try:
                result = original(tensors, *args, **kwargs)
                done = True
            finally:
                self._end_backward(tracing, args, kwargs, done)
            return result

        try:
            self._beside.meet(backward)
        except Exception as error:
            self._fault("torch.compile", error)
        return backward

    def _before_compile(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def compile(*args: Any, **kwargs: Any) -> Any:  # noqa: A001 - it stands in for torch.compile
            with self._forward.aside():  # what it makes keeps nn.Module.__call__ as it finds it
                made = original(*args, **kwargs)
            try:
                self._beside.meet(torch.autograd.backward)
            except Exception as error:
                self._fault("torch.compile", error)
            return made

        return compile

    def _clipped(self, parameters: list[Tensor], most: Any, found: Tensor) -> None:
        try:
            if self._active and parameters:
                most = most.detach().clone() if isinstance(most, Tensor) else float(most)
                self._models.clipped(parameters[0], most, found.detach().clone())
        except Exception as error:
            self._fault("clipping", error)

    def _step_was_skipped(self, optimizer: Any) -> None:
        """The gradient scaler found a NaN or Inf: no step was made, and the backward passes count for none."""
        try:
            if self._active and self._models.ours(optimizer):
                self._take()
                self._models.skipped(optimizer)
        except Exception as error:
            self._fault("step", error)

    # --- the backward pass ---------------------------------------------------------------------------------

    @hidden
    def _begin_backward(
        self, tensors: Any, args: Any, kwargs: Any, leaves: list[Tensor] | None = None
    ) -> Tracing | None:
        began = time.perf_counter()
        tracing = None
        try:
            if self._by_hand.waiting or self._by_hand.stepping:
                self._end_step_by_hand(tensors, leaves)
            loss = tensors if isinstance(tensors, Tensor) else None
            if loss is None and isinstance(tensors, list | tuple) and len(tensors) == 1:
                loss = tensors[0]
            if isinstance(loss, Tensor):
                scale, value = self._scale.of(loss), here(loss)
                if value is not None and value.numel() == 1:  # None: spread over processes, not for one alone
                    self._losses.append(value.detach().clone() if scale is None else value.detach() / scale)
                    if len(self._losses) > MOST_LOSSES:  # backward passes that no optimizer steps for
                        del self._losses[: MOST_LOSSES // 2]
                if self._forward.armed and len(self._tracings) < MAX_TRACED_PASSES:
                    tracing = self._walker.walk(loss, self._forward.calls, self._fault, self._size)
                    if tracing is not None and any(n.name == RECOMPUTED for n in tracing.nodes):
                        self._say(*NOT_IN_RECOMPUTED)
                    if tracing is not None:
                        tracing = self._beside.begin(
                            tracing, loss, _argument(args, kwargs, 0, "grad_tensors")
                        )
                    if tracing is not None:
                        tracing.scale, tracing.lean = scale, self._lean
                        tracing.loss = torch.tensor(math.nan) if value is None else value.detach().clone()
                        if value is loss and not self._lean:
                            tracing.targets = chance.targets_of(loss, self._forward.predictions)
                        tracing.targets_at = places_of(tracing, tracing.targets)
                        self._show(loss, tracing)
                        tracing.arm()
                        through_time.arm(tracing)
        except Exception as error:
            self._fault("backward", error)
        self._forward.in_backward = True
        self._own += time.perf_counter() - began
        return tracing

    def _show(self, loss: Tensor, tracing: Tracing) -> None:
        if self._explain is not None:
            measure_bounds(tracing.nodes)
            self._explain(loss, list(self._forward.calls), self._forward.roots)

    @hidden
    def _end_backward(
        self, tracing: Tracing | None, args: Any, kwargs: Any, done: bool, given: Given = ()
    ) -> None:
        try:
            if tracing is not None:
                tracing.disarm()
                keeps = _argument(args, kwargs, 1, "retain_graph") or _argument(
                    args, kwargs, 2, "create_graph"
                )
                measured = self._beside.end(tracing, done=done, retained=bool(keeps))
                if measured is not None:
                    self._tracings.append(measured)
                    for why in through_time.untold(measured):
                        self._say(through_time.WHAT, why)
            if self._awaiting:
                self._trace_late()
        except Exception as error:
            self._fault("backward", error)
        finally:
            self._forward.in_backward = False
        if done and self._by_hand.stepping:
            self._begin_step_by_hand(given)

    def _trace_late(self) -> None:
        """Optimizers have stepped while this backward pass was under way: it is that step's."""
        awaiting, self._awaiting = self._awaiting, []
        tracings, self._tracings = self._tracings, []
        for watched in dict.fromkeys(awaiting):
            step = watched.step - (watched.turn is None)  # its last optimizer may have stepped since
            for number, tracing in enumerate(tracings):
                self._trace(watched, step, number, tracing)

    # --- a step without an optimizer -----------------------------------------------------------------------

    def _around_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            live = self._active and not (self._forward.in_backward or self._captures.active)
            if not live or args or not (self._by_hand.waiting or self._by_hand.stepping):
                return original(outputs, inputs, *args, **kwargs)
            leaves = asked_for(outputs, inputs, kwargs)
            if leaves is None:
                return original(outputs, inputs, **kwargs)
            tracing = self._begin_backward(outputs, (), kwargs, leaves)
            result: Sequence[Tensor | None] = ()
            done = False
            try:
                result = original(outputs, inputs, **kwargs)
                done = True
            finally:
                self._end_backward(tracing, (), kwargs, done, tuple(zip(leaves, result, strict=False)))
            return result

        return grad

    def _end_step_by_hand(self, tensors: Any, leaves: list[Tensor] | None) -> None:
        """A backward pass begins (to these leaves): the script has done to the weights what it does after each."""
        hand = self._by_hand
        loss = tensors[0] if isinstance(tensors, list | tuple) and len(tensors) == 1 else tensors
        if hand.waiting and isinstance(loss, Tensor):
            hand.see(loss, leaves)
            if hand.stepping:  # what came before was not known to be a step, and is over
                self._losses, self._tracings = [], []
        if hand.stepping and self._now:
            self._after_step(hand, (hand,), {})
            if self.after_step_by_hand is not None:
                self.after_step_by_hand()

    @property
    def moved_by_hand(self) -> list[Tensor]:
        """Weights that were seen to move with no optimizer that could have moved them."""
        return self._by_hand.param_groups[0]["params"] if self._by_hand.stepping else []

    def step_by_hand(self, leaves: list[Tensor], given: Given = ()) -> None:
        """The backward pass that has just ended, to these leaves, is taken for one that an update by hand follows.

        `given`: what torch.autograd.grad returned.
        """
        self._by_hand.begin(leaves)
        self._begin_step_by_hand(given)

    @hidden
    def _begin_step_by_hand(self, given: Given) -> None:
        """The gradients are there; the calls of the forward pass to come are to be seen.

        `given`: what torch.autograd.grad returned, looked at in the place where backward() puts it.
        """
        lent = []
        try:
            for leaf, gradient in given:
                if leaf.grad is None and gradient is not None:
                    leaf.grad = gradient.detach()
                    lent.append(leaf)
            self._before_step(self._by_hand, (self._by_hand,), {})
            self._rearm()
        except Exception as error:
            self._fault("step", error)
        finally:
            for leaf in lent:
                leaf.grad = None

    # --- the optimizer's step ------------------------------------------------------------------------------

    @hidden
    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._active or self._captures.active:
            return
        began = time.perf_counter()
        try:
            if optimizer is not self._by_hand and (self._by_hand.waiting or self._by_hand.stepping):
                self._by_hand.off()
                self._grad_seam.take_back()
            if not self._models.ours(optimizer):
                self._take()  # the backward passes since the step before were for this one
                return
            self._now = self._models.of(optimizer, self._forward, self._announce)
            for watched in self._now:
                if watched.turn is not None and id(optimizer) in watched.turn.stepped:
                    self._close(watched)
                if watched.turn is None:
                    watched.turn = turn = Turn(None)  # a fault in the look must not cost the step
                    turn.look = self._first_look(watched)
            if not _closure(optimizer, args, kwargs):
                self._measure(optimizer)
        except Exception as error:
            self._fault("step", error)
            for watched in self._now:
                watched.forget_look()
        except BaseException:  # not for us, and it may be caught: the next step finds things in order
            for watched in self._now:
                watched.forget_look()
            raise
        self._own += time.perf_counter() - began

    @hidden
    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._scale.stepped = True
        if not self._active or self._captures.active:
            return
        began = time.perf_counter()
        try:
            if not self._models.ours(optimizer):
                return
            if _closure(optimizer, args, kwargs):
                self._measure(optimizer)  # gradients exist only inside the step
            for watched in self._now:
                self._last_look(watched, optimizer)
            self._keep_pace(began)
            if optimizer is not self._by_hand:  # by hand, the next forward pass is already made
                self._rearm()
        except Exception as error:
            self._fault("step", error)
        self._now = []
        if not self.steps:
            self.began = time.time()
        self.steps += 1
        self._buffer.incidents.step = self.steps
        if self._stop_after is not None and self.steps >= self._stop_after:
            raise StopTraining

    def _first_look(self, watched: Watched) -> Look | None:
        """Begin to look at this step's parameters, where it is one of those that are looked at."""
        several = len(watched.optimizers) > 1
        traced = self._forward.armed and not self._lean
        special = several or traced or watched.step < FIRST_LOOKS or (watched.due() and watched.full())
        slot = None
        wanted = special or self._forward.armed or watched.pace.due(watched.step)
        if self._parameters and wanted:
            if watched.changed():
                self._announce(watched)
            slot = watched.ring.take_slot()
            if slot is None:
                self._buffer.incidents.drop("looks at parameters")
        if slot is None:
            watched.ring.skip()
            return None
        try:
            return watched.ring.look_before(slot, surely=special)
        except Exception as error:
            self._fault("step", error)
        except BaseException:
            watched.ring.give_back(slot)
            raise
        watched.ring.give_back(slot)
        return None

    def _measure(self, optimizer: Any) -> None:
        """The gradients and the backward passes that this step uses."""
        losses, tracings, fresh = self._take()
        scale = getattr(optimizer, "grad_scale", None)
        for watched in self._now:
            turn = watched.turn
            if turn is None:
                continue
            first = not turn.stepped
            if fresh or first:
                turn.losses = [*turn.losses, *losses]
            if turn.look is not None:
                rows = watched.rows_of(optimizer)
                watched.ring.look_gradients(turn.look, scale, sparse=self._forward.armed, rows=rows)
                watched.consider(turn.look)
            if self._forward.armed and (fresh or first) and (turn.passes or watched.traces.due(watched.step)):
                if first:
                    watched.traces.done(watched.step)
                if self._forward.in_backward:  # an optimizer that steps while the gradients still flow
                    self._awaiting.append(watched)
                for tracing in tracings:
                    self._trace(watched, watched.step, turn.passes, tracing)
                    turn.passes += 1

    def _take(self) -> tuple[list[Tensor], list[Tracing], bool]:
        """The backward passes since the last step of any optimizer, and True; else those of that step, and False."""
        if self._losses or self._tracings:
            self._consumed = (self._losses, self._tracings)
            self._losses, self._tracings = [], []
            return (*self._consumed, True)
        return (*self._consumed, False)

    def _last_look(self, watched: Watched, optimizer: Any) -> None:
        """The weights after the step; then, when all its optimizers have stepped, leave it to the writer."""
        turn = watched.turn
        if turn is None:
            return
        turn.stepped.add(id(optimizer))
        if turn.look is not None:
            try:
                watched.ring.look_after(
                    turn.look, optimizer if self._forward.armed and not self._lean else None
                )
            except Exception as error:
                self._fault("step", error)
                watched.forget_look()
        if isinstance(skipped := getattr(optimizer, "found_inf", None), Tensor):
            watched.log.perhaps_skipped(watched.step, local_tensor(skipped).detach().clone())
        if all(id(o) in turn.stepped for o in watched.alive()):
            self._close(watched)

    def _close(self, watched: Watched) -> None:
        """The step is over."""
        turn, clip, step = watched.turn, watched.clip, watched.step
        if turn is None:
            return
        watched.turn = watched.clip = None
        watched.step += 1
        alive = watched.alive()
        rate = alive[0].param_groups[0].get("lr", math.nan) if alive and alive[0].param_groups else math.nan
        if turn.look is not None and len(watched.optimizers) > 1:
            turn.look.bare += watched.rows_without(turn.stepped)
        seconds = time.perf_counter() - self._start
        watched.log.put(
            Note(
                step,
                seconds,
                turn.losses,
                clip,
                rate if isinstance(rate, float | int) else math.nan,
                turn.look,
                watched.ring,
                self._ready(watched),
            )
        )
        if turn.look is not None and watched.ring.low:
            self._buffer.wake()

    def _ready(self, watched: Watched) -> Ready:
        return NOW if watched.ring.on_cpu else Ready(watched.ring.devices)

    def _keep_pace(self, began: float) -> None:
        """Take what this step cost, the writer's share included; traced steps have a schedule of their own."""
        now, busy = time.perf_counter(), self._buffer.busy
        own = self._own + now - began + max(0.0, busy - self._busy)
        self._own, self._busy = 0.0, busy
        if not self._forward.armed:
            for watched in self._now:
                watched.pace.spent(own, now, looked=watched.ring.followed)

    def _trace(self, watched: Watched, step: int, number: int, tracing: Tracing) -> None:
        paths, names = watched.paths(again=not tracing.lean), watched.names()
        if not any(id(leaf.parameter) in names for node in tracing.nodes for leaf in node.leaves):
            return  # a backward pass of another model
        sited = site(tracing, paths, names, watched.graphs)
        fresh = watched.first_sight(sited.graph.key)
        first = watched.describe_once()
        weights = weigh(sited.nodes, sited.graph.operations, watched.gathered()) if first else None
        targets, targets_at = watched.know(tracing.targets), tracing.targets_at
        loss = tracing.loss if tracing.loss.numel() == 1 else tracing.loss.double().mean()
        scale = tracing.scale
        exponents = not tracing.lean
        ready = self._ready(watched)

        def events() -> list[Event]:
            ready.wait()
            factor = 1.0 if scale is None else 1 / float(scale)
            numbers = sited.numbers(factor, exponents=exponents)
            out: list[Event] = []
            if weights:
                layers = describe(sited, weights, numbers.entries)
                out.append(ArchitectureEvent(model=watched.index, layers=layers))
            trace = Trace(
                model=watched.index,
                step=step,
                backward=number,
                graph=sited.graph.key,
                loss=float(loss) * factor,
                stats=numbers.stats,
                output=output_operation(sited.graph, [node.count for node in sited.nodes]),
                chance=chance.chance_loss(targets, targets_at, numbers.stats),
                through_time=sited.through_time(factor),
            )
            return [*out, TraceEvent(trace=trace)]

        if fresh:
            self._put(GraphEvent(model=watched.index, graph=sited.graph))
        if not self._buffer.put(events, detail=sited.bytes) and first:
            watched.described = False  # the next trace tells it

    # --- arming, announcing, faults ------------------------------------------------------------------------

    def _rearm(self) -> None:
        if self._forward.armed and self._traces_left is not None:
            self._traces_left -= 1
        if self._traces_left != 0 and self._models.any_due():
            self._forward.forget(max(KEPT_STEPS, self._models.optimizers))
            self._forward.entries = self._models.any_undescribed()
            self._lean = not self._exact and not self._forward.entries and self._models.all_lean()
            self._forward.size = self._size
            self._forward.arm()
            self._beside.forget()
        elif self._forward.armed:
            self._forward.disarm()
            self._beside.forget()

    def _announce(self, watched: Watched) -> None:
        place = own_place()
        if place is not None and place != self._rank:  # known by now: a first step is made
            self._rank = place
            self._put(place)
        info = watched.info()
        watched.spare(info)
        self._put(ModelEvent(info=info))
        module = watched.module()
        if isinstance(module, LooseParameters) and not module.aliases:
            why = "no nn.Module holds these tensors; operations are shown without modules"
            self._put(Skipped(model=watched.index, what="attribution to modules", why=why))

    def _say(self, what: str, why: str) -> None:
        if why in self._said:
            return
        self._said.add(why)
        self._put(Skipped(model=None, what=what, why=why))

    def _put(self, event: Event) -> None:
        self._buffer.put(lambda: [event])

    def _count_dropped(self, steps: int) -> None:
        self._buffer.incidents.drop("steps", steps)

    def _fault(self, where: str, error: Exception) -> None:
        self._buffer.incidents.fault(where, error, self.steps)


def _argument(args: Any, kwargs: Any, position: int, name: str) -> Any:
    """An argument of torch.autograd.backward, which comes after `tensors` by position or by name."""
    return args[position] if len(args) > position else kwargs.get(name)


def _closure(optimizer: Any, args: Any, kwargs: Any) -> bool:
    """Whether step() was given a closure: `args` are those of step(), the optimizer itself among them."""
    return any(callable(a) for a in args if a is not optimizer) or callable(kwargs.get("closure"))


_PROBES: weakref.WeakSet[Probe] = weakref.WeakSet()


def _silence() -> None:
    """A forked child (a DataLoader's worker, say) records nothing."""
    LAYERS.forked()
    for probe in list(_PROBES):
        probe._active = False
        probe._forward.disarm()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_silence)
