"""Rows 18, 19 and 21: what Adam and float16 do with tiny gradients."""

from __future__ import annotations

import torch

from science.row import Row
from unvanish.theory.optimizer import adam_constant_step, worst_overshoot
from unvanish.theory.precision import BFLOAT16, FLOAT16, NumberFormat

RATE = 1e-3
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def constant_gradients(*, quick: bool) -> list[Row]:
    """Row 18: torch's Adam, the last of a few steps."""
    del quick
    return [
        Row(number=18, claim="Adam, constant gradient: step / lr", setting=f"g = {g:.0e}",
            predicted=adam_constant_step(g), measured=_steps([g] * 50)[-1], tolerance=1e-9, why="rounding")
        for g in (1e-8, 1e-9, 1e-10)
    ]  # fmt: skip


def half_precision(*, quick: bool) -> list[Row]:
    """Row 19: the largest number that torch rounds to zero, by bisection."""
    del quick
    return [
        Row(number=19, claim=f"{kind.name}: the largest number that rounds to 0", predicted=kind.underflow,
            measured=_last_zero(kind), tolerance=1e-4 * kind.underflow, why="float32 on the way")
        for kind in (FLOAT16, BFLOAT16)
    ]  # fmt: skip


def _last_zero(kind: NumberFormat) -> float:
    low, high = 0.0, 1.0
    while high - low > 1e-7 * high:
        middle = 0.5 * (low + high)
        zero = torch.tensor(middle, dtype=torch.float64).to(TYPES[kind.name]).item() == 0
        low, high = (middle, high) if zero else (low, middle)
    return low


def overshoot(*, quick: bool) -> list[Row]:
    """Row 21: a long vanished phase (gradients of 1e-30), and then gradients of 1."""
    vanished = 8_000 if quick else 20_000
    steps = _steps([1e-30] * vanished + [1.0] * 100)[vanished:]
    where, most = worst_overshoot()
    return [
        Row(number=21, claim="Adam after a vanished phase: largest step / lr", predicted=most,
            measured=max(steps), tolerance=0.05, why="the old phase was long, not infinite"),
        Row(number=21, claim="Adam after a vanished phase: steps to there", predicted=where,
            measured=float(1 + steps.index(max(steps))), tolerance=0.5, why="whole steps"),
    ]  # fmt: skip


def _steps(gradients: list[float]) -> list[float]:
    """Each step of torch.optim.Adam at its defaults, over the learning rate."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=RATE)
    found = []
    for g in gradients:
        weight.grad = torch.full((1,), g, dtype=torch.float64)
        with torch.no_grad():
            weight.zero_()  # so that no digit is lost in a sum
        optimizer.step()
        found.append(-weight.item() / RATE)
    return found
