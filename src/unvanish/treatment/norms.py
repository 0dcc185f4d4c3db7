"""Norms over the last axis: they stand behind a Linear, whose outputs are [*, n] with any number of axes in front."""

from __future__ import annotations

import torch
from torch import nn


class FeatureBatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d with the features last: [*, n] -> [*, n]; all axes in front count as the batch.

    The same as nn.BatchNorm1d on [batch, n]. That one takes axis 1 of [batch, steps, n] for the features.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's own name of it
        """Normalise each feature over all rows."""
        if input.dim() == 2:
            return super().forward(input)
        return super().forward(_rows(input)).reshape(input.shape)


class SecondAxisBatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d, 2d and 3d in one: [n, c, *] -> [n, c, *], for a place whose inputs may have any axes behind."""

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002  # torch's own name of it
        """Take all but single rows."""
        if input.dim() < 2:
            raise ValueError(f"expected [n, c, *], got {input.dim()} axes")


class FeatureGroupNorm(nn.GroupNorm):
    """nn.GroupNorm with the features last: [*, n] -> [*, n]; every row is normalised by itself, group by group.

    The same as nn.GroupNorm on [batch, n].
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's own name of it
        """Normalise each group of each row."""
        if input.dim() == 2:
            return super().forward(input)
        return super().forward(_rows(input)).reshape(input.shape)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1])
