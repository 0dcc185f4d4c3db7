"""Catch a script's models right before their first optimizer step: the models, one call of each, their gradients.

The script runs as ever up to there. The step is not made: StopTraining is raised in its place, which ends the script
cleanly, its `finally` blocks included. A script that updates its weights by hand has no such place: there it is the
end of its first backward pass to weights of a module, where there is no optimizer yet.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as optim_module

from unvanish.precheck.check import Subject
from unvanish.precheck.measure import Autocast
from unvanish.probe.buffer import Buffer
from unvanish.probe.by_hand import asked_for, leaves_of
from unvanish.probe.discover import living_optimizers, script_name, unwrap
from unvanish.probe.engine import Probe, StopTraining
from unvanish.probe.hidden import hidden
from unvanish.probe.noted import mapped
from unvanish.probe.once import describe_model
from unvanish.probe.seams import Seams
from unvanish.schema.assemble import assemble
from unvanish.schema.call import Batch
from unvanish.schema.run import Event, ModelInfo, ModelRun

_MOST_KEPT = 256  # calls of modules that the script makes itself
_DEVICES = ("cpu", "cuda", "mps", "xpu")


@dataclass(slots=True, kw_only=True)
class _Call:
    """A call that the script made itself."""

    module: nn.Module
    batch: Batch
    autocast: Autocast


@dataclass(kw_only=True)
class Caught:
    """What was there when the first step was about to be made."""

    subjects: list[Subject] = field(default_factory=list)
    records: tuple[
        ModelRun, ...
    ] = ()  # of the real backward pass, of all models that the optimizer was to step
    stepped: bool = False  # whether a step was about to be made at all


class Catch:
    """Watches a script from the import of torch on until its first optimizer step."""

    def __init__(self) -> None:
        """Nothing is placed yet."""
        self._calls: dict[int, _Call] = {}
        self._handles: list[Any] = []
        self._events: list[Event] = []
        self._buffer = Buffer(self._events.extend)
        self._probe = Probe(self._buffer, traces=1, parameters=False)
        self._thread = threading.get_ident()
        self._subjects: list[Subject] = []
        self._stepped = False
        self._seams = Seams()
        self._backward = 0  # passes that are under way, one inside of the other
        self._optimized = False  # the script has an optimizer
        self._before: weakref.WeakSet[Any] = weakref.WeakSet()  # optimizers that are none of its own

    def begin(self) -> None:
        """Place the hooks. The probe's come first: it looks at the step before ours ends the script."""
        self._before = weakref.WeakSet(living_optimizers())
        self._probe.attach()
        self._handles = [
            torch_module.register_module_forward_hook(self._after_forward, with_kwargs=True),
            optim_module.register_optimizer_step_pre_hook(self._before_step),
        ]
        self._seams.place(torch.autograd, "backward", self._around_backward)
        self._seams.place(torch.autograd, "grad", self._around_grad)

    def end(self) -> Caught:
        """Take everything away, and give what was caught."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._seams.take_back()
        self._probe.detach()
        self._buffer.flush()
        records = assemble(self._events)
        self._calls = {}
        subjects = [_named(s, records) for s in self._subjects]
        return Caught(subjects=subjects, records=records, stepped=self._stepped)

    def _after_forward(self, module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
        """Keep the call, and forget those that were made inside of it."""
        if (
            torch.compiler.is_compiling()
            or threading.get_ident() != self._thread
            or not torch.is_grad_enabled()
        ):
            return
        inner = {id(m) for m in module.modules()}
        self._calls = {key: call for key, call in self._calls.items() if key not in inner}
        if len(self._calls) >= _MOST_KEPT:
            del self._calls[next(iter(self._calls))]
        self._calls[id(module)] = _Call(
            module=module, batch=Batch(args=args, kwargs=kwargs), autocast=_autocast()
        )

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._stepped = True
        closure = next((a for a in (*args, *kwargs.values()) if callable(a) and a is not optimizer), None)
        if closure is not None:
            with torch.enable_grad():
                closure()
        optimizers = _optimizers(optimizer)
        self._take(p for o in optimizers for group in o.param_groups for p in group["params"])
        raise StopTraining

    def _take(self, trained: Iterable[Tensor]) -> None:
        """Whatever was called and holds some of these tensors is to be checked."""
        ids = {id(p) for p in trained}
        for call in list(self._calls.values()):
            module = unwrap(call.module)
            if any(id(p) in ids for p in module.parameters()):
                self._subjects.append(_subject(module, call))

    # --- training by hand -----------------------------------------------------------------------------------

    def _around_backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            loss = tensors[0] if isinstance(tensors, list | tuple) and len(tensors) == 1 else tensors
            leaves = self._leaves(loss)
            with self._under_way():
                result = original(tensors, *args, **kwargs)
            self._after_backward(leaves)
            return result

        return backward

    def _around_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            leaves = None if args else asked_for(outputs, inputs, kwargs)
            with self._under_way():
                result = original(outputs, inputs, *args, **kwargs)
            if leaves is not None:
                self._after_backward(leaves, result)
            return result

        return grad

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        self._backward += 1
        try:
            yield
        finally:
            self._backward -= 1

    @hidden
    def _leaves(self, loss: Any) -> list[Tensor]:
        """What a backward pass from here leads to; nothing where that is of no use."""
        aside = self._optimized or self._backward or threading.get_ident() != self._thread
        if aside or not isinstance(loss, Tensor) or loss.numel() != 1:
            return []
        return leaves_of(loss)

    @hidden
    def _after_backward(self, leaves: list[Tensor], given: Sequence[Tensor | None] = ()) -> None:
        """The gradients are there (`given`: returned, and not in .grad): an update by hand is what comes next.

        Not where the script has an optimizer: that will step, be it for other weights than it should. Such weights,
        and tensors that no module holds, are known to be trained by hand once they have moved.
        """
        if self._backward or threading.get_ident() != self._thread:
            return
        pairs = list(zip(leaves, given, strict=False))
        moved = self._probe.moved_by_hand
        if not moved:
            called = {id(p) for call in self._calls.values() for p in call.module.parameters()}
            if self._optimized or not any(id(p) in called for p in leaves):
                return
            if any(optimizer not in self._before for optimizer in living_optimizers()):
                self._optimized = True
                return
            self._probe.step_by_hand(leaves, pairs)
        self._stepped = True
        with _lent(pairs):
            self._take(moved or leaves)
        raise StopTraining


@contextmanager
def _lent(pairs: Sequence[tuple[Tensor, Tensor | None]]) -> Iterator[None]:
    """Gradients that were returned, in the place where backward() puts them."""
    lent = [(leaf, gradient) for leaf, gradient in pairs if leaf.grad is None and gradient is not None]
    for leaf, gradient in lent:
        leaf.grad = gradient.detach()
    try:
        yield
    finally:
        for leaf, _ in lent:
            leaf.grad = None


def _optimizers(first: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    return list({id(o): o for o in [first, *living_optimizers()]}.values())


def _subject(module: nn.Module, call: _Call) -> Subject:
    batch = Batch(
        args=mapped(call.batch.args, Tensor.detach), kwargs=mapped(call.batch.kwargs, Tensor.detach)
    )
    return Subject(
        model=module,
        batch=batch,
        info=describe_model(module, script_name(module)),
        autocast=call.autocast,
        gradients={name: _size(p.grad) for name, p in module.named_parameters() if p.requires_grad},
    )


def _named(subject: Subject, records: tuple[ModelRun, ...]) -> Subject:
    """With its optimizers and what the real backward pass showed, where the record is of this very model."""
    own = [(n, tuple(p.shape)) for n, p in subject.model.named_parameters()]
    for record in records:
        if [(p.name, p.shape) for p in record.info.parameters] == own:
            return replace(subject, info=_renumbered(record.info), record=record)
    return subject


def _renumbered(info: ModelInfo) -> ModelInfo:
    return replace(info, index=0)


def _size(gradient: Tensor | None) -> float | None:
    if gradient is None:
        return None
    dense = gradient.detach()
    dense = dense.coalesce().values() if dense.is_sparse else dense
    return float(dense.double().square().mean().sqrt()) if dense.numel() else 0.0


def _autocast() -> Autocast:
    found = []
    for device in _DEVICES:
        try:
            if torch.is_autocast_enabled(device):
                found.append((device, True, torch.get_autocast_dtype(device)))
        except RuntimeError:  # this build of torch has no such device
            continue
    return tuple(found)
