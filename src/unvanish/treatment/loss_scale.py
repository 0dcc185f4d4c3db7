"""Loss scaling without the script's help: the signal is scaled where it enters the model, and back at its leaves."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle, unserializable_hook
from torch.utils.weak import WeakTensorKeyDictionary

from unvanish.treatment.boundary import Boundary
from unvanish.treatment.stepping import Arguments, closure_of, own_parameters, values_of, with_closure
from unvanish.treatment.structures import map_tensors

START, GROWTH_STEPS = 2.0**16, 2000  # as torch.amp.GradScaler
LEAST, MOST = 2.0**-20, 2.0**32
HALVES = (torch.float16, torch.bfloat16)
SLOT = "_unvanish_loss_scale"


@final
class LossScale:
    """The scale of one model's signal, and the hooks that take it off again.

    It changes between two forward passes only, so that a backward pass meets one scale everywhere. A copy or an
    unpickled model does not scale: no optimizer is hooked for it.
    """

    def __init__(self, module: nn.Module) -> None:
        """Begin with GradScaler's scale."""
        self.scale = START
        self.active = True
        self.seen: Callable[[nn.Parameter, torch.Tensor], torch.Tensor] = _to_its_dtype
        self._module = module
        self._next = START
        self._good = 0
        self._handles: Any = WeakTensorKeyDictionary()
        self._put_aside: list[tuple[nn.Parameter, torch.Tensor]] = []

    def begin(self) -> None:
        """A forward pass begins: take up the new scale, and see that every trained parameter is hooked."""
        self.scale = self._next
        for parameter in self._module.parameters():
            if parameter.requires_grad and parameter not in self._handles:
                self._handles[parameter] = self._hook(parameter)

    def stop(self) -> None:
        """Take the hooks off, and scale no more."""
        self.active = False
        for handle in list(self._handles.values()):
            handle.remove()
        self._handles = WeakTensorKeyDictionary()

    # --- around a step --------------------------------------------------------------------------------------

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        """A step with a gradient that is not finite is skipped: for want of gradients, the weights stay."""
        closure = closure_of(args, kwargs)
        if closure is None:
            self._judge(optimizer)
            return None

        def judged(*given: Any, **named: Any) -> Any:
            self._put_back()
            loss = closure(*given, **named)
            self._judge(optimizer)
            return loss

        return with_closure(args, kwargs, judged)

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002
        """The gradients of a skipped step are there again, as the script may look at them."""
        self._put_back()

    def _judge(self, optimizer: Optimizer) -> None:
        parameters = own_parameters(self._module, optimizer)
        with torch.no_grad():
            finite = all(
                bool(torch.isfinite(values_of(p.grad)).all()) for p in parameters if p.grad is not None
            )
        if not parameters:
            return
        if not finite:
            self._next, self._good = max(LEAST, self.scale / 2), 0
            self._put_aside = [(p, p.grad) for p in _every(optimizer) if p.grad is not None]
            for parameter, _ in self._put_aside:
                parameter.grad = None
            return
        self._good += 1
        if self._good >= GROWTH_STEPS:
            self._next, self._good = min(MOST, self.scale * 2), 0

    def _put_back(self) -> None:
        for parameter, gradient in self._put_aside:
            parameter.grad = gradient
        self._put_aside = []

    # --- inside ---------------------------------------------------------------------------------------------

    def _hook(self, parameter: nn.Parameter) -> RemovableHandle:
        alive = weakref.ref(parameter)  # a parameter that is held by its own hook would stay for ever

        def unscale(gradient: torch.Tensor) -> torch.Tensor:
            exact = gradient.float() if gradient.dtype in HALVES else gradient
            owner = alive()
            return gradient if owner is None else self.seen(owner, exact / self.scale)

        handle: RemovableHandle = parameter.register_hook(unserializable_hook(unscale))
        return handle

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, _state: dict[str, Any]) -> None:
        self.active, self.scale = False, 1.0


@final
@dataclass(frozen=True, slots=True)
class ScaledSignal(Boundary):
    """The gradient that enters at the results is scaled up, the one that leaves at the arguments is scaled down."""

    def enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Arguments that need a gradient get the true one."""
        state = model.__dict__.get(SLOT)
        if state is None or not state.active or not torch.is_grad_enabled():
            return args, kwargs
        state.begin()
        return map_tensors(args, _scaler(state, up=False)), map_tensors(kwargs, _scaler(state, up=False))

    def leave(self, model: nn.Module, result: Any) -> Any:
        """Results send a scaled gradient back.

        Raises:
            SurgeryError: a result whose tensors can't be reached.
        """
        state = model.__dict__.get(SLOT)
        if state is None or not state.active or not torch.is_grad_enabled():
            return result
        return map_tensors(result, _scaler(state, up=True), strict=True)


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied (up) or divided by the scale of the moment."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, state: LossScale, up: bool) -> torch.Tensor:
        """Hand the values on: a copy, since scripts may change a result in place."""
        ctx.state, ctx.up = state, up
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Scale the gradient."""
        factor = ctx.state.scale if ctx.up else 1.0 / ctx.state.scale
        return gradients[0] * factor, None, None


def _scaler(state: LossScale, *, up: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    def scale(x: torch.Tensor) -> torch.Tensor:
        if not x.requires_grad:
            return x
        scaled: torch.Tensor = _ScaleGradient.apply(x, state, up)  # type: ignore[no-untyped-call]
        return scaled

    return scale


def _to_its_dtype(parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to(parameter.dtype)


def _every(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
