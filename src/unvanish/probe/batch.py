"""From what a user hands in to one call of the model, and its loss as a function of the output alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from unvanish.errors import UsageError
from unvanish.schema.call import Batch

LossFunction = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss as a function of the model's output alone: what it compares with is held here."""

    function: LossFunction
    targets: tuple[Any, ...] = ()

    def __call__(self, output: Any) -> Any:
        """The loss of this output."""
        return self.function(output, *self.targets)


_MEND = "hand in a batch as the training loop has it: x, (x, y), or a dict of keyword arguments"


def as_call(model: nn.Module, batch: Any, loss_fn: LossFunction | None) -> tuple[Batch, Loss | None]:
    """The call `model(...)` that this batch means, and the loss as a function of its output alone.

    A pair (inputs, targets) beside a `loss_fn(output, targets)`: inputs that are a tuple are the model's arguments,
    a dict its keyword arguments. Of any other tuple or list forward takes as many as it needs; what is left over are
    further arguments of the loss. A dict holds keyword arguments; what forward has no name for are targets. All else
    is the model's one input.

    Raises:
        UsageError: nothing that a model could be called with.
    """
    if isinstance(batch, Batch):
        return batch, _bound(loss_fn)
    if batch is None or isinstance(batch, str | bytes | int | float | type):
        what = f"the class {batch.__name__}" if isinstance(batch, type) else f"a {type(batch).__name__}"
        raise UsageError(f"received {what} as the batch", _MEND)
    if isinstance(batch, Mapping):
        return _from_mapping(model, batch, loss_fn)
    if isinstance(batch, tuple | list) and batch and not hasattr(batch, "_fields"):
        return _from_sequence(model, batch, loss_fn)
    return Batch(args=(batch,)), _bound(loss_fn)


def _from_sequence(
    model: nn.Module, batch: Sequence[Any], loss_fn: LossFunction | None
) -> tuple[Batch, Loss | None]:
    least, most = _positions(model)
    count = len(batch)
    paired = loss_fn is not None and count == 2 and takes(loss_fn, 2)
    if paired and isinstance(batch[0], tuple | Mapping):
        inputs = batch[0]
        call = Batch(kwargs=dict(inputs)) if isinstance(inputs, Mapping) else Batch(args=tuple(inputs))
        return call, _bound(loss_fn, batch[1:])
    taken = count - 1 if loss_fn is not None and count > 1 else min(count, max(least, 1))
    taken = max(1, min(taken, most))
    targets = batch[taken:]
    if loss_fn is not None and targets and not takes(loss_fn, 1 + len(targets)) and count <= most:
        taken, targets = count, ()  # a loss of the output alone, and a model of so many arguments
    return Batch(args=tuple(batch[:taken])), _bound(loss_fn, targets)


def takes(function: Any, arguments: int) -> bool:
    """Whether it can be called with so many arguments; taken for granted where that can't be told."""
    try:
        inspect.signature(function.forward if isinstance(function, nn.Module) else function).bind(
            *range(arguments)
        )
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _from_mapping(
    model: nn.Module, batch: Mapping[str, Any], loss_fn: LossFunction | None
) -> tuple[Batch, Loss | None]:
    names, anything = _names(model)
    known = {k: v for k, v in batch.items() if anything or k in names}
    if not known:
        raise UsageError(
            f"forward of {type(model).__name__} has no argument {', '.join(map(repr, list(batch)[:4]))}",
            f"its arguments are {', '.join(names) or 'none'}",
        )
    targets = [v for k, v in batch.items() if k not in known]
    return Batch(kwargs=dict(known)), _bound(loss_fn, targets)


def _bound(loss_fn: LossFunction | None, targets: Sequence[Any] = ()) -> Loss | None:
    return None if loss_fn is None else Loss(loss_fn, tuple(targets))


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _positions(model: nn.Module) -> tuple[int, int]:
    """How many positional arguments forward needs, and takes at most."""
    parameters = _parameters(model)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    open_end = not parameters or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return sum(p.default is p.empty for p in named), 10**6 if open_end else len(named)


def _names(model: nn.Module) -> tuple[list[str], bool]:
    parameters = _parameters(model)
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return named, not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters)
