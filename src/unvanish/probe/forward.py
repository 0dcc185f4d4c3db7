"""Which module made which operation: the forward calls of a traced step, by autograd's sequence numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from unvanish.probe.chance import Prediction, prediction_of
from unvanish.probe.local import here
from unvanish.probe.samples import TRACE_SAMPLE, Sample, take
from unvanish.probe.standin import LAYERS

MOST_CALLS = 100_000  # remembered; a script may call its model all day with gradients on, and never train it
MOST_BYTES = 64 * 2**20  # of samples of what they gave
MOST_OUTPUTS, MOST_ELEMENTS = 8, 2**22  # of one call that are remembered until the backward pass
ROWS, FEATURES = 64, 128  # of an input that are compared with one another


@dataclass(slots=True)
class Call:
    """One call of one module. Operations with first <= sequence number < last were made inside of it."""

    module: nn.Module
    first: int
    last: int = -1
    depth: int = 0  # 0 = called by the script itself, not by another module
    output: Sample | None = None  # of the module's (first) output
    entry: Sample | None = None  # of its first input
    rows: Tensor | None = None  # some of that input's samples, some features of each
    predictions: tuple[Prediction, ...] = ()  # what it gave to the script itself
    hooked: bool = (
        False  # a recurrent layer whose saved tensors go through hooks of the script's or of torch's
    )


def sequence_number() -> int:
    """The number that autograd gives the next operation of this thread."""
    return int(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]


@dataclass
class ForwardWatch:
    """Sees every module call, in place only while a step is traced.

    It stands in for nn.Module.__call__ rather than using torch's global forward hooks: those send every call
    through another branch of torch's own code, which would show in the traceback of a script that crashes.
    Calls in other threads, without grad mode, or during a backward pass (recomputation) are not noted.
    Calls of compiled modules go to `on_compiled(original __call__, module, args, kwargs)`, which makes them.
    """

    on_fault: Callable[[str, Exception], None]
    on_compiled: Callable[[Callable[..., Any], nn.Module, Any, Any], Any] | None = None
    size: int = TRACE_SAMPLE  # elements looked at per tensor
    entries: bool = (
        True  # whether what goes in is looked at too: wanted once, for the description of the layers
    )
    calls: list[Call] = field(default_factory=list)
    in_backward: bool = False
    armed: bool = False  # whether calls are seen
    asides: int = 0  # how many want torch's own nn.Module.__call__ just now
    _held: int = 0  # bytes of samples
    _depth: int = 0
    _marks: list[int] = field(default_factory=list)
    _thread: int = field(default_factory=threading.get_ident)

    @property
    def predictions(self) -> list[Prediction]:
        """What modules gave to the script itself, as far as it wants gradients."""
        return [p for call in self.calls for p in call.predictions]

    @property
    def roots(self) -> list[nn.Module]:
        """The modules that the script itself called, each once."""
        return list({id(c.module): c.module for c in self.calls if c.depth == 0}.values())

    def arm(self) -> None:
        """Begin to see calls of this thread. Called between steps, so that no forward is under way."""
        if not self.in_backward:  # an optimizer may step in a thread of autograd's
            self._thread = threading.get_ident()
        if not self.armed:
            self.armed = True
            LAYERS.add(self)

    def over(self, original: Callable[..., Any], live: Callable[[], bool]) -> Callable[..., Any]:
        """What stands in for nn.Module.__call__, while `live()`."""

        def __call__(module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 - it stands in for it
            # first, so that dynamo sees torch's own code and nothing of ours
            if torch.compiler.is_compiling():
                return original(module, *args, **kwargs)
            call, special = self._meet(module, live)
            if special is not None:
                return special(original, module, args, kwargs)
            if call is None:
                return original(module, *args, **kwargs)
            try:
                output = original(module, *args, **kwargs)
            finally:
                self._depth -= 1
            self.look(call, args, output)
            return output

        return __call__

    def _meet(
        self, module: nn.Module, live: Callable[[], bool]
    ) -> tuple[Call | None, Callable[..., Any] | None]:
        """Begin to note a call, or say who makes it in torch's place."""
        try:
            if not live():
                return None, None
            if self.on_compiled is not None and is_compiled(module):
                return None, self.on_compiled
            return self.enter(module), None
        except Exception as error:
            self.on_fault("forward", error)
            return None, None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Meanwhile torch's own nn.Module.__call__ is in its place: compiled code must not meet ours."""
        self.step_aside()
        try:
            yield
        finally:
            self.step_back()

    def step_aside(self) -> None:
        """Put torch's own nn.Module.__call__ in its place, until as many calls of `step_back`."""
        self.asides += 1
        LAYERS.refresh()

    def step_back(self) -> None:
        """See calls again, where they were seen."""
        self.asides = max(0, self.asides - 1)
        LAYERS.refresh()

    def disarm(self) -> None:
        """See nothing any more, and forget the calls."""
        self.armed = False
        self.asides = self._depth = self._held = 0
        LAYERS.remove(self)
        self._marks = []
        self.calls = []

    def forget(self, keep: int) -> None:
        """Forget the calls from before the last `keep` optimizer steps (they hold references to modules).

        A GAN's generator runs before the discriminator's step and is stepped after it: its calls must
        outlive that.
        """
        self._marks.append(sequence_number())
        if len(self._marks) > keep:
            self._marks = self._marks[len(self._marks) - keep - 1 :]
            self._keep([c for c in self.calls if c.first >= self._marks[0]])

    def _keep(self, calls: list[Call]) -> None:
        self.calls = calls
        self._held = sum(s.part.nbytes for c in calls for s in (c.output, c.entry) if s is not None)

    def _ignored(self) -> bool:
        return (
            self.in_backward or threading.get_ident() != self._thread or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        )

    def enter(self, module: nn.Module) -> Call | None:
        """Begin to note a call; None where it is not to be noted. Each call that is noted needs its `leave`."""
        if self._ignored() or not torch.is_grad_enabled():
            return None
        if len(self.calls) >= MOST_CALLS or self._held > MOST_BYTES:
            self._keep(self.calls[len(self.calls) // 2 :])
        call = Call(module, sequence_number(), -1, self._depth)
        if isinstance(module, nn.RNNBase):
            call.hooked = _saving_is_hooked()
        self.calls.append(call)
        self._depth += 1
        return call

    def leave(self) -> None:
        """The call is over, well or not."""
        self._depth -= 1

    def look(self, call: Call, args: Any, output: Any) -> None:
        """The call went well: measure what went in and came out, where the module has weights of its own."""
        try:
            call.last = sequence_number()
            if call.depth == 0:
                call.predictions = _predictions(output)
            parameters = call.module._parameters
            if parameters and any(p is not None and p.dim() > 1 for p in parameters.values()):
                self._measure(call, args, output)
        except Exception as error:
            self.on_fault("forward", error)

    def _measure(self, call: Call, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output
        with torch.no_grad():
            if _whole(first) and first.layout is torch.strided:
                call.output = take(first, self.size)
                self._held += call.output.part.nbytes
            entry = args[0] if self.entries and isinstance(args, tuple) and args else None
            if _whole(entry) and entry.is_floating_point():
                call.entry = take(entry, self.size)
                self._held += call.entry.part.nbytes
                if entry.dim() > 1 and entry.layout is torch.strided:
                    call.rows = _rows(entry)


def _predictions(output: Any) -> tuple[Prediction, ...]:
    parts = (
        output.values()
        if isinstance(output, dict)
        else output
        if isinstance(output, tuple | list)
        else (output,)
    )
    wanted = (
        o for o in islice(parts, MOST_OUTPUTS) if _whole(o) and o.requires_grad and o.numel() <= MOST_ELEMENTS
    )
    return tuple(p for p in map(prediction_of, wanted) if p is not None)


def _saving_is_hooked() -> bool:
    """Whether what operations save just now goes through hooks; True where torch is too old to say."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is None or top(True) is not None


def _rows(entry: Tensor) -> Tensor:
    """A copy of every so many of its samples, of each of these every so many features; float32."""
    flat = entry.detach().flatten(1)
    steps = (max(1, flat.shape[0] // ROWS), max(1, flat.shape[1] // FEATURES))
    return flat[:: steps[0], :: steps[1]].to(torch.float32, copy=True)


def _whole(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a tensor with elements, all of them in this process."""
    return isinstance(value, Tensor) and value.numel() > 0 and here(value) is value


def is_compiled(module: nn.Module) -> bool:
    """Whether calling this very module runs compiled code (torch.compile(module), or module.compile())."""
    return type(module).__name__ == "OptimizedModule" or (
        module.__dict__.get("_compiled_call_impl") is not None
    )


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
