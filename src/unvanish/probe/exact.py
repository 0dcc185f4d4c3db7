"""On request: every element of every parameter, gradient and update, at the price of copies and of time."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.probe.local import local_gradient, local_tensor
from unvanish.probe.parameters import Look, ParameterRing, is_readable, quantiles
from unvanish.schema.run import PARAMETER_STATISTICS

_EXACT = 8  # the statistics that are taken here; the sample gives the others
_Kept = tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]  # weights, gradients, results


class ExactRing(ParameterRing):
    """As its base, whose sample only says whether weights changed; the statistics are those of all elements."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        """`parameters` in the order of the rows."""
        super().__init__(parameters)
        self._kept: dict[int, _Kept] = {}  # by slot

    @property
    def looked_at(self) -> list[int]:
        """Elements per row that the statistics look at."""
        return self.numels

    def look_before(self, slot: int, *, surely: bool = False) -> Look:
        """Copies all weights."""
        look = super().look_before(slot, surely=surely)
        pieces = [local_tensor(p).detach() for p in self.parameters]
        self._kept[slot] = ([p.clone() if is_readable(p) else None for p in pieces], [], [])
        return look

    def look_gradients(
        self, look: Look, grad_scale: Tensor | None, *, sparse: bool, rows: frozenset[int] | None = None
    ) -> None:
        """Copies the dense gradients."""
        super().look_gradients(look, grad_scale, sparse=sparse, rows=rows)
        gradients = self._kept[look.slot][1]
        gradients += [None] * (len(self.parameters) - len(gradients))
        for row, gradient in enumerate(map(local_gradient, self.parameters)):
            if gradient is not None and gradient.layout is torch.strided and (rows is None or row in rows):
                gradients[row] = gradient.detach().clone()

    def look_after(self, look: Look, optimizer: Any = None) -> None:
        """Takes the statistics, still on the device."""
        super().look_after(look, optimizer)
        weights, gradients, results = self._kept[look.slot]
        results.clear()  # of the first optimizer's step, where several step one model in turn
        for parameter, before, gradient in zip(self.parameters, weights, gradients, strict=True):
            piece = local_tensor(parameter).detach()
            results.append(None if before is None else _statistics(before, piece, gradient, look.scale))

    def give_back(self, slot: int) -> None:
        """A slot that is not needed any more."""
        self._kept.pop(slot, None)
        super().give_back(slot)

    def reduce(
        self, looks: Sequence[Look], keep: Collection[int] = ()
    ) -> tuple[NDArray[np.float64], dict[int, Any]]:
        """As the base, with exact statistics and whole weights in the place of sampled ones."""
        found = [self._kept.get(look.slot, ([], [], []))[2] for look in looks]
        weights: dict[int, Any] = {i: self._kept.get(looks[i].slot, ([], [], []))[0] for i in keep}
        out, _ = super().reduce(looks)
        for i, results in enumerate(found):
            for row, result in enumerate(results):
                if result is None:
                    continue
                sampled, exact = out[i, :_EXACT, row], result.cpu().numpy()
                if row in looks[i].bare:  # no gradient, or a sparse one, which is summed in full anyway
                    exact[[0, 1, 2, 3, 7]] = sampled[[0, 1, 2, 3, 7]]
                out[i, :_EXACT, row] = exact
        return out, weights

    def spread(self, weights: Any) -> list[tuple[float, tuple[float, ...]]]:
        """Per parameter: L2 norm and quantiles of all its elements (the real parts of complex ones)."""
        nothing = np.zeros(0)
        out = []
        for whole in weights or [None] * len(self.numels):
            values = nothing if whole is None else _wide(whole).real.cpu().numpy().reshape(1, -1)
            out += (
                quantiles(values, [values.size], [values.size])
                if values.size
                else quantiles(nothing, [0], [0])
            )
        return out


def _statistics(before: Tensor, after: Tensor, gradient: Tensor | None, scale: Tensor | None) -> Tensor:
    """The first columns of PARAMETER_STATISTICS of one tensor; NaN where there is no gradient."""
    size = max(1, before.numel())
    update = _wide(after) - _wide(before)
    if gradient is None:
        columns = [torch.full((), math.nan, dtype=torch.float64, device=before.device)] * 4
        descent = columns[0]
    else:
        g = _wide(gradient) if scale is None else _wide(gradient) / scale
        columns = [
            _rms(g, size),
            torch.linalg.vector_norm(g, math.inf) if g.numel() else g.new_zeros(()).abs(),
            1 - _share(torch.count_nonzero(g), size),
            1 - _share(torch.isfinite(g).sum(), size),
        ]
        descent = -(g.conj() * update).sum().real
    columns = [
        *columns,
        _rms(_wide(before), size),
        _rms(update, size),
        _share(torch.count_nonzero(update), size),
        descent,
    ]
    return torch.stack([c.double() for c in columns])


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _share(count: Tensor, size: int) -> Tensor:
    return count.double() / size


def _rms(wide: Tensor, size: int) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(wide)
    return norm / math.sqrt(size)


assert PARAMETER_STATISTICS[_EXACT - 1] == "first_order"  # noqa: S101 - the columns that are taken here
