"""What happens around an optimizer's step: closures that compute the gradients in it, and the gradients at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from unvanish.errors import SurgeryError
from unvanish.treatment.kinds import EMBEDDINGS
from unvanish.treatment.registers import StepHooks

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def closure_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """The closure among step's arguments (args[0] is the optimizer), which makes the gradients inside of the step."""
    found = kwargs.get("closure", args[1] if len(args) > 1 else None)
    return found if callable(found) else None


def with_closure(args: tuple[Any, ...], kwargs: dict[str, Any], closure: Callable[..., Any]) -> Arguments:
    """The same arguments with another closure."""
    if "closure" in kwargs:
        return args, {**kwargs, "closure": closure}
    return (args[0], closure, *args[2:]), kwargs


def own_parameters(module: nn.Module, optimizer: Optimizer) -> list[nn.Parameter]:
    """The parameters of a module that this optimizer updates and that have a gradient, in the module's order."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [p for p in module.parameters() if id(p) in held and p.grad is not None]


def scale_of(optimizer: Optimizer) -> float:
    """What a GradScaler has multiplied the gradients by that this step sees.

    GradScaler.step divides them before the optimizer's step begins; for a fused optimizer it leaves that to the
    kernel, and tells the scale by an attribute.
    """
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(torch.as_tensor(scale))


def values_of(gradient: torch.Tensor) -> torch.Tensor:
    """The numbers of a gradient, those that are stored where it is sparse."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def refuse_sparse(root: nn.Module) -> None:
    """Refuse gradients that can't be written element by element.

    Raises:
        SurgeryError: an embedding with sparse gradients.
    """
    for path, module in root.named_modules():
        if isinstance(module, EMBEDDINGS) and module.sparse:
            raise SurgeryError(f"{path or 'the model'} has sparse gradients", "build it with sparse=False")


class Nested:
    """Two hooks around a step, one inside of the other: the outer one is first before the step, and last after it."""

    def __init__(self, outer: StepHooks, inner: StepHooks) -> None:
        """Hold both."""
        self._outer, self._inner = outer, inner

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The outer one, then the inner one with the arguments that the outer one left."""
        args, kwargs = self._outer.before_step(optimizer, args, kwargs) or (args, kwargs)
        return self._inner.before_step(optimizer, args, kwargs) or (args, kwargs)

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The inner one, then the outer one."""
        self._inner.after_step(optimizer, args, kwargs)
        self._outer.after_step(optimizer, args, kwargs)
