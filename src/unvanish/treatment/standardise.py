"""Data minus its mean, over its deviation, feature by feature; both are measured once and kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from unvanish.errors import SurgeryError

_ROUNDING = 4.0  # units in the last place of the mean: less deviation is what rounding makes of one number


class Standardise(nn.Module):
    """(x - mean) / deviation along one axis, counted from the end; the numbers are buffers of the model."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor, axis: int = -1) -> None:
        """`mean` and `deviation` are [features]."""
        super().__init__()
        self.axis = axis
        shape = [-1] + [1] * (-axis - 1)
        self.register_buffer("mean", mean.reshape(shape))
        self.register_buffer("deviation", deviation.reshape(shape))

    def forward(self, x: torch.Tensor | PackedSequence) -> torch.Tensor | PackedSequence:
        """[*, features, *] -> the same shape."""
        if isinstance(x, PackedSequence):
            return x._replace(data=self._change(x.data))
        return self._change(x)

    def extra_repr(self) -> str:
        """Show how many features there are."""
        return f"{self.mean.numel()}, axis={self.axis}"

    def _change(self, x: torch.Tensor) -> torch.Tensor:
        changed = (x - self.mean) / self.deviation
        return changed.to(x.dtype) if x.is_floating_point() else changed


def standardiser(values: Sequence[torch.Tensor], axis: int, what: str) -> Standardise:
    """Measure all values [*, features, *] that came in at one place. A constant feature is only centred: it is 0.

    Raises:
        SurgeryError: no numbers (tokens), not finite, a single row, or nothing that varies.
    """
    mend = "standardise the data where it is loaded"
    if not all(v.is_floating_point() for v in values):
        raise SurgeryError(
            f"{what} gets integers (tokens), which have no mean", "treat the embedding instead"
        )
    rows = torch.cat([v.detach().movedim(axis, -1).reshape(-1, v.shape[axis]).cpu().double() for v in values])
    if not bool(torch.isfinite(rows).all()):
        raise SurgeryError(f"the data at {what} holds NaN or infinite values", "clean the data")
    if len(rows) < 2:
        raise SurgeryError(f"{what} gets a single row, which has no deviation", mend)
    mean, deviation = rows.mean(0), rows.std(0, unbiased=False)
    constant = deviation <= _ROUNDING * torch.finfo(values[0].dtype).eps * mean.abs()
    if bool(constant.all()):
        raise SurgeryError(f"no feature of the data at {what} varies over the batch", "look at the data")
    kept = torch.get_default_dtype()
    return Standardise(mean.to(kept), deviation.where(~constant, torch.ones_like(deviation)).to(kept), axis)
