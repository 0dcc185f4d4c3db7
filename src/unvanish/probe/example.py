"""An input for a model that comes alone: guessed by the shape of its first layer, and tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.errors import UsageError

BATCH = 32
STEPS = 12
_SIDES = (32, 28, 8, 64, 96, 128, 224)


def example_input(model: nn.Module) -> Any:
    """A batch of standard normal numbers (or of indices) that the model takes.

    Raises:
        UsageError: none was found.
    """
    where = next((p.device for p in model.parameters()), torch.device("cpu"))
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    generator = torch.Generator().manual_seed(0)
    last = ""
    for shape, most in _guesses(model):
        if most is None:
            guess = torch.randn(shape, generator=generator).to(where, kind)
        else:
            guess = torch.randint(most, shape, generator=generator).to(where)
        try:
            with torch.no_grad(), _as_it_was(model):
                model(guess)
        except Exception as error:
            last = f": {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            continue
        return guess
    raise UsageError(
        f"no example input could be guessed for {type(model).__name__}{last}",
        "return (model, batch) or (model, batch, loss_fn) instead of the model alone",
    )


def _guesses(model: nn.Module) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """(shape, for indices how many there are)."""
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield (BATCH, STEPS), module.num_embeddings
            yield (BATCH,), module.num_embeddings
        elif isinstance(module, nn.RNNBase):
            first, second = (BATCH, STEPS) if module.batch_first else (STEPS, BATCH)
            yield (first, second, module.input_size), None
        elif isinstance(module, nn.modules.conv._ConvNd):
            for side in _SIDES:
                yield (8, module.in_channels, *(side,) * len(module.kernel_size)), None
        elif isinstance(module, nn.Linear):
            yield (BATCH, module.in_features), None
            yield (BATCH, STEPS, module.in_features), None
            side = round(module.in_features**0.5)
            if side * side == module.in_features:
                yield (BATCH, 1, side, side), None
        elif isinstance(module, nn.MultiheadAttention):
            yield (BATCH, STEPS, module.embed_dim), None
        elif isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
            yield (BATCH, *module.normalized_shape), None
            yield (BATCH, STEPS, *module.normalized_shape), None
        else:
            continue
        return


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    with kept(model):
        yield


@contextlib.contextmanager
def kept(*modules: Any) -> Iterator[None]:
    """Buffers (the running statistics of a norm, say) and random states are put back afterwards."""
    buffers: dict[int, tuple[Tensor, Tensor]] = {}
    for module in modules:
        if isinstance(module, nn.Module):
            buffers.update({id(b): (b, b.detach().clone()) for b in module.buffers()})
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, was in buffers.values():
                    buffer.copy_(was)
