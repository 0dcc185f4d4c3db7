"""Weights in float32 that the optimizer updates; the model keeps, and computes with, their half-precision copies."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from unvanish.treatment.loss_scale import HALVES
from unvanish.treatment.stepping import Arguments, closure_of, with_closure

_UNIFORM = 1e-3  # of the squared norm: what may be left when a factor explains how gradients were changed


@final
class MasterWeights:
    """For the time of a step the parameters hold their float32 masters and float32 gradients.

    They stay the same objects, so that groups, schedulers and zero_grad work as ever. With loss scaling, `arrives`
    is told each gradient before it is rounded to half precision; what the script does to the rounded ones (clipping
    by one factor, or anything else) is done to them as well.
    """

    def __init__(self, module: nn.Module) -> None:
        """Masters begin as the weights are."""
        self._module = module
        self._masters: Any = WeakTensorKeyDictionary()
        self._arriving: Any = WeakTensorKeyDictionary()
        self._exact: Any = (
            WeakTensorKeyDictionary()
        )  # parameter -> (float32 gradient, the rounded one, its version)
        self._handles: list[RemovableHandle] = []
        self._swapped: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor | None]] = []
        for parameter in _halves(module):
            self._masters[parameter] = parameter.detach().float()

    def listen(self) -> None:
        """Keep the exact gradients, from `arrives` on."""
        for parameter in _halves(self._module):
            if parameter.requires_grad:
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._accumulated))

    def stop(self) -> None:
        """Leave the model as it is, in half precision."""
        self._swap_out()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def arrives(self, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        """Note a gradient (float32 for half-precision weights), and round it."""
        if parameter.dtype in HALVES:
            before = None if parameter.grad is None else self._gradient(parameter)
            self._arriving[parameter] = gradient.detach() if before is None else before + gradient.detach()
        return gradient.to(parameter.dtype)

    # --- around a step --------------------------------------------------------------------------------------

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        """Put the masters in."""
        self._swap_out()  # a step before that failed half way
        closure = closure_of(args, kwargs)
        self._swap_in(optimizer)
        if closure is None:
            return None

        def in_half_precision(*given: Any, **named: Any) -> Any:
            self._swap_out()
            loss = closure(*given, **named)
            self._swap_in(optimizer)
            return loss

        return with_closure(args, kwargs, in_half_precision)

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002
        """Round the new weights into the model."""
        self._swap_out()
        self._exact = WeakTensorKeyDictionary()  # these gradients have done their work

    def _swap_in(self, optimizer: Optimizer) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        own = [p for p in _halves(self._module) if id(p) in held]
        factor = self._factor(own)
        for parameter in own:
            half, rounded = parameter.data, parameter.grad
            exact = None if rounded is None else self._exact_or(parameter, factor)
            master = self._masters.get(parameter)
            if master is None or master.device != half.device:
                master = half.float()
            # the script may have written the weights: those are the ones that count
            master = torch.where(master.to(half.dtype) == half, master, half.float())
            self._swapped.append((parameter, half, rounded))
            parameter.grad = None
            parameter.data = master
            parameter.grad = exact
            for name, moment in optimizer.state.get(parameter, {}).items():
                if isinstance(moment, torch.Tensor) and moment.dtype in HALVES:  # a state that was loaded
                    optimizer.state[parameter][name] = moment.float()

    def _swap_out(self) -> None:
        for parameter, half, rounded in self._swapped:
            self._masters[parameter] = parameter.data
            half.copy_(parameter.data)
            parameter.grad = None
            parameter.data = half
            parameter.grad = rounded
        self._swapped = []

    # --- exact gradients ------------------------------------------------------------------------------------

    def _accumulated(self, parameter: torch.Tensor) -> None:
        arrived = self._arriving.pop(parameter, None)
        gradient = parameter.grad
        if arrived is not None and gradient is not None:
            self._exact[parameter] = (arrived, gradient, gradient._version)

    def _untouched(self, parameter: nn.Parameter) -> bool:
        if parameter not in self._exact:
            return False
        _, rounded, version = self._exact[parameter]
        return parameter.grad is rounded and rounded is not None and bool(rounded._version == version)

    def _gradient(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """The float32 gradient so far: the exact one, unless the script has changed the rounded one."""
        if self._untouched(parameter):
            exact: torch.Tensor = self._exact[parameter][0]
            return exact
        return None if parameter.grad is None else parameter.grad.float()

    def _exact_or(self, parameter: nn.Parameter, factor: float | None) -> torch.Tensor | None:
        if factor is not None and not self._untouched(parameter) and parameter in self._exact:
            scaled: torch.Tensor = self._exact[parameter][0] * factor
            return scaled
        return self._gradient(parameter)

    def _factor(self, parameters: list[nn.Parameter]) -> float | None:
        """The one factor that the script has multiplied all gradients by (clipping), None where it did not."""
        changed = [
            p for p in parameters if p.grad is not None and p in self._exact and not self._untouched(p)
        ]
        pairs = [(p.grad.float(), self._exact[p][0]) for p in changed if p.grad is not None]
        squares = sum(float(exact.square().sum()) for _, exact in pairs)
        if not squares or any(self._exact[p][1] is not p.grad for p in changed):
            return None
        factor = sum(float((rounded * exact).sum()) for rounded, exact in pairs) / squares
        left = sum(float((rounded - factor * exact).square().sum()) for rounded, exact in pairs)
        return factor if left <= _UNIFORM * factor**2 * squares else None


def _halves(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.dtype in HALVES]
