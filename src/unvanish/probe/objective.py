"""One loss of a model on one batch: how the two are put together, and what stands in for what is not given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.errors import UsageError
from unvanish.probe.batch import LossFunction, as_call

COTANGENT_SEED = 0
_CALL = "batch is what the model is called with, or a pair (inputs, targets) beside a loss_fn"


def loss_of(model: nn.Module, batch: Any, loss_fn: LossFunction | None) -> Tensor:
    """A single number that the gradient is taken of; the batch is read as by `as_call`.

    Without a `loss_fn`, the model's own loss is taken where it gives one (`.loss`, ["loss"] or a single number), else
    a random direction at its output: all outputs times fixed random numbers, summed.

    Raises:
        UsageError: the model or the loss raised, or what came out is no loss.
    """
    call, loss_of_output = as_call(model, batch, loss_fn)
    try:
        output = model(*call.args, **call.kwargs)
    except Exception as error:
        raise UsageError(
            f"the model could not be called with this batch: {type(error).__name__}: {_first_line(error)}",
            _CALL,
        ) from error
    if loss_of_output is None:
        return _checked(_own_loss(output))
    try:
        loss = loss_of_output(output)
    except Exception as error:
        raise UsageError(
            f"the loss function raised {type(error).__name__}: {_first_line(error)}",
            "it is called as loss_fn(model(inputs), targets), with batch = (inputs, targets)",
        ) from error
    return _checked(loss)


def _own_loss(output: Any) -> Any:
    named = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(named, Tensor) and named.numel() == 1:
        return named
    if isinstance(output, Tensor) and output.dim() == 0:
        return output
    found = [t for t in _tensors(output) if t.requires_grad and (t.is_floating_point() or t.is_complex())]
    if not found:
        raise UsageError(
            "the model's output carries no gradient",
            "look for detach(), no_grad() or frozen parameters, or return (model, batch, loss_fn)",
        )
    generator = torch.Generator().manual_seed(COTANGENT_SEED)
    parts = []
    for tensor in found:
        real = tensor.abs() if tensor.is_complex() else tensor
        direction = (
            torch.randn(real.shape, generator=generator, dtype=torch.float64) / max(1, real.numel()) ** 0.5
        )
        parts.append((real * direction.to(real)).sum())
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)


def _checked(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor):
        raise UsageError(
            f"the loss is a {type(loss).__name__}, not a tensor", "return the loss itself, without .item()"
        )
    if loss.numel() != 1:
        raise UsageError(
            f"the loss is not a single number, but of shape {tuple(loss.shape)}", "reduce it, e.g. by .mean()"
        )
    if loss.grad_fn is None:
        raise UsageError(
            "the loss hangs on no parameter that is trained",
            "look for detach(), .item(), no_grad() or frozen parameters between the model and the loss",
        )
    return loss


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
