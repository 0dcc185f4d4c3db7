"""The always-on tier: statistics of every parameter, gradient and update in a few flat passes, no sync."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unvanish.probe.local import is_there, local_gradient, local_tensor, localize
from unvanish.schema.run import PARAMETER_STATISTICS, SNAPSHOT_QUANTILES

SAMPLE = 256  # elements looked at per tensor and step
TOTAL = 131_072  # elements looked at per step, over all tensors
TRACE_SAMPLE = 4096  # elements looked at per tensor at a traced step: rms to about 1 %


def stride_for(shape: Sequence[int], target: int) -> int:
    """A sampling stride of about numel / target that is coprime to every side, so that no unit is left out.

    A stride that shares a factor with the last side would look at the same few units in every row.
    """
    numel = math.prod(shape)
    stride = max(1, numel // target)
    while stride > 1 and any(math.gcd(stride, side) > 1 for side in shape if side > 1):
        stride += 1
    return stride


def sample(tensor: Tensor, target: int = TRACE_SAMPLE) -> Tensor:
    """All of a small tensor, a fixed-stride sample of a large one. No random numbers, no copy where dense."""
    tensor = tensor.detach()
    if tensor.numel() <= target:
        return tensor
    if not tensor.is_contiguous():  # transposed or channels_last: dense in the order of its strides
        tensor = tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
    return tensor.reshape(-1)[:: stride_for(tensor.shape, target)]


def l2_norm(tensor: Tensor) -> Tensor:
    """L2 norm of a tensor in float64, from a sample where it is large; a 0-d tensor (no sync)."""
    part = sample(tensor)
    part = part.abs() if part.is_complex() else part
    norm: Tensor = torch.linalg.vector_norm(part, dtype=torch.float64)
    return norm if part.numel() == tensor.numel() else norm * math.sqrt(tensor.numel() / part.numel())


def summary(tensor: Tensor) -> Tensor:
    """[norm, absmax, zeros, nonfinite] of a tensor as one float64 tensor; the counts scaled from the sample."""
    part = sample(tensor)
    part = part.abs() if part.is_complex() else part
    wide = part.double()
    count = part.numel()
    scale = tensor.numel() / max(count, 1)
    norm = torch.linalg.vector_norm(wide) * math.sqrt(scale)
    absmax = torch.linalg.vector_norm(wide, math.inf) if count else norm
    zeros = (count - torch.count_nonzero(part)) * scale
    nonfinite = (count - torch.isfinite(wide).sum()) * scale
    return torch.stack((norm, absmax, zeros.double(), nonfinite.double()))


def spread(tensor: Tensor) -> Tensor:
    """[std, rms, mean] of a tensor over all its elements, as one float64 tensor."""
    part = sample(tensor)
    wide = (part.abs() if part.is_complex() else part).double()
    mean = wide.mean()
    return torch.stack(((wide - mean).square().mean().sqrt(), wide.square().mean().sqrt(), mean))


class ParameterSampler:
    """Looks at the same elements of every parameter at every step.

    One [parameters x width] matrix each for the weights before and after a step and for the gradients, filled
    by one foreach copy; small tensors leave the rest of their row zero, which is not counted. Of a parameter that
    is sharded, this process's piece is looked at. Those that can't be read so (sparse, complex, meta) give NaN.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        """`parameters` in the order of the rows."""
        self.parameters = list(parameters)
        self.width = max(64, min(SAMPLE, TOTAL // max(1, len(self.parameters))))
        places = [localize(p) for p in self.parameters]
        pieces = [place.tensor for place in places]
        self.numels = [p.numel() for p in pieces]  # of what is here
        self._strides = [stride_for(p.shape, self.width) if p.numel() > self.width else 1 for p in pieces]
        self.counts = [
            min(-(-numel // stride), self.width)
            for numel, stride in zip(self.numels, self._strides, strict=True)
        ]
        self._rows = [i for i, p in enumerate(pieces) if places[i].summed and _readable(p)]
        self._device = pieces[self._rows[0]].device if self._rows else None
        shape = (len(self.parameters), self.width)
        self._gradients, self._weights, self._before = (
            torch.zeros(shape, device=self._device) for _ in range(3)
        )
        self._counts = torch.tensor(
            [max(1, n) for n in self.counts], dtype=torch.float64, device=self._device
        )
        self._numels = torch.tensor(self.numels, dtype=torch.float64, device=self._device)
        self._unreadable = torch.tensor([i not in set(self._rows) for i in range(len(self.parameters))])
        self._gradient_rows, self._weight_rows, self._before_rows = (
            [m[i, :n] for i, n in enumerate(self.counts)]
            for m in (self._gradients, self._weights, self._before)
        )
        self._pointers: list[int] = []
        self._sources: list[Tensor] = []
        self._missing: list[int] = []

    def before(self) -> None:
        """Look at the weights as they are before the optimizer's step."""
        self._look(self._before_rows)

    def gradients(self, grad_scale: Tensor | None = None) -> None:
        """Look at the gradients that the step will use; divided by `grad_scale` where they are scaled."""
        self._missing = self._read_gradients()
        if grad_scale is not None:
            self._gradients /= grad_scale

    def after(self) -> Tensor | None:
        """Look at the weights after the step: [parameters x PARAMETER_STATISTICS] float64, None: nothing to read."""
        if self._device is None:
            return None
        self._look(self._weight_rows)
        update = self._weights - self._before
        columns = [
            self._rms(self._gradients),
            torch.linalg.vector_norm(self._gradients, math.inf, dim=1).double(),
            1 - self._share(torch.count_nonzero(self._gradients, dim=1)),
            self._share(self.width - torch.isfinite(self._gradients).sum(1)),
            self._rms(self._before),
            self._rms(update),
            self._share(torch.count_nonzero(update, dim=1)),
            -(self._gradients.double() * update.double()).sum(1) * self._numels / self._counts,
            torch.full_like(self._counts, math.nan),
        ]
        table = torch.stack(columns, dim=1)
        if self._missing:
            table[self._missing, :4] = math.nan
            table[self._missing, 7] = math.nan
        if len(self._rows) < len(self.parameters):
            table[self._unreadable] = math.nan
        return table

    def snapshot(self) -> Tensor:
        """A copy of the weights' sample from before the step, [parameters x width] float32."""
        return self._before.clone()

    def _look(self, rows: list[Tensor]) -> None:
        pieces = [local_tensor(self.parameters[i]) for i in self._rows]
        pointers = [p.data_ptr() for p in pieces]
        if pointers != self._pointers:  # the first time, and when the script gave a parameter new storage
            self._sources = [self._view(p, i) for p, i in zip(pieces, self._rows, strict=True)]
            views = all(p.is_contiguous() for p in pieces)
            self._pointers = pointers if views else []  # a copy would be stale at the next step
        if self._rows:
            torch._foreach_copy_([rows[i] for i in self._rows], self._sources)

    def _read_gradients(self) -> list[int]:
        """Fill the gradients' matrix; gives the rows that have none."""
        rows: list[Tensor] = []
        sources: list[Tensor] = []
        missing: list[int] = []
        for i in self._rows:
            gradient = local_gradient(self.parameters[i])
            if gradient is None or gradient.layout is not torch.strided:
                missing.append(i)
                continue
            sources.append(self._view(gradient, i))
            rows.append(self._gradient_rows[i])
        if rows:
            torch._foreach_copy_(rows, sources)
        return missing

    def _view(self, tensor: Tensor, row: int) -> Tensor:
        count, stride = self.counts[row], self._strides[row]
        if tensor.is_contiguous():
            return torch.as_strided(tensor.detach(), (count,), (stride,))
        return tensor.detach().reshape(-1)[::stride][:count]

    def _rms(self, matrix: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64)
        return norm / self._counts.sqrt()

    def _share(self, count: Tensor) -> Tensor:
        return count.double() / self._counts


def quantiles(
    weights: Tensor, counts: Sequence[int], numels: Sequence[int]
) -> list[tuple[float, tuple[float, ...]]]:
    """Per row: (estimated L2 norm of the whole tensor, quantiles at SNAPSHOT_QUANTILES), NaN where not finite.

    In numpy, as all that runs in the writer's thread: an OpenMP region of torch's there would set up a second
    team of threads beside the training's, and OpenMP then slows both for the rest of the process (measured: 2.8
    times on two cores).
    """
    wide = weights.cpu().numpy().astype(np.float64)
    norms, levels = [math.nan] * len(counts), [(math.nan,) * len(SNAPSHOT_QUANTILES)] * len(counts)
    for count in set(counts) - {0}:  # rows of the same length in one go
        rows = [i for i, n in enumerate(counts) if n == count]
        values = wide[rows, :count]
        with np.errstate(all="ignore"):  # weights that are NaN or Inf are numbers to us, not a warning
            found = np.quantile(values, SNAPSHOT_QUANTILES, axis=1).T.tolist()
            size = np.linalg.norm(values, axis=1).tolist()
        for i, norm, row in zip(rows, size, found, strict=True):
            norms[i], levels[i] = norm * math.sqrt(numels[i] / count), tuple(row)
    return list(zip(norms, levels, strict=True))


def _readable(tensor: Tensor) -> bool:
    plain = type(tensor) is torch.nn.Parameter or type(tensor) is Tensor
    return (
        plain
        and tensor.is_floating_point()
        and is_there(tensor)
    )


assert len(PARAMETER_STATISTICS) == 9  # noqa: S101 - the columns of ParameterSampler.step, in this order
