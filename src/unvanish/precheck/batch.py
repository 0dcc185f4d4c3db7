"""From what a user hands in to one call of the model and its loss, and an example where there is no batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.errors import UsageError
from unvanish.treatment.treatment import Batch

LossFunction = Callable[..., Any]
EXAMPLES, IMAGES, SIDE, LENGTH, STEPS = 64, 8, 32, 32, 16


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

    A tensor is the model's input. Of a tuple or list, forward takes as many as it needs, and what is left over is the
    target of `loss_fn(output, target)`. A dict holds keyword arguments; what forward has no name for is the target.
    """
    if isinstance(batch, Batch):
        return batch, _bound(loss_fn)
    if isinstance(batch, Tensor):
        return Batch(args=(batch,)), _bound(loss_fn)
    if isinstance(batch, Mapping):
        return _from_mapping(model, batch, loss_fn)
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes) and batch:
        return _from_sequence(model, batch, loss_fn)
    raise UsageError(f"received a {type(batch).__name__} as the batch", _MEND)


def _from_sequence(
    model: nn.Module, batch: Sequence[Any], loss_fn: LossFunction | None
) -> tuple[Batch, Loss | None]:
    least, most = _positions(model)
    count = len(batch)
    taken = count - 1 if loss_fn is not None and count > 1 else min(count, max(least, 1))
    taken = max(1, min(taken, most))
    targets = batch[taken:]
    return Batch(args=tuple(batch[:taken])), _bound(loss_fn, targets)


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


def example_for(model: nn.Module, seed: int) -> Batch:
    """Random numbers of the shape that the first layer takes.

    Raises:
        UsageError: the first layer with weights does not say it, or forward takes several arguments.
    """
    least, _ = _positions(model)
    first = next((m for m in model.modules() if any(True for _ in m.parameters(recurse=False))), None)
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    made = None if first is None or least > 1 else _input_of(first, torch.Generator().manual_seed(seed))
    if made is None:
        what = "no layer" if first is None else f"a {type(first).__name__} first"
        takes = f"{least} arguments" if least > 1 else what
        raise UsageError(
            f"the factory gives a model alone, and no example input could be made for it (it has {takes})",
            "return (model, batch), or (model, batch, loss_fn)",
        )
    dtype = parameter.dtype if parameter is not None and made.is_floating_point() else made.dtype
    return Batch(args=(made.to(device=device, dtype=dtype),))


def _input_of(first: nn.Module, generator: torch.Generator) -> Tensor | None:
    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    if isinstance(first, nn.Linear):
        return noise(EXAMPLES, first.in_features)
    if isinstance(first, nn.Conv1d):
        return noise(IMAGES, first.in_channels, 4 * SIDE)
    if isinstance(first, nn.Conv2d):
        return noise(IMAGES, first.in_channels, SIDE, SIDE)
    if isinstance(first, nn.Conv3d):
        return noise(IMAGES, first.in_channels, SIDE // 2, SIDE // 2, SIDE // 2)
    if isinstance(first, nn.Embedding):
        return torch.randint(0, first.num_embeddings, (IMAGES, LENGTH), generator=generator)
    if isinstance(first, nn.RNNBase):
        shape = (EXAMPLES, STEPS) if first.batch_first else (STEPS, EXAMPLES)
        return noise(*shape, first.input_size)
    if isinstance(first, nn.BatchNorm1d | nn.LayerNorm) and isinstance(first.weight, Tensor):
        return noise(EXAMPLES, *first.weight.shape)
    return None
