"""The few functions of torch that are stood in for while a run is watched, each put back as it was."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad

from unvanish.probe.local import here, local_gradient

NORM_EPS = 1e-6  # what torch adds to the norm before it divides by it
_MOST_SCALED = 64  # losses that live at once, of which the scale is known


class Seams:
    """Stand-ins for functions, taken back in the reverse order."""

    def __init__(self) -> None:
        """None at first."""
        self._placed: list[tuple[Any, str, Any, Any]] = []

    def place(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put `make(original)` in the place of `owner.name`; nothing where this torch has no such function."""
        original = getattr(owner, name, None)
        if original is None:
            return
        ours = make(original)
        ours.__wrapped__ = original  # type: ignore[attr-defined]
        ours.__doc__ = original.__doc__
        setattr(owner, name, ours)
        self._placed.append((owner, name, original, ours))

    def take_back(self) -> None:
        """Put the originals back, save where someone else has put something in since.

        Another watch may have: then it puts back what was below ours.
        """
        for owner, name, original, ours in reversed(self._placed):
            ours.taken_back = True
            if getattr(owner, name, None) is ours:
                below = original
                while getattr(below, "taken_back", False):
                    below = below.__wrapped__
                setattr(owner, name, below)
        self._placed = []


def see_clipping(seams: Seams, tell: Callable[[list[Tensor], Any, Tensor], None]) -> None:
    """Call `tell(parameters, largest norm allowed, norm found)` at each clip_grad_norm_, however it was imported."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def clip(parameters: Any, max_norm: Any, total_norm: Any, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                several = [parameters] if isinstance(parameters, Tensor) else list(parameters)
                parameters = several  # a generator would be empty the second time
                norm = here(total_norm)
                if norm is None:
                    return _clipped_in_pieces(original, tell, several, (max_norm, total_norm, *args), kwargs)
                tell(several, max_norm, norm)
            return original(parameters, max_norm, total_norm, *args, **kwargs)

        return clip

    seams.place(clip_grad, "_clip_grads_with_norm_", make)


def _clipped_in_pieces(
    original: Callable[..., Any],
    tell: Callable[[list[Tensor], float, Tensor], None],
    parameters: list[Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Where the norm is yet to be added up over the processes, the factor is read off this one's gradients."""
    pieces = [g for p in parameters if (g := local_gradient(p)) is not None and g.numel()]
    largest = max(pieces, key=Tensor.numel, default=None)
    before = None if largest is None else largest.detach().abs().max()
    result = original(parameters, *args, **kwargs)
    if largest is not None and before is not None:
        ratio = before / largest.detach().abs().max()
        tell(parameters, 1.0, torch.where(before > 0, ratio - NORM_EPS, 0.0))
    return result


class Captures:
    """Keeps us away from a CUDA graph that is being captured.

    While one is, a call from any other thread that waits for the device would spoil it (torch captures in "global"
    mode), and what our hooks do in the capturing thread would become part of the graph.
    """

    def __init__(self) -> None:
        """Nothing is captured yet."""
        self.active = False
        self.reading = threading.Lock()  # held by the writer's thread while it reads from a device

    def place(self, seams: Seams) -> None:
        """Stand in for the beginning and the end of a capture."""
        graph = torch.cuda.CUDAGraph
        seams.place(graph, "capture_begin", self._begin)
        seams.place(graph, "capture_end", self._end)

    def _begin(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def capture_begin(graph: Any, *args: Any, **kwargs: Any) -> Any:
            with self.reading:  # what is being read now is a few kilobytes
                self.active = True
            try:
                return original(graph, *args, **kwargs)
            except BaseException:
                self.active = False
                raise

        return capture_begin

    def _end(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def capture_end(graph: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(graph, *args, **kwargs)
            finally:
                self.active = False

        return capture_end


class LossScale:
    """Knows by what GradScaler multiplied a loss, and which steps it skipped."""

    def __init__(self, skipped: Callable[[Any], None], on_fault: Callable[[str, Exception], None]) -> None:
        """`skipped(optimizer)` is called when the scaler left a step out."""
        self._skipped = skipped
        self._fault = on_fault
        self._scaled: list[tuple[weakref.ref[Tensor], Tensor]] = []
        self.stepped = False  # set by the engine when an optimizer steps

    def place(self, seams: Seams) -> None:
        """Stand in for GradScaler's `scale` and for its decision to step."""
        scaler = torch.amp.GradScaler
        seams.place(scaler, "scale", self._see_scale)
        seams.place(scaler, "_maybe_opt_step", self._see_step)

    def of(self, loss: Tensor) -> Tensor | None:
        """The factor in this loss, as a tensor on its device; None = it was not scaled."""
        return next((factor for ref, factor in self._scaled if ref() is loss), None)

    def _see_scale(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def scale(scaler: Any, outputs: Any) -> Any:
            scaled = original(scaler, outputs)
            try:
                self._note(scaled, outputs, getattr(scaler, "_scale", None))
            except Exception as error:
                self._fault("loss scale", error)
            return scaled

        return scale

    def _note(self, scaled: Any, outputs: Any, factor: Any) -> None:
        if isinstance(scaled, Tensor) and isinstance(factor, Tensor) and scaled is not outputs:
            alive = [(ref, f) for ref, f in self._scaled if ref() is not None]
            self._scaled = [*alive[-_MOST_SCALED:], (weakref.ref(scaled), factor.detach().clone())]

    def _see_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def maybe_step(scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            self.stepped = False
            result = original(scaler, optimizer, *args, **kwargs)
            if not self.stepped:
                self._skipped(optimizer)
            return result

        return maybe_step
