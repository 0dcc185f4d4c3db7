"""Which module made which operation: the forward calls of a traced step, by autograd's sequence numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from unvanish.probe.reduce import spread


@dataclass(slots=True)
class Call:
    """One call of one module. Operations with first <= sequence number < last were made inside of it."""

    module: nn.Module
    index: int  # which call of this module within the step
    first: int
    last: int = -1
    depth: int = 0
    output_count: int | None = None
    output_spread: Tensor | None = None  # [std, rms] of the output
    input_spread: Tensor | None = None


def sequence_number() -> int:
    """The number that autograd gives the next operation of this thread."""
    return int(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]


@dataclass
class ForwardWatch:
    """Global forward hooks, in place only while a step is traced.

    `roots` are the modules that were called by the script itself (not by another module). Calls in other
    threads, without grad mode, or during a backward pass (recomputation) are not noted.
    """

    on_fault: Callable[[str, Exception], None]
    calls: list[Call] = field(default_factory=list)
    roots: dict[int, nn.Module] = field(default_factory=dict)
    in_backward: bool = False
    _stack: list[Call | None] = field(default_factory=list)
    _handles: list[Any] = field(default_factory=list)
    _counts: dict[int, int] = field(default_factory=dict)
    _thread: int = field(default_factory=threading.get_ident)

    @property
    def armed(self) -> bool:
        """Whether the hooks are in place."""
        return bool(self._handles)

    def arm(self) -> None:
        """Put the hooks in place. Called between steps, so that no forward is under way."""
        if not self._handles:
            self._thread = threading.get_ident()
            self._handles = [
                nn_module.register_module_forward_pre_hook(self._enter),
                nn_module.register_module_forward_hook(self._leave, always_call=True),
            ]

    def disarm(self) -> None:
        """Take the hooks away and forget the calls."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.forget()

    def forget(self) -> None:
        """Forget the calls of the step that has passed (they hold references to modules)."""
        self.calls = []
        self.roots = {}
        self._stack = []
        self._counts = {}

    def _ignored(self) -> bool:
        return (
            self.in_backward
            or threading.get_ident() != self._thread
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
        )

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self._ignored():
            return
        if not torch.is_grad_enabled():
            self._stack.append(None)
            return
        index = self._counts.get(id(module), 0)
        self._counts[id(module)] = index + 1
        call = Call(module=module, index=index, first=sequence_number(), depth=len(self._stack))
        if not any(self._stack):
            self.roots[id(module)] = module
        self._stack.append(call)
        self.calls.append(call)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._ignored() or not self._stack:
            return
        call = self._stack.pop()
        if call is None or call.module is not module:
            return  # an exception unwound part of the stack
        call.last = sequence_number()
        if any(p is not None and p.dim() > 1 for p in module._parameters.values()):
            try:
                self._measure(call, args, output)
            except Exception as error:
                self.on_fault("forward", error)

    @staticmethod
    def _measure(call: Call, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output
        with torch.no_grad():
            if isinstance(first, Tensor) and first.numel() and first.layout is torch.strided:
                call.output_count = first.numel()
                call.output_spread = spread(first)
            entry = args[0] if isinstance(args, tuple) and args else None
            if isinstance(entry, Tensor) and entry.numel() and entry.is_floating_point():
                call.input_spread = spread(entry)


def innermost(calls: list[Call], numbers: list[int]) -> list[Call | None]:
    """For each sequence number (rising), the innermost call that it was made in."""
    out: list[Call | None] = []
    ordered = sorted((c for c in calls if c.last > c.first), key=lambda c: (c.first, c.depth))
    stack: list[Call] = []
    position = 0
    for number in numbers:
        while position < len(ordered) and ordered[position].first <= number:
            stack.append(ordered[position])
            position += 1
        while stack and stack[-1].last <= number:
            stack.pop()
        out.append(stack[-1] if stack else None)
    return out
