"""The largest gain that an operation can have with its weights and its batch as they are: asked for by `explain`.

A bound holds for every signal: no gradient can leave the operation with more than `bound` times the L2 norm it came
with. Of a Linear it is the largest singular value of the weight. Of a convolution that of the flattened kernel,
times the root of how many windows a place lies in. Of a norm the largest scale over the smallest sigma: what the
projections of the backward pass take away comes on top. For a weight of more than MOST_ROWS both ways, whose singular
values would take seconds, sqrt(|W|_1 |W|_inf) stands in, which is never below.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unvanish.probe.backward import Node
from unvanish.probe.local import here

MOST_ROWS = 1024
_MATRICES = frozenset("Addmm Mm Mv Addmv Linear MkldnnLinear".split())
_KERNELS = frozenset("Convolution MkldnnConvolution CudnnConvolution".split())


def measure_bounds(nodes: Sequence[Node]) -> None:
    """Put `bound` on every node that one is known for. Before the backward pass, which frees what is read here."""
    known: dict[int, float] = {}  # a weight may be used a hundred times
    for node in nodes:
        with contextlib.suppress(
            Exception
        ):  # what an operation has saved may be hooked, or gone: no bound then
            bound = _bound(node, known)
            node.bound = bound if bound is not None and math.isfinite(bound) else None


def _bound(node: Node, known: dict[int, float]) -> float | None:
    heavy = [leaf.parameter for leaf in node.leaves if leaf.parameter.dim() > 1]
    weight = heavy[0] if len(heavy) == 1 and here(heavy[0]) is heavy[0] else None
    if weight is not None and weight.is_floating_point() and weight.numel():
        if node.name in _MATRICES and weight.dim() == 2:
            return _once(weight, known, 1)
        if node.name in _KERNELS and weight.dim() > 2:
            return _once(weight, known, int(node.handle._saved_groups)) * _overlap(node.handle, weight)
    if "Norm" in node.name:
        return _norm(node)
    return None


def _once(weight: Tensor, known: dict[int, float], groups: int) -> float:
    if id(weight) not in known:
        pieces = weight.detach().double().flatten(1).chunk(groups)
        known[id(weight)] = max(_largest(piece) for piece in pieces)
    return known[id(weight)]


def _largest(matrix: Tensor) -> float:
    if not bool(torch.isfinite(matrix).all()):
        return math.nan
    if min(matrix.shape) <= MOST_ROWS:
        return float(torch.linalg.matrix_norm(matrix, 2))
    sizes = matrix.abs()
    return math.sqrt(float(sizes.sum(0).max()) * float(sizes.sum(1).max()))


def _overlap(handle: Any, weight: Tensor) -> float:
    """The root of the most windows that one place lies in."""
    windows = 1
    for side, stride, dilation in zip(
        weight.shape[2:], handle._saved_stride, handle._saved_dilation, strict=True
    ):
        windows *= -(-side // int(stride)) if int(dilation) == 1 else side
    return math.sqrt(windows)


def _norm(node: Node) -> float | None:
    handle = node.handle
    scales = [leaf.parameter.detach().abs().double() for leaf in node.leaves if leaf.parameter.dim() == 1]
    inverse = getattr(handle, "_saved_result2", None)  # 1/sigma, as the forward pass has it
    if getattr(handle, "_saved_training", True) is False:
        variance = getattr(handle, "_saved_running_var", None)
        inverse = None if variance is None else (variance + handle._saved_eps).rsqrt()
    if not isinstance(inverse, Tensor) or not inverse.numel():
        return None
    wide = inverse.detach().double()
    saved = getattr(handle, "_saved_weight", None)
    scale = saved.detach().abs().double() if isinstance(saved, Tensor) else scales[0] if scales else None
    if scale is None:
        return float(wide.max())
    if scale.shape == wide.shape:  # a batch norm: both by feature
        return float((wide * scale).max())
    return float(wide.max()) * float(scale.max())
