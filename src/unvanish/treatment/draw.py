"""Drawing weights from own generators: data order and dropout stay those of the untreated twin."""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from unvanish.treatment.anatomy import TRANSPOSED, weight_of

# A script that seeds torch and then draws its data would find the same numbers in its weights if these were drawn
# from a generator of the very same seed.
SEED_MARK = 0x5EED


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How one parameter gets new values, so plainly that a few lines of torch do the same.

    `size` is the standard deviation of "normal", the half-width of "uniform", the gain of "orthogonal", the value
    of "constant"; "centred" is a bias of -size times the sums over the weight's inputs. `pieces` equal parts along
    the first dimension (gates, groups, q/k/v) are drawn one after the other; those of `kept` are left as they are.
    `blank` is a row that is set to 0 at the end (an embedding's padding).
    """

    kind: Literal["normal", "uniform", "orthogonal", "constant", "centred"]
    size: float
    pieces: int = 1
    kept: tuple[int, ...] = ()
    blank: int | None = None

    def values(
        self, now: torch.Tensor, generator: torch.Generator, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """New values in the shape of `now`, float32 on the CPU; `weight` is what a centred bias is made for."""
        fresh = torch.empty(now.shape, dtype=torch.float32)
        for place, (old, part) in enumerate(
            zip(now.detach().chunk(self.pieces), fresh.chunk(self.pieces), strict=True)
        ):
            if place in self.kept:
                part.copy_(old)
            else:
                self._fill(part, generator, weight)
        if self.blank is not None:
            fresh[self.blank] = 0.0
        return fresh

    def _fill(self, part: torch.Tensor, generator: torch.Generator, weight: torch.Tensor | None) -> None:
        if self.kind == "normal":
            nn.init.normal_(part, std=self.size, generator=generator)
        elif self.kind == "uniform":
            nn.init.uniform_(part, -self.size, self.size, generator=generator)
        elif self.kind == "orthogonal":
            nn.init.orthogonal_(part, self.size, generator=generator)
        elif self.kind == "centred" and weight is not None:
            part.copy_(-self.size * weight.flatten(1).sum(1))
        else:
            nn.init.constant_(part, self.size)


def init_generator(seed: int, target: str = "*") -> torch.Generator:
    """The CPU generator that one init draws all its weights from, in the order of `named_modules()`.

    Two inits of one recipe, on two parts of the model, draw different numbers.
    """
    return torch.Generator().manual_seed(seed ^ seed_mark(target))


def seed_mark(target: str = "*") -> int:
    """What a seed is xor-ed with for an init of this part of the model."""
    return SEED_MARK if target == "*" else SEED_MARK ^ zlib.crc32(target.encode())


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
    """Outputs that one input element feeds (the stride aside, as torch counts)."""
    shape = weight_of(module).shape
    outward = shape[1] if isinstance(module, TRANSPOSED) else shape[0] // groups_of(module)
    return outward * math.prod(shape[2:])


def groups_of(module: nn.Module) -> int:
    """Into how many separate maps a convolution's weight falls, along its first dimension; 1 for a Linear."""
    groups = getattr(module, "groups", 1)
    return groups if isinstance(groups, int) else 1


def orthogonal_gain(shape: torch.Size | tuple[int, ...], inward: int, gain: float, pieces: int = 1) -> float:
    """The factor on a (semi-)orthogonal matrix that gives fan_in Var(W) = gain^2 for every shape.

    torch's orthonormal rows (or columns) have variance 1 / max(rows, columns): where a layer widens, it is scaled
    by sqrt(out / in), so that the size of the outputs does not depend on the widths (Saxe et al. 2014).
    """
    rows = shape[0] // pieces
    return float(gain * (max(rows, math.prod(shape[1:])) / inward) ** 0.5)


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
