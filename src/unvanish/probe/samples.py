"""Look now, reduce later: copies of small samples are taken in the hot path, numbers are made of them elsewhere.

Everything here that runs in the writer's thread is numpy: an OpenMP region of torch's there would set up a second
team of threads beside the training's, and OpenMP then slows both for the rest of the process (measured: 2.8 times
on two cores).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.schema.graph import EXPONENT_BINS, EXPONENT_FLOOR
from unvanish.schema.moments import Moments

TRACE_SAMPLE = 4096  # elements looked at per tensor at a traced step: rms to about 1 %
_PLAIN = (torch.float32, torch.float64)
_F32_BIAS = 127
_F32_EXPONENTS = 256


@lru_cache(maxsize=4096)
def stride_for(shape: Sequence[int], target: int) -> int:
    """A sampling stride of about numel / target that is coprime to every side, so that no unit is left out.

    A stride that shares a factor with the last side would look at the same few units in every row.
    """
    numel = math.prod(shape)
    stride = max(1, numel // target)
    while stride > 1 and any(math.gcd(stride, side) > 1 for side in shape if side > 1):
        stride += 1
    return stride


def view(tensor: Tensor, target: int = TRACE_SAMPLE) -> Tensor:
    """All of a small tensor, a fixed-stride sample of a large one. No random numbers, no copy where dense."""
    tensor = tensor.detach()
    numel = tensor.numel()
    if numel <= target:
        return tensor
    if not tensor.is_contiguous():  # transposed or channels_last: dense in the order of its strides
        tensor = tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
        if not tensor.is_contiguous():
            return tensor.reshape(-1)[:: stride_for(tensor.shape, target)]
    stride = stride_for(tensor.shape, target)
    return tensor.as_strided((-(-numel // stride),), (stride,))


def _dense(tensor: Tensor) -> bool:
    """Whether the elements lie side by side, in this order or (a matrix) in that of the transposed."""
    return tensor.is_contiguous() or (
        tensor.dim() == 2 and tensor.stride(0) == 1 and tensor.stride(1) == tensor.shape[0]
    )


class Sample(NamedTuple):
    """A copy of (a sample of) a tensor, float32 or float64, and the number of elements of the whole."""

    part: Tensor
    numel: int


def take(tensor: Tensor, target: int = TRACE_SAMPLE) -> Sample:
    """Copy what is looked at of a strided tensor. Complex numbers count by their magnitude."""
    numel = tensor.numel()
    if tensor.requires_grad:
        tensor = tensor.detach()
    if numel > target and tensor.dtype in _PLAIN and _dense(tensor):  # one operation: the common case
        stride = stride_for(tensor.shape, target)
        return Sample(torch.as_strided_copy(tensor, (-(-numel // stride),), (stride,)), numel)
    part = view(tensor, target)
    if part.is_complex():
        part = part.abs()
    wide = part.dtype if part.dtype in _PLAIN else torch.float32
    return Sample(part.to(wide, copy=True, memory_format=torch.contiguous_format), numel)


def moments(samples: Sequence[Sample | None], *, exponents: bool = False) -> list[Moments | None]:
    """The moments of many samples: one transfer per device, and one pass for all of the same length."""
    arrays = to_numpy([None if s is None else s.part for s in samples])
    groups: dict[tuple[int, Any], list[int]] = {}
    for index, values in enumerate(arrays):
        if values is not None:
            groups.setdefault((values.size, values.dtype), []).append(index)
    out: list[Moments | None] = [None] * len(samples)
    for (length, _), members in groups.items():
        if not length:
            continue
        matrix = np.stack([a for a in (arrays[i] for i in members) if a is not None])
        for index, made in zip(
            members, _reduce(matrix, [samples[i] for i in members], exponents), strict=True
        ):
            out[index] = made
    return out


def _reduce(matrix: NDArray[Any], samples: Sequence[Sample | None], exponents: bool) -> Iterable[Moments]:
    """One Moments per row of [rows x elements]."""
    length = matrix.shape[1]
    with np.errstate(all="ignore"):  # gradients that are NaN or Inf are numbers to us, not a warning
        absolute = np.abs(matrix)
        absmax = absolute.max(1).astype(np.float64)
        zeros = length - np.count_nonzero(matrix, axis=1)
        # the sum is finite unless an element is not (float64 holds 1e38 times 4096); then they are counted
        wide = matrix.astype(np.float64)
        total = wide.sum(1)
        nonfinite = np.zeros(len(matrix))
        if not np.isfinite(total).all():
            nonfinite = length - np.isfinite(matrix).sum(1)
        norm = _norms(wide, absmax)
        wide -= (total / length)[:, None]
        deviation = _norms(wide, np.abs(wide).max(1))
        histograms = _exponents(absolute) if exponents else None
    for row, sample in enumerate(samples):
        assert sample is not None  # noqa: S101 - only rows that were there came so far
        scale = sample.numel / length
        histogram = () if histograms is None else tuple(round(n * scale) for n in histograms[row].tolist())
        yield Moments(
            count=sample.numel,
            sampled=length,
            norm=float(norm[row]) * math.sqrt(scale),
            absmax=float(absmax[row]),
            total=float(total[row]) * scale,
            deviation=float(deviation[row]) * math.sqrt(scale),
            zeros=float(zeros[row]) * scale,
            nonfinite=float(nonfinite[row]) * scale,
            exponents=histogram,
        )


def _norms(wide: NDArray[np.float64], absmax: NDArray[np.float64]) -> NDArray[np.float64]:
    """L2 norms of rows; rows whose squares would leave float64's range are scaled by their largest element."""
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    extreme = np.flatnonzero(((absmax > 1e140) & np.isfinite(absmax)) | ((absmax < 1e-140) & (absmax > 0)))
    for row in extreme:
        scaled = wide[row] / absmax[row]
        norms[row] = absmax[row] * math.sqrt(float(scaled @ scaled))
    return norms  # type: ignore[no-any-return]


def _exponents(absolute: NDArray[Any]) -> NDArray[np.int64]:
    """Per row, how many finite elements that are not zero lie in each bin of powers of two."""
    rows = len(absolute)
    if absolute.dtype == np.float32:  # the exponent is in the bits; subnormal numbers fall into the first bin
        biased = (absolute.view(np.int32) >> 23).astype(np.int64)
        biased += _F32_EXPONENTS * np.arange(rows)[:, None]
        counts = np.bincount(biased.ravel(), minlength=rows * _F32_EXPONENTS).reshape(rows, _F32_EXPONENTS)
        counts[:, 0] -= (absolute == 0).sum(1)
        powers = np.arange(_F32_EXPONENTS - 1) - _F32_BIAS  # the last of them is Inf and NaN
        counts = counts[:, :-1]
    else:
        usable = np.isfinite(absolute) & (absolute > 0)
        exponent = np.frexp(absolute)[1] - 1
        powers = np.arange(-1100, 1100)
        flat = (exponent + 1100 + len(powers) * np.arange(rows)[:, None])[usable]
        counts = np.bincount(flat, minlength=rows * len(powers)).reshape(rows, len(powers))
    bins = np.clip((powers - EXPONENT_FLOOR) // 2, 0, EXPONENT_BINS - 1)
    out = np.zeros((rows, EXPONENT_BINS), dtype=np.int64)
    for index in range(EXPONENT_BINS):
        out[:, index] = counts[:, bins == index].sum(1)
    return out


def to_numpy(tensors: Sequence[Tensor | None]) -> list[NDArray[Any] | None]:
    """Flat arrays of tensors of any device: shared memory on the CPU, one transfer for each other device."""
    out: list[NDArray[Any] | None] = [None] * len(tensors)
    elsewhere: dict[Any, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor is None:
            continue
        if tensor.device.type == "cpu":
            out[index] = tensor.numpy().reshape(-1)
        else:
            elsewhere.setdefault((tensor.device, tensor.dtype), []).append(index)
    for members in elsewhere.values():
        parts = [t.reshape(-1) for t in (tensors[i] for i in members) if t is not None]
        flat = torch.cat(parts).cpu().numpy()
        ends = np.cumsum([p.numel() for p in parts])
        for index, piece in zip(members, np.split(flat, ends[:-1]), strict=True):
            out[index] = piece
    return out
