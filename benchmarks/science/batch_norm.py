"""Rows 7 to 9: batch norm makes gradients explode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from science.nets import Plan, gains, gaussian, phi
from science.row import Row, estimate
from unvanish.theory.batch_norm import batch_norm_gain

WIDE = "theory is of infinite width; B rows in n units mix by B/n"


def relu(*, quick: bool) -> list[Row]:
    """Row 7."""
    limit = batch_norm_gain(phi("relu"))
    rows = [
        _row(7, "ReLU", torch.relu, 256, predicted=limit, setting="B = 256, beside pi/(pi-1)", quick=quick)
    ]
    sizes = (64, 16, 8) if quick else (256, 64, 16, 8)
    return rows + [_row(7, "ReLU", torch.relu, b, quick=quick) for b in sizes]


def linear(*, quick: bool) -> list[Row]:
    """Row 8: (B-2)/(B-3)."""
    return [
        _row(8, "linear", lambda z: z, b, predicted=(b - 2) / (b - 3), setting=f"B = {b}", quick=quick)
        for b in (8, 16, 64)
    ]


def smooth(*, quick: bool) -> list[Row]:
    """Row 9."""
    rows = []
    for name, function in (("sigmoid", torch.sigmoid), ("tanh", torch.tanh)):
        limit = batch_norm_gain(phi(name))
        rows += [
            _row(
                9, name, function, 256, predicted=limit, setting="B = 256, beside B = infinity", quick=quick
            ),
            _row(9, name, function, 64, quick=quick),
        ]
    return rows


def _row(
    number: int,
    name: str,
    function: Callable[[Tensor], Tensor],
    batch: int,
    *,
    predicted: float | None = None,
    setting: str = "",
    quick: bool,
) -> Row:
    gain = (
        batch_norm_gain(phi("identity" if name == "linear" else name.lower()), batch)
        if predicted is None
        else predicted
    )
    plan = Plan(activation=function, draw=gaussian(1.0), width=400 if quick else 1000, depth=10, rows=batch,
                nets=8 if quick else 20, batch_norm=True, seed=1000 * batch)  # fmt: skip
    mean, error = estimate(gains(plan))
    return Row(
        number=number, claim=f"batch norm + {name}: squared gain per layer", setting=setting or f"B = {batch}",
        predicted=gain, measured=mean, standard_error=error, tolerance=0.02 * gain, why=WIDE,
    )  # fmt: skip
