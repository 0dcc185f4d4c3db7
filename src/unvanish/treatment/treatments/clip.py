"""Gradient clipping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import nn
from torch.optim import Optimizer

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.parameters import Number, Settings, Spec
from unvanish.treatment.stepping import (
    Arguments,
    closure_of,
    own_parameters,
    refuse_sparse,
    scale_of,
    values_of,
    with_closure,
)
from unvanish.treatment.treatment import Operation, Treatment


@final
class Clip(Treatment):
    """Clip the gradients right before each optimizer step: their total norm, or each of their elements.

    `norm` is the largest total norm (over the parameters of the target that the stepping optimizer holds; several
    optimizers each clip their own share), `value` the largest absolute value of an element; one of the two. The
    gradients of GradScaler are clipped as they are without its scale, and those of a closure after it has run.
    Why: one steep place sends the weights far off, where nothing is learned any more; a recurrent net meets such
    places as often as its gain per step exceeds 1.
    When it is wrong: as the answer to a gradient that explodes with depth at every step: the clipped step then
    points where the first layers want to go, and the others get nothing. It can't bring a vanished signal back.
    Source: Pascanu, Mikolov & Bengio 2013.
    """

    name: ClassVar[TreatmentName] = "clip"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "norm": Number(low=1e-12, high=1e12),
        "value": Number(low=1e-12, high=1e12),
    }

    def operate(self, operation: Operation) -> None:
        """Hook the optimizers."""
        norm, value = _limits(operation.settings)
        module = operation.module()
        if not any(p.requires_grad for p in module.parameters()):
            raise SurgeryError(f"nothing in {operation.target!r} is trained", "choose another target")
        if value is not None:
            refuse_sparse(module)
        operation.surgery.hook_steps(GradientClip(module, norm=norm, value=value))


def _limits(settings: Settings) -> tuple[float | None, float | None]:
    norm, value = settings.optional("norm"), settings.optional("value")
    if (norm is None) == (value is None):
        raise SurgeryError("clip takes one of norm and value", 'give one, such as {"norm": 1.0}')
    return norm, value


@final
class GradientClip:
    """Clips the gradients of one module in front of a step."""

    def __init__(self, module: nn.Module, *, norm: float | None, value: float | None) -> None:
        """Clip by total norm or by value."""
        self._module = module
        self._norm = norm
        self._value = value

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        """Clip what is there, or what the closure is going to make."""
        closure = closure_of(args, kwargs)
        if closure is None:
            self._clip(optimizer)
            return None

        def clipped(*given: Any, **named: Any) -> Any:
            loss = closure(*given, **named)
            self._clip(optimizer)
            return loss

        return with_closure(args, kwargs, clipped)

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Nothing is left to do."""

    def _clip(self, optimizer: Optimizer) -> None:
        parameters, scale = own_parameters(self._module, optimizer), scale_of(optimizer)
        if not parameters:
            return
        with torch.no_grad():
            if self._norm is not None:
                _clip_norm(parameters, self._norm * scale)
            if self._value is not None:
                nn.utils.clip_grad_value_(parameters, self._value * scale)


def _clip_norm(parameters: list[nn.Parameter], limit: float) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not any(g.is_sparse for g in gradients):
        nn.utils.clip_grad_norm_(parameters, limit)
        return
    norms = torch.stack([values_of(g).norm() for g in gradients])  # torch's own function knows no sparse ones
    factor = torch.clamp(limit / (norms.norm() + 1e-6), max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
