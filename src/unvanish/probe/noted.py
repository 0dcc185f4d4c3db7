"""What is kept of the call of a compiled module, so that it can be made once more: inputs, random state, buffers."""

from __future__ import annotations

import copy
import dataclasses
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.probe.forward import Call

SMALL = 1 << 20  # bytes of inputs, and of buffers, that are copied; larger ones are kept by reference
_MIXED = ("cpu", "cuda", "mps", "xpu")  # devices with autocast


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an input that wants a gradient came from: a leaf, or an output of an operation of the graph."""

    leaf: Tensor | None
    number: int  # autograd's sequence number of the operation; -1 for a leaf
    output: int  # which output of the operation


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomState:
    """All global generators that a forward pass may draw from."""

    cpu: Tensor
    devices: tuple[tuple[torch.device, Tensor], ...]
    python: Any
    numpy: Any

    @classmethod
    def now(cls, devices: Sequence[torch.device]) -> RandomState:
        """The state of the CPU's, python's and numpy's generators, and of those of `devices`."""
        return cls(
            cpu=torch.get_rng_state(),
            devices=tuple((d, _backend(d).get_rng_state(d)) for d in devices),
            python=random.getstate(),
            numpy=np.random.get_state(),  # noqa: NPY002 - the global generator is what a script may use
        )

    def set(self) -> None:
        """Put every generator into this state."""
        torch.set_rng_state(self.cpu)
        for device, state in self.devices:
            _backend(device).set_rng_state(state, device)
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002

    def same(self, other: RandomState) -> bool:
        """Whether torch's generators are in the same state."""
        mine, others = ([s.cpu, *(state for _, state in s.devices)] for s in (self, other))
        return all(torch.equal(a, b) for a, b in zip(mine, others, strict=True))


@dataclass(slots=True, kw_only=True)
class CompiledCall:
    """One call of a compiled module, made by code that is not compiled itself."""

    call: Call  # its operations have first <= sequence number < last
    module: nn.Module  # the script's own, without its compiled wrapper
    refused: str | None = None  # why it can't be made once more
    args: Any = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: list[Tensor] = field(default_factory=list)  # the tensors in args and kwargs, in order
    versions: list[int] = field(default_factory=list)
    sources: list[Source | None] = field(default_factory=list)  # of `inputs`; None: wants no gradient
    weights: list[tuple[Tensor, int]] = field(default_factory=list)  # and their versions
    # by id of the buffer: the buffer itself, and a copy of it as it was at the call
    buffers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    before: RandomState | None = None
    after: RandomState | None = None
    autocast: tuple[tuple[str, bool, torch.dtype], ...] = ()
    outputs: dict[tuple[int, int], int] = field(default_factory=dict)  # (operation, its output) -> which one
    gradients: dict[int, Tensor] = field(default_factory=dict)  # what arrived at the outputs
    gradient_versions: dict[int, int] = field(default_factory=dict)

    def changed(self) -> str | None:
        """Why the call can't be made as it was any more; None where it can."""
        if any(t._version != v for t, v in self.weights):
            return "weights were changed between the model's call and the end of the backward pass"
        if [t._version for t in self.inputs] != self.versions:
            return "the compiled model, or the script, writes into the model's inputs"
        if any(t._version != self.gradient_versions[i] for i, t in self.gradients.items()):
            return "the gradient at the model's output was written into"
        return None

    def arrived(self, index: int, gradient: Tensor) -> None:
        """Add up what arrives at an output."""
        known = self.gradients.get(index)
        total = gradient.detach() if known is None else known + gradient.detach()
        self.gradients[index], self.gradient_versions[index] = total, total._version

    def forget_gradients(self) -> None:
        """Before a new backward pass."""
        self.gradients, self.gradient_versions = {}, {}


def note(call: Call, module: nn.Module, args: Any, kwargs: dict[str, Any], *, copies: bool) -> CompiledCall:
    """Keep what a call needs to be made again. `copies`: copy the inputs, however large they are."""
    given = tensors_in((args, kwargs))
    copies = copies or sum(t.numel() * t.element_size() for t in given) <= SMALL
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in kept:
            plain = tensor.detach()
            kept[id(tensor)] = plain.clone() if copies or _pooled(tensor) else plain
        return kept[id(tensor)]

    args, kwargs = mapped((args, kwargs), keep)
    inputs = [kept[id(t)] for t in given]
    buffers = [b for b in module.buffers() if b.layout is torch.strided]
    small = sum(b.numel() * b.element_size() for b in buffers) <= SMALL
    weights = list(module.parameters())
    return CompiledCall(
        call=call,
        module=module,
        args=args,
        kwargs=kwargs,
        inputs=inputs,
        versions=[t._version for t in inputs],
        sources=[_source(t) for t in given],
        weights=[(p, p._version) for p in weights],
        buffers={id(b): (b, b.detach().clone()) for b in buffers} if small else {},
        before=RandomState.now(generators([*weights, *given])),
        autocast=tuple(
            (d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d))
            for d in _devices([*weights, *given])
        ),
    )


def returned(noted: CompiledCall, output: Any) -> None:
    """Note which operations made the outputs. Nothing of the graph is held by this."""
    noted.after = RandomState.now([d for d, _ in noted.before.devices]) if noted.before else None
    for index, tensor in enumerate(tensors_in(output)):
        if tensor.grad_fn is not None:
            noted.outputs.setdefault((number_of(tensor.grad_fn), tensor.output_nr), index)


def number_of(handle: Any) -> int:
    """autograd's sequence number of an operation."""
    return int(handle._sequence_nr())


def generators(tensors: Sequence[Tensor]) -> list[torch.device]:
    """The devices of `tensors` that have a random generator of their own, each once."""
    found = dict.fromkeys(t.device for t in tensors if t.device.type not in ("cpu", "meta"))
    return [d for d in found if hasattr(_backend(d), "get_rng_state")]


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = _parts(value)
    return [] if parts is None else [t for _, part in parts for t in tensors_in(part)]


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with other tensors; what holds no tensor is handed on as it is."""
    if isinstance(value, Tensor):
        return change(value)
    parts = _parts(value)
    if parts is None or not tensors_in(value):
        return value
    new = [(key, mapped(part, change)) for key, part in parts]
    if isinstance(value, tuple):
        items = [part for _, part in new]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    twin = copy.copy(value)
    for key, part in new:
        if isinstance(value, list | dict):
            twin[key] = part
        else:
            object.__setattr__(twin, key, part)
    return twin


def _parts(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if isinstance(value, dict):
        return list(value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    return None


def _source(tensor: Tensor) -> Source | None:
    if not tensor.requires_grad:
        return None
    if tensor.grad_fn is None:
        return Source(leaf=tensor, number=-1, output=0)
    return Source(leaf=None, number=number_of(tensor.grad_fn), output=tensor.output_nr)


def _devices(tensors: Sequence[Tensor]) -> list[str]:
    found = dict.fromkeys(["cpu", *(t.device.type for t in tensors)])
    return [d for d in found if d in _MIXED]


def _pooled(tensor: Tensor) -> bool:
    """Whether a tensor may lie in the pool of a CUDA graph, where the next replay writes over it."""
    return tensor.is_cuda and "torch._inductor.cudagraph_trees" in sys.modules


def _backend(device: torch.device) -> Any:
    return getattr(torch, device.type, None)
