"""Drawing weights from own generators: data order and dropout stay those of the untreated twin."""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
import sys
from collections.abc import Iterator

import torch
from torch import nn

from unvanish.treatment.anatomy import TRANSPOSED, weight_of


def generator_for(seed: int, path: str) -> torch.Generator:
    """A CPU generator for one layer, from a seed and the layer's path: the order of drawing is no matter."""
    digest = hashlib.blake2b(f"{seed}:{path}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def current_seed() -> int:
    """The seed of torch's default generator, read without drawing from it."""
    return int(torch.initial_seed())


def fan_in(module: nn.Module) -> int:
    """Inputs that one output element sums over. Transposed convolutions: on average over output positions."""
    shape = weight_of(module).shape
    if isinstance(module, TRANSPOSED):
        taps = math.prod(shape[2:]) / math.prod(module.stride)
        return max(1, round(shape[0] // module.groups * taps))
    return math.prod(shape[1:])


def fan_out(module: nn.Module) -> int:
    """Outputs that one input element feeds."""
    shape = weight_of(module).shape
    return shape[1 if isinstance(module, TRANSPOSED) else 0] * math.prod(shape[2:])


def scaled(
    shape: torch.Size, deviation: float, distribution: str, generator: torch.Generator
) -> torch.Tensor:
    """A tensor of this standard deviation and mean 0, "normal" or "uniform"."""
    draw = torch.empty(shape)
    if distribution == "uniform":
        return draw.uniform_(-1.0, 1.0, generator=generator) * (deviation * math.sqrt(3.0))
    return draw.normal_(0.0, 1.0, generator=generator) * deviation


def orthogonal(shape: torch.Size, gain: float, generator: torch.Generator) -> torch.Tensor:
    """A (semi-)orthogonal matrix [out, in * kernel], times gain (Saxe et al. 2014).

    Where it widens (out > in), the columns are orthonormal and it is scaled by sqrt(out / in), so that
    fan_in Var(W) = gain^2 there too and the size of the outputs does not depend on the widths.
    """
    rows, columns = shape[0], math.prod(shape[1:])
    matrix = torch.empty(rows, columns)
    nn.init.orthogonal_(matrix, generator=generator)
    return (matrix * (gain * math.sqrt(max(1.0, rows / columns)))).reshape(shape)


@contextlib.contextmanager
def quiet_rng(model: nn.Module) -> Iterator[None]:
    """Put the random state of torch (CPU and the model's GPUs), python and numpy back at the end."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
