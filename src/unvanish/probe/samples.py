"""Look now, reduce later: copies of small samples are taken in the hot path, numbers are made of them elsewhere.

Everything here that runs in the writer's thread is numpy: an OpenMP region of torch's there would set up a second
team of threads beside the training's, and OpenMP then slows both for the rest of the process (measured: 2.8 times
on two cores).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.probe.arena import place
from unvanish.probe.stride import stride_for
from unvanish.schema.graph import EXPONENT_BINS, EXPONENT_FLOOR
from unvanish.schema.moments import Moments

TRACE_SAMPLE = 4096  # elements looked at per tensor at a traced step: rms to about 1 %
LEAN_SAMPLE = 1024  # the same at the traces in between, where every step or nearly every one is traced: 2 %
_PLAIN = (torch.float32, torch.float64)
_F32_BIAS = 127
_F32_EXPONENTS = 256


def view(tensor: Tensor, target: int = TRACE_SAMPLE) -> Tensor:
    """All of a small tensor, a fixed-stride sample of a large one. No random numbers, no copy where dense."""
    tensor = tensor.detach()
    numel = tensor.numel()
    if numel < 2 * target:  # half of it would have to be looked at anyway
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
    if numel >= 2 * target and tensor.dtype in _PLAIN and _dense(tensor):  # one operation: the common case
        stride = stride_for(tensor.shape if tensor.is_contiguous() else tensor.shape[::-1], target)
        count = -(-numel // stride)
        if tensor.is_cpu:
            return Sample(place(tensor.dtype, count).copy_(tensor.as_strided((count,), (stride,))), numel)
        return Sample(torch.as_strided_copy(tensor, (count,), (stride,)), numel)
    part = view(tensor, target)
    if part.is_complex():
        part = part.abs()
    wide = part.dtype if part.dtype in _PLAIN else torch.float32
    if part.is_cpu:
        return Sample(place(wide, part.numel()).view(part.shape).copy_(part), numel)
    return Sample(part.to(wide, copy=True, memory_format=torch.contiguous_format), numel)


@dataclass(slots=True)
class Table:
    """The moments of many tensors, a row each: columns of what schema.moments.Moments has."""

    count: list[int]
    sampled: list[int]
    norm: NDArray[np.float64]
    absmax: NDArray[np.float64]
    total: NDArray[np.float64]
    deviation: NDArray[np.float64]
    zeros: NDArray[np.float64]
    nonfinite: NDArray[np.float64]
    exponents: list[tuple[int, ...]]

    @classmethod
    def empty(cls, rows: int) -> Table:
        """Rows of no elements."""
        norm, absmax, total, deviation, zeros, nonfinite = (np.zeros(rows) for _ in range(6))
        nothing: list[tuple[int, ...]] = [()] * rows
        return cls([0] * rows, [0] * rows, norm, absmax, total, deviation, zeros, nonfinite, nothing)

    def multiply(self, factor: float) -> None:
        """All elements times a number; the histogram stays as it is."""
        self.norm *= abs(factor)
        self.absmax *= abs(factor)
        self.deviation *= abs(factor)
        self.total *= factor

    def moments(self, row: int) -> Moments:
        """One row."""
        return Moments(
            count=self.count[row],
            sampled=self.sampled[row],
            norm=float(self.norm[row]),
            absmax=float(self.absmax[row]),
            total=float(self.total[row]),
            deviation=float(self.deviation[row]),
            zeros=float(self.zeros[row]),
            nonfinite=float(self.nonfinite[row]),
            exponents=self.exponents[row],
        )

    def put(self, row: int, values: Moments) -> None:
        """Change one row."""
        self.count[row], self.sampled[row], self.exponents[row] = (
            values.count,
            values.sampled,
            values.exponents,
        )
        for name in ("norm", "absmax", "total", "deviation", "zeros", "nonfinite"):
            getattr(self, name)[row] = getattr(values, name)


def moments(samples: Sequence[Sample | None], *, exponents: bool = False) -> list[Moments | None]:
    """The moments of many samples; None where there is no sample or no element."""
    table = tabulate([s for s in samples if s is not None], exponents=exponents)
    rows = iter(range(len(table.count)))
    made = [None if s is None else table.moments(next(rows)) for s in samples]
    return [None if m is None or not m.count else m for m in made]


def tabulate(samples: Sequence[Sample], *, exponents: bool = False) -> Table:
    """The moments of many samples: one transfer per device, and one pass for all of the same length."""
    arrays = to_numpy([s.part for s in samples])
    groups: dict[tuple[int, Any], list[int]] = {}
    for index, values in enumerate(arrays):
        if values.size:
            groups.setdefault((values.size, values.dtype), []).append(index)
    table = Table.empty(len(samples))
    table.count = [s.numel for s in samples]
    for (length, _), members in groups.items():
        matrix = np.array([arrays[i] for i in members])
        _reduce(matrix, members, table, exponents=exponents)
        for i in members:
            table.sampled[i] = length
    return table


def _reduce(matrix: NDArray[Any], members: list[int], table: Table, *, exponents: bool) -> None:
    """Fill these rows of the table from the rows of [rows x elements]."""
    length = matrix.shape[1]
    scale = np.array([table.count[i] for i in members]) / length
    with np.errstate(all="ignore"):  # gradients that are NaN or Inf are numbers to us, not a warning
        absolute = np.abs(matrix)
        absmax = absolute.max(1).astype(np.float64)
        # the sum is finite unless an element is not (float64 holds 1e38 times 4096); then they are counted
        wide = matrix.astype(np.float64)
        total = wide.sum(1)
        table.zeros[members] = (length - np.count_nonzero(matrix, axis=1)) * scale
        if not np.isfinite(total).all():
            table.nonfinite[members] = (length - np.isfinite(matrix).sum(1)) * scale
        table.norm[members] = _norms(wide, absmax) * np.sqrt(scale)
        wide -= (total / length)[:, None]
        table.deviation[members] = _norms(wide, np.abs(wide).max(1)) * np.sqrt(scale)
        table.absmax[members] = absmax
        table.total[members] = total * scale
        if exponents:
            scaled = np.rint(_exponents(absolute) * scale[:, None]).astype(np.int64).tolist()
            for i, counts in zip(members, scaled, strict=True):
                table.exponents[i] = tuple(counts)


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


def to_numpy(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Flat arrays of tensors of any device: shared memory on the CPU, one transfer for each other device."""
    out: list[NDArray[Any]] = [_EMPTY] * len(tensors)
    elsewhere: dict[Any, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.device.type == "cpu":
            out[index] = tensor.numpy().reshape(-1)
        else:
            elsewhere.setdefault((tensor.device, tensor.dtype), []).append(index)
    for members in elsewhere.values():
        parts = [tensors[i].reshape(-1) for i in members]
        flat = torch.cat(parts).cpu().numpy()
        ends = np.cumsum([p.numel() for p in parts])
        for index, piece in zip(members, np.split(flat, ends[:-1]), strict=True):
            out[index] = piece
    return out


_EMPTY = np.zeros(0)
