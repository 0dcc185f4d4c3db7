"""The task of the trained nets: scikit-learn's digits, 0 to 5 or all ten of them, 64 standardised pixels."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor

BATCH = 64


@functools.cache
def digits(classes: int = 6) -> tuple[Tensor, Tensor]:
    """Pixels of mean 0 and variance 1 (a pixel that is always white stays 0), and labels."""
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32), torch.tensor(labels)
    x, y = x[y < classes], y[y < classes]
    return (x - x.mean(0)) / (x.std(0) + 1e-6), y


def chance(classes: int = 6) -> float:
    """The loss of a net that knows the labels' frequencies alone, in nats."""
    shares = torch.bincount(digits(classes)[1]).double()
    shares /= shares.sum()
    return float(-(shares * shares.log()).sum())


def batches(steps: int, classes: int = 6) -> Iterator[tuple[Tensor, Tensor]]:
    """So many batches, epoch after epoch in a new order, from torch's generator."""
    x, y = digits(classes)
    order, place = torch.randperm(len(x)), 0
    for _ in range(steps):
        if place + BATCH > len(x):
            order, place = torch.randperm(len(x)), 0
        rows = order[place : place + BATCH]
        place += BATCH
        yield x[rows], y[rows]
