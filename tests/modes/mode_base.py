"""What a mode is: a way to train, written once, that builds both the watched training and its float64 twin."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.schema.run import Run

DEVICE = os.environ.get("UNVANISH_DEVICE", "cpu")  # where the nets of all modes are; the twin's too
if DEVICE != "cpu":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_default_device(DEVICE)
    torch.use_deterministic_algorithms(True, warn_only=True)  # else two unwatched trainings differ
    torch.backends.cudnn.allow_tf32 = False  # its rounding is no fault of ours

STEPS = 6  # compared with the twin
LASTING = 50  # trained with and without watching, and compared bit by bit
FLOAT32 = 3e-4  # largest relative error that rounding explains, over STEPS steps
HALF = 6e-2  # the same where products are made in bfloat16 or float16


def seed(value: int = 0) -> None:
    """Seed every global generator."""
    torch.manual_seed(value)
    np.random.seed(value)  # noqa: NPY002 - scripts may use the global generator
    random.seed(value)


def backward(loss: Tensor, **options: Any) -> None:
    """How a mode calls backward, and nothing else. The twin puts a recorder in its place."""
    loss.backward(**options)


@dataclass(kw_only=True)
class Setting:
    """What a mode builds for: itself in float32, or the twin.

    `twin`: float64, and everything that only changes how it is computed (autocast, scaler, fused, checkpoint,
    micro-batches ...) left out. `width` and `rows` make it tiny for the comparison and larger for the clock.
    """

    twin: bool = False
    width: int = 12
    rows: int = 10
    dtype: torch.dtype = torch.float32
    backward: Callable[..., None] = backward

    def randn(self, *shape: int) -> Tensor:
        """The same numbers for a mode and its twin: drawn in float32 from the global generator."""
        return torch.randn(*shape).to(self.dtype)


def waited() -> None:
    """Wait until the device has done all that it was asked to do."""
    if DEVICE != "cpu":
        torch.cuda.synchronize()


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training under way. `models` in the order in which their optimizers step; `step` makes one whole step."""

    models: Sequence[nn.Module]
    optimizers: Sequence[torch.optim.Optimizer]
    step: Callable[[], None]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One mode of training, and what is expected of its numbers.

    `signals`: how many modules' outputs are compared at least at each step; 0 = none, and `note` says why.
    `unmeasured`: a pattern for the names of parameters without numbers; `skipped`, a pattern too, must then be
    found in what the run says it did not measure. `check`: what else must hold in the run. `timed`: whether the
    clock can be put to it. `ranks`: processes that train together, each watched; their records are merged.
    `wrong`: what is known to be wrong with it in this version; its test then must fail.
    """

    name: str
    make: Callable[[Setting], Training]
    note: str = ""
    tolerance: float = FLOAT32
    update_tolerance: float = 3e-3  # a small difference of two rounded weights
    signals: int = 3
    dtype: torch.dtype = torch.float32
    width: int = 12
    rows: int = 10
    steps: int = STEPS
    lasting: int = LASTING
    unmeasured: str | None = None
    skipped: str | None = None
    check: Callable[[Run], None] | None = None
    timed: bool = True
    ranks: int = 1
    wrong: str = ""

    @property
    def here(self) -> bool:
        """Whether it can be run on DEVICE: processes of many ranks, and workers that load data, are the CPU's."""
        return DEVICE == "cpu" or (self.ranks == 1 and self.timed)
