"""How far the steps have moved the weights, and what that should have done to the loss: scale-free, to first order.

For a step dw of a weight tensor with gradient g, the loss falls by <-g, dw> to first order. Added up over the run and
divided by the loss's own scale, this says whether the steps could have brought the loss down at all; |g| |w| over the
same scale says how much the loss asks for a change of the weights (its elasticity). Neither moves when the loss is
multiplied by a number and the learning rate is matched.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.run import ModelRun, ParameterInfo

_EDGE = 10  # measured steps that stand for the end


@dataclass(frozen=True)
class Motion:
    """The steps of one model. Arrays have a row for each measured step and a column for each parameter."""

    model: ModelRun
    scale: float  # of the loss: chance where known, else the mean of the first losses

    def column(self, statistic: str) -> NDArray[np.float64]:
        """One statistic, [measured steps, parameters]."""
        flat = np.frombuffer(self.model.parameter_stats[statistic], np.float64)
        return flat.reshape(-1, max(1, len(self.model.info.parameters)))

    @cached_property
    def weights(self) -> list[ParameterInfo]:
        """The tensors with more than one dimension, which carry the signal; if none of them learns, all that do."""
        found = [p for p in self.model.info.parameters if len(p.shape) > 1]
        if any(p.requires_grad for p in found):
            return found
        return [p for p in self.model.info.parameters if p.requires_grad] or found

    @cached_property
    def relative(self) -> NDArray[np.float64]:
        """|dw| / |w| of every step and tensor (NaN where not known)."""
        with np.errstate(all="ignore"):
            weights = self.column("weight_rms")
            return np.asarray(self.column("update_rms") / np.where(weights > 0, weights, np.nan))

    @cached_property
    def step_size(self) -> float:
        """The median over the steps of |dw| / |w|, of the weight tensor that moves most."""
        columns = [self.relative[:, p.index] for p in self.weights]
        known = [float(np.median(c[np.isfinite(c)])) for c in columns if np.isfinite(c).any()]
        return max(known, default=0.0)

    @cached_property
    def path(self) -> float:
        """The sum over all steps of |dw| / |w|, of the weight tensor that moves most."""
        columns = [self.relative[:, p.index] for p in self.weights]
        return max((self._over_all_steps(c) for c in columns if np.isfinite(c).any()), default=0.0)

    @cached_property
    def travelled(self) -> float:
        """The same of the tensor in the middle, each counted by its elements: one small tensor may go far alone."""
        known = []
        for p in self.weights:
            column = self.relative[:, p.index]
            if np.isfinite(column).any():
                known.append((self._over_all_steps(column), p.numel))
        known.sort()
        left = sum(numel for _, numel in known) / 2
        for value, numel in known:
            left -= numel
            if left <= 0:
                return value
        return 0.0

    def _over_all_steps(self, values: NDArray[np.float64]) -> float:
        """The sum over all steps of what was measured at some: each stands for the steps around it."""
        known = np.isfinite(values)
        at = np.array(self.model.parameter_steps, np.float64)[known]
        first, last = self.model.steps[0], self.model.steps[-1]
        edges = np.concatenate([[first - 0.5], (at[1:] + at[:-1]) / 2, [last + 0.5]])
        share = np.diff(np.clip(edges, first - 0.5, last + 0.5))
        scale = len(self.model.steps) / (last - first + 1)
        return float((values[known] * share).sum() * scale)

    @cached_property
    def predicted(self) -> float:
        """What the steps should have brought the loss down by in all, to first order, over the loss's scale."""
        falls = self.column("first_order")
        rows = np.nansum(np.where(np.isfinite(falls), falls, 0.0), axis=1)
        if not len(rows) or self.scale <= 0:
            return math.nan
        return self._over_all_steps(rows) / self.scale

    @cached_property
    def elasticity(self) -> float:
        """|g| |w| over the loss's scale, added over the weight tensors: the median over the last steps."""
        if self.scale <= 0:
            return math.nan
        sizes = np.array([p.numel for p in self.model.info.parameters], np.float64)
        products = self.column("gradient_rms") * self.column("weight_rms") * sizes
        products = products[-_EDGE:, [p.index for p in self.weights]]
        sums = [float(row[np.isfinite(row)].sum()) for row in products if np.isfinite(row).any()]
        return statistics.median(sums) / self.scale if sums else 0.0

    @cached_property
    def rates(self) -> tuple[float, float]:
        """(largest, last) learning rate that was seen; NaN where none was."""
        known = [r for r in self.model.learning_rates if math.isfinite(r)]
        return (max(known), known[-1]) if known else (math.nan, math.nan)


def motion_of(model: ModelRun, chance: float | None, first: float | None) -> Motion:
    """`chance` and `first`: see Learning."""
    scale = next((abs(v) for v in (chance, first) if v is not None and math.isfinite(v) and v != 0), math.nan)
    return Motion(model, scale)
