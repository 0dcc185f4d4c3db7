"""The models under watch: which optimizer steps which, each with its own clock and schedules."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probe.chance import Targets, merged
from unvanish.probe.discover import LooseParameters, holders, living_optimizers, parameters_of, script_name
from unvanish.probe.exact import ExactRing
from unvanish.probe.forward import ForwardWatch
from unvanish.probe.local import class_name, data_parallel_shards, gathered_weights, localize
from unvanish.probe.parameters import Look, ParameterRing
from unvanish.probe.place import data_parallel_copies
from unvanish.probe.schedule import COPIES_IN_FULL, COPY_PACE, TRACE_RATIO, TRACING_RANKS, Pace, Schedule
from unvanish.probe.sites import Known
from unvanish.probe.steps import StepLog
from unvanish.schema.run import Event, ModelInfo, OptimizerInfo, ParameterInfo

_LOOK_EVERY = 4  # measured steps between two looks at whether something changed
_EARLY = 8  # clippings that are remembered until the model's first step
_JUMP = 10.0  # a gradient this many times larger or smaller than when last traced asks for a trace
_MOST_GRAPHS = 4096  # remembered by their keys
_OPTIONS = (
    "momentum",
    "betas",
    "eps",
    "weight_decay",
    "alpha",
    "nesterov",
    "amsgrad",
    "dampening",
    "maximize",
)


@dataclass(slots=True)
class Turn:
    """One step of a model while it is under way: over when each of its optimizers has stepped, or one comes again."""

    look: Look | None
    losses: list[Tensor] = field(default_factory=list)
    stepped: set[int] = field(default_factory=set)  # ids of the optimizers that have
    passes: int = 0  # backward passes that were traced


class Watched:
    """One model: its parameters, its clock (a step of all its optimizers), what was seen of it."""

    def __init__(
        self,
        index: int,
        name: str,
        module: Any,
        optimizer: Any,
        every: int | None,
        dropped: Callable[[int], None],
        on_fault: Callable[[str, Exception], None],
        exact: bool,
    ) -> None:
        """The module is held weakly: the script may drop it."""
        self.index = index
        self.name = name
        stands_for = module.working if isinstance(module, LooseParameters) else None
        self.class_name = class_name(module if stands_for is None else stands_for)
        self.step = 0
        self._every = every
        self.traces = Schedule(ratio=TRACE_RATIO, every=every)
        self.pace = Pace()
        self._module = module if isinstance(module, LooseParameters) else weakref.ref(module)
        self.optimizers = [weakref.ref(optimizer)]
        self._exact = exact
        self._hold(list(module.named_parameters()))
        self.log = StepLog(index, dropped, self.consider_later, on_fault)
        self._graphs: dict[str, None] = {}  # in the order in which they came
        self._paths: dict[int, str] | None = None
        self._trainable = [p.requires_grad for _, p in self.named]
        self._bare: list[bool] = []  # which parameters had no gradient at the last look
        self.described = False
        self._targets: tuple[Targets, ...] = ()
        self._looks = 0
        self.clip: tuple[float | Tensor, Tensor] | None = None
        self._spared = False  # enough other ranks trace
        self.turn: Turn | None = None  # the step that is under way

    def _hold(self, named: list[tuple[str, Tensor]]) -> None:
        """These are its parameters from now on, with all that follows from them."""
        self.named = named
        self._names = {id(p): name for name, p in named}
        if isinstance(self._module, LooseParameters):
            self._names |= self._module.aliases
        self.ids = self._names.keys()
        self.spread = any(type(p) not in (Tensor, nn.Parameter) for _, p in named)  # over processes
        self.ring = (ExactRing if self._exact else ParameterRing)([p for _, p in named])
        self.graphs: Known = {}
        self._levels: list[float] | None = None
        self._owned: dict[int, frozenset[int]] = {}  # rows by id of the optimizer, where there are several

    def module(self) -> Any:
        """The module, or None when the script let go of it."""
        return self._module if isinstance(self._module, LooseParameters) else self._module()

    def renew(self) -> None:
        """Look again at which parameters the model has: the script may have replaced some, or added to them.

        Rows keep their places; parameters that came later have the last rows.
        """
        module = self.module()
        if module is None:
            return
        now = dict(module.named_parameters())
        before = dict(self.named)
        named = [(name, now.get(name, p)) for name, p in self.named]
        named += [(name, p) for name, p in now.items() if name not in before]
        if [id(p) for _, p in named] != [id(p) for _, p in self.named]:
            self.forget_look()
            self._hold(named)
            self.traces.ask()  # a net that got other layers is another net

    def changed(self) -> bool:
        """Whether parameters were frozen, unfrozen or replaced since this was asked last. Asked before a look."""
        bare = [p.grad is None for _, p in self.named]
        lost = len(bare) == len(self._bare) and any(
            n and not b for n, b in zip(bare, self._bare, strict=True)
        )
        before = self.named
        if lost:  # it had a gradient, and has none: another may have come into its place
            self.renew()
            bare = [p.grad is None for _, p in self.named]
        now = [p.requires_grad for _, p in self.named]
        changed = now != self._trainable or before is not self.named
        self._trainable, self._bare = now, bare
        return changed

    def alive(self) -> list[Any]:
        """The optimizers that step it, and are still there."""
        return [optimizer for ref in self.optimizers if (optimizer := ref()) is not None]

    def stepped_by(self, optimizers: Sequence[Any]) -> None:
        """Note optimizers that step it."""
        known = {id(o) for o in self.alive()}
        new = [o for o in optimizers if id(o) not in known]
        self.optimizers += [weakref.ref(o) for o in new]
        if new:
            self._owned = {}
            self.traces.ask()  # it goes on with another rule, or for another purpose

    def rows_of(self, optimizer: Any) -> frozenset[int] | None:
        """The rows that an optimizer steps; None where there is no other, and all are looked at with it."""
        if len(self.optimizers) == 1:
            return None
        rows = self._owned.get(id(optimizer))
        if rows is None:
            own = {id(p) for p in parameters_of(optimizer)}
            rows = frozenset(i for i, (_, p) in enumerate(self.named) if id(p) in own)
            self._owned[id(optimizer)] = rows
        return rows

    def rows_without(self, stepped: set[int]) -> list[int]:
        """The rows that none of these optimizers (ids) steps."""
        own = {row for o in self.alive() if id(o) in stepped for row in self.rows_of(o) or ()}
        return [i for i in range(len(self.named)) if i not in own]

    def due(self) -> bool:
        """Whether the coming forward pass may be one to trace."""
        if self._spared:
            return False
        return self.traces.due(self.step) or (self.turn is not None and self.traces.due(self.step + 1))

    def full(self) -> bool:
        """Whether the coming step, if it is traced, is to be measured in full."""
        return self.traces.full(self.step) or (self.turn is not None and self.traces.full(self.step + 1))

    def paths(self, *, again: bool = True) -> dict[int, str]:
        """Dotted path by id of the submodule; `again`: look for new ones (a module may hold thousands)."""
        if again or self._paths is None:
            module = self.module()
            found = {id(m): path for path, m in module.named_modules()} if module is not None else {}
            if found != self._paths:
                self._paths = found
        return self._paths or {}

    def names(self) -> dict[int, str]:
        """Parameter name by id of the tensor, and by that of the whole weight where it is gathered from shards."""
        gathered = self.gathered()
        if not gathered:
            return self._names
        return self._names | {i: self._names[id(p)] for i, p in gathered.items() if id(p) in self._names}

    def gathered(self) -> dict[int, Tensor]:
        """By id of a weight that is gathered from shards for the forward pass: the parameter that it is of."""
        module = self.module() if self.spread else None
        return gathered_weights(module) if isinstance(module, nn.Module) else {}

    def first_sight(self, key: str) -> bool:
        """Whether a graph was not seen before; notes it."""
        fresh = key not in self._graphs
        self._graphs[key] = None
        if len(self._graphs) > _MOST_GRAPHS:  # a net that is another one at each step
            del self._graphs[next(iter(self._graphs))]
        return fresh

    def know(self, targets: tuple[Targets, ...]) -> tuple[Targets, ...]:
        """The targets of all traced batches so far, these included; () where these are not known."""
        if targets:
            self._targets = merged(self._targets, targets)
            return self._targets
        return ()

    def describe_once(self) -> bool:
        """True the first time."""
        first, self.described = not self.described, True
        return first

    def forget_look(self) -> None:
        """Give up the look at the step under way."""
        if self.turn is not None and self.turn.look is not None:
            self.ring.give_back(self.turn.look.slot)
            self.turn.look = None
            self.ring.skip()

    def consider(self, look: Look) -> None:
        """Ask for traces when a parameter's gradient changed by a decade since the last one, or broke."""
        self._looks += 1
        if self._looks % _LOOK_EVERY == 0 and self.ring.on_cpu and self.step >= 3:
            self._compare(self.ring.norms(look))

    def consider_later(self, levels: list[float]) -> None:
        """The same from the writer's thread, for devices that the training thread can't read without waiting."""
        if not self.ring.on_cpu and self.step >= 3:
            self._compare(levels)

    def _compare(self, levels: list[float]) -> None:
        if self._levels is None or len(self._levels) != len(levels):
            self._levels = levels
            return
        for now, then in zip(levels, self._levels, strict=True):
            broke = now != now and then == then
            if broke or (then > 0 and not then / _JUMP <= now <= then * _JUMP):
                self._levels = levels
                self.traces.ask()
                return

    def spare(self, info: ModelInfo) -> None:
        """Do less where others do the same: a few of many copies are looked at in full, some of many ranks trace.

        Where the user asked for traces at a fixed distance, all do.
        """
        shards = [p.shard for p in info.parameters if p.shard is not None]
        if self._every is not None or not shards:
            return
        if len(shards) == len(info.parameters) and all(s.replica >= COPIES_IN_FULL for s in shards):
            self.pace.least = COPY_PACE
        self._spared = all(s.samples and s.replica * s.parts + s.part >= TRACING_RANKS for s in shards)

    def info(self) -> ModelInfo:
        """The noun for the record."""
        optimizers = self.alive()
        owner = {id(p): i for i, o in enumerate(optimizers) for p in parameters_of(o)}
        module = self.module()
        apart = data_parallel_shards(module) if isinstance(module, nn.Module) else set()
        copies = data_parallel_copies({id(p): p for _, p in self.named})
        computed_in = module.dtypes if isinstance(module, LooseParameters) else []
        return ModelInfo(
            index=self.index,
            name=self.name,
            class_name=self.class_name,
            parameters=tuple(
                ParameterInfo(
                    index=i,
                    name=name,
                    shape=tuple(p.shape),
                    dtype=str(computed_in[i] if i < len(computed_in) else p.dtype).removeprefix("torch."),
                    requires_grad=p.requires_grad,
                    optimizer=owner.get(id(p)),
                    sampled=self.ring.looked_at[i],
                    shard=localize(p).shard(samples=id(p) in apart) or copies.get(id(p)),
                )
                for i, (name, p) in enumerate(self.named)
            ),
            optimizers=tuple(_optimizer_info(i, o) for i, o in enumerate(optimizers)),
            training_modules=sum(m.training for _, m in module.named_modules()) if module is not None else 0,
        )


class Models:
    """Finds and keeps the watched models."""

    def __init__(
        self,
        *,
        every: int | None,
        only: tuple[nn.Module, Sequence[torch.optim.Optimizer]] | None,
        dropped: Callable[[int], None],
        on_fault: Callable[[str, Exception], None],
        exact: bool = False,
    ) -> None:
        """`only`: watch this model, stepped by these optimizers, and nothing else."""
        self._every = every
        self._dropped = dropped
        self._on_fault = on_fault
        self._exact = exact
        self._only = only
        self._ours = None if only is None else {id(o) for o in only[1]}  # by id: `only` keeps them alive
        self._by_optimizer: weakref.WeakKeyDictionary[
            Any, tuple[list[tuple[int, int, int]], list[Watched]]
        ] = weakref.WeakKeyDictionary()
        self._latest: tuple[weakref.ref[Any] | None, tuple[list[tuple[int, int, int]], list[Watched]] | None]
        self._latest = None, None  # the optimizer that stepped last, and its entry
        self._all: list[Watched] = []
        self._logs: list[StepLog] = []
        self._names: list[str] = []
        self._early: weakref.WeakKeyDictionary[Any, int] = (
            weakref.WeakKeyDictionary()
        )  # steps left out so far
        self._early_clips: list[tuple[weakref.ref[Tensor], float | Tensor, Tensor]] = []
        self.ending = False  # nothing more will come

    @property
    def optimizers(self) -> int:
        """How many optimizers are at work."""
        return max(1, len(self._by_optimizer))

    def ours(self, optimizer: Any) -> bool:
        """Whether this optimizer's steps are to be watched."""
        return self._ours is None or id(optimizer) in self._ours

    def of(self, optimizer: Any, forward: ForwardWatch, announce: Callable[[Watched], None]) -> list[Watched]:
        """The models that `optimizer` steps; found at its first step, or when it was given other parameters."""
        held = []  # at every step, hence without a call
        for group in optimizer.param_groups:
            params = group["params"]
            held.append((len(params), id(params[0]), id(params[-1])) if params else (0, 0, 0))
        latest, known = self._latest
        if latest is None or latest() is not optimizer:
            known = self._by_optimizer.get(optimizer)
            if known is not None:
                self._latest = weakref.ref(optimizer), known
        if known is not None and known[0] == held:
            return known[1]
        modules = [self._only[0]] if self._only is not None else holders(optimizer, forward.roots)
        models = [self._watched(m, optimizer, announce) for m in modules]
        self._by_optimizer[optimizer] = (held, models)
        self._latest = None, None
        return models

    def _watched(self, module: Any, optimizer: Any, announce: Callable[[Watched], None]) -> Watched:
        for watched in self._all:
            if watched.module() is module:
                watched.stepped_by([optimizer])
                watched.renew()
                announce(watched)  # there is news: another optimizer, or other parameters in this one
                return watched
        name = self._unique(script_name(module) or class_name(module))
        watched = Watched(
            len(self._names),
            name,
            module,
            optimizer,
            self._every,
            self._dropped,
            self._on_fault,
            self._exact,
        )
        others = self._only[1] if self._only is not None else living_optimizers()
        watched.stepped_by([o for o in others if watched.ids & {id(p) for p in parameters_of(o)}])
        self._names.append(name)
        # a search over many nets must not keep the ones that the script has let go of
        for gone in [w for w in self._all if not w.alive()]:
            gone.log.close()
            gone.ring.let_go()
            self._all.remove(gone)
        self._all.append(watched)
        self._logs.append(watched.log)
        for _ in range(self._early.pop(optimizer, 0)):
            watched.log.skip(0)
        for ref, most, found in self._early_clips:
            if id(ref()) in watched.ids:
                watched.clip = (most, found)
        announce(watched)
        return watched

    def _unique(self, name: str) -> str:
        number, unique = 1, name
        while unique in self._names:
            number += 1
            unique = f"{name}#{number}"
        return unique

    def clipped(self, parameter: Tensor, most: float | Tensor, found: Tensor) -> None:
        """Norm clipping was called for the gradients of these parameters."""
        owners = [watched for watched in self._all if id(parameter) in watched.ids]
        for watched in owners:
            watched.clip = (most, found)
        if not owners:  # before its first step a model is not known
            self._early_clips = [*self._early_clips[1 - _EARLY :], (weakref.ref(parameter), most, found)]

    def skipped(self, optimizer: Any) -> None:
        """A gradient scaler left out a step of this optimizer."""
        known = self._by_optimizer.get(optimizer)
        for watched in known[1] if known is not None else ():
            watched.log.skip(watched.step)
        if known is None:
            self._early[optimizer] = self._early.get(optimizer, 0) + 1

    def open_turns(self) -> list[Watched]:
        """The models with a step that is not over."""
        return [w for w in self._all if w.turn is not None]

    def drain(self) -> list[Event]:
        """What all models' logs hold. Called in the writer's thread."""
        events = [event for log in list(self._logs) for event in log.drain()]
        if self.ending:
            events += [event for log in self._logs for event in log.farewell()]
        self._logs = [log for log in self._logs if not log.closed or log.waiting]
        return events

    def any_due(self) -> bool:
        """Whether the coming step of any model is to be traced."""
        return any(w.due() and w.alive() for w in self._all)

    def all_lean(self) -> bool:
        """Whether the coming step is to be traced for the signal alone."""
        return not any(w.due() and w.full() for w in self._all if w.alive())

    def any_undescribed(self) -> bool:
        """Whether the layers of any model are still to be described."""
        return any(not w.described for w in self._all if w.alive())


def _optimizer_info(index: int, optimizer: Any) -> OptimizerInfo:
    group = optimizer.param_groups[0] if optimizer.param_groups else {}
    options: dict[str, float | bool | str | None] = {}
    for key in _OPTIONS:
        value = group.get(key)
        if isinstance(value, list | tuple):
            options.update({f"{key}_{i}": float(v) for i, v in enumerate(value)})
        elif isinstance(value, bool | int | float | str):
            options[key] = value
    return OptimizerInfo(
        index=index,
        class_name=type(optimizer).__name__,
        learning_rates=tuple(float(g.get("lr", float("nan"))) for g in optimizer.param_groups),
        options=options,
    )
