"""The always-on tier: statistics of every parameter, gradient and update in a few flat passes, no sync."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unvanish.schema.run import PARAMETER_STATISTICS, SNAPSHOT_QUANTILES

SAMPLE = 1024  # elements looked at per tensor and step
TOTAL = 131_072  # elements looked at per step, over all tensors
TRACE_SAMPLE = 32_768  # elements looked at per tensor at a traced step


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
    if not tensor.is_contiguous() and tensor.dim() == 4:
        tensor = tensor.permute(0, 2, 3, 1)  # channels_last is dense in this order
    return tensor.reshape(-1)[:: stride_for(tensor.shape, target)]


def l2_norm(tensor: Tensor) -> Tensor:
    """L2 norm of a tensor in float64, from a sample where it is large; a 0-d tensor (no sync)."""
    part = sample(tensor)
    part = part.abs() if part.is_complex() else part
    norm = torch.linalg.vector_norm(part, dtype=torch.float64)
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
    """[std, rms] of a tensor over all its elements, as one float64 tensor."""
    part = sample(tensor)
    wide = (part.abs() if part.is_complex() else part).double()
    mean = wide.mean()
    return torch.stack(((wide - mean).square().mean().sqrt(), wide.square().mean().sqrt()))


class ParameterSampler:
    """Looks at the same elements of every parameter at every step.

    One [parameters x sample] matrix per step for weights and one for gradients; small tensors are padded
    with zeros that are not counted. Parameters that can't be read so (sparse, complex, meta, sharded) give NaN.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        """`parameters` in the order of the rows."""
        self.parameters = list(parameters)
        self.width = max(64, min(SAMPLE, TOTAL // max(1, len(self.parameters))))
        self._strides = [stride_for(p.shape, self.width) if p.numel() > self.width else 1 for p in self.parameters]
        self.counts = [
            min(-(-p.numel() // stride), self.width)
            for p, stride in zip(self.parameters, self._strides, strict=True)
        ]
        self._readable = [_readable(p) for p in self.parameters]
        self._device = next((p.device for p, ok in zip(self.parameters, self._readable, strict=True) if ok), None)
        self._zeros = torch.zeros(self.width, device=self._device)
        self._counts = torch.tensor([max(1, n) for n in self.counts], dtype=torch.float64, device=self._device)
        self._before: Tensor | None = None

    def snapshot(self) -> Tensor | None:
        """The sampled weights, [parameters x width] float32; None where nothing can be read."""
        return self._matrix(self.parameters)

    def step(self, grad_scale: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Statistics at this optimizer step: ([parameters x PARAMETER_STATISTICS] float64, weights' sample).

        The update columns describe the change since the call before (NaN in the first).
        """
        weights = self._matrix(self.parameters)
        if weights is None:
            return None
        gradients = self._matrix([p.grad for p in self.parameters])
        assert gradients is not None
        missing = torch.tensor([p.grad is None for p in self.parameters], device=self._device)
        if grad_scale is not None:
            gradients = gradients / grad_scale
        first = self._before is None
        update = torch.zeros_like(weights) if self._before is None else weights - self._before
        self._before = weights
        columns = [
            self._rms(gradients),
            torch.linalg.vector_norm(gradients, math.inf, dim=1).double(),
            1 - self._share(torch.count_nonzero(gradients, dim=1)),
            self._share(self.width - torch.isfinite(gradients).sum(1)),
            self._rms(weights),
            self._rms(update),
            self._share(torch.count_nonzero(update, dim=1)),
        ]
        table = torch.stack(columns, dim=1)
        table[missing, :4] = math.nan
        if first:
            table[:, 5:] = math.nan
        return table, weights

    def _rms(self, matrix: Tensor) -> Tensor:
        return torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64) / self._counts.sqrt()

    def _share(self, count: Tensor) -> Tensor:
        return count.double() / self._counts

    def _matrix(self, tensors: Sequence[Tensor | None]) -> Tensor | None:
        if self._device is None:
            return None
        rows: list[Tensor] = []
        for tensor, count, stride, ok in zip(tensors, self.counts, self._strides, self._readable, strict=True):
            if tensor is None or not ok or tensor.layout is not torch.strided:
                rows.append(self._zeros)
                continue
            flat = tensor.detach().reshape(-1)
            rows.append(flat if count == flat.numel() else flat[::stride][:count])
            if tensor.device != self._device:
                rows[-1] = rows[-1].to(self._device, non_blocking=True)
            if count < self.width:
                rows.append(self._zeros[: self.width - count])
        return torch.cat(rows).view(len(self.parameters), self.width).float()


def quantiles(weights: Tensor, counts: Sequence[int], numels: Sequence[int]) -> list[tuple[float, tuple[float, ...]]]:
    """Per row: (estimated L2 norm of the whole tensor, quantiles at SNAPSHOT_QUANTILES), NaN where not finite."""
    at = torch.tensor(SNAPSHOT_QUANTILES, dtype=torch.float64)
    out: list[tuple[float, tuple[float, ...]]] = []
    for row, count, numel in zip(weights.double().cpu(), counts, numels, strict=True):
        values = row[:count]
        norm = float(torch.linalg.vector_norm(values)) * math.sqrt(numel / max(1, count))
        out.append((norm, tuple(torch.quantile(values, at).tolist()) if count else (math.nan,) * len(at)))
    return out


def _readable(tensor: Tensor) -> bool:
    plain = type(tensor) is torch.nn.Parameter or type(tensor) is Tensor
    return plain and tensor.layout is torch.strided and tensor.is_floating_point() and tensor.device.type != "meta"


assert len(PARAMETER_STATISTICS) == 7  # noqa: S101 - the columns of ParameterSampler.step, in this order
