"""The losses that a script works out without training on them: what it watches itself, validation above all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_LOSSES = (
    "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss", "gaussian_nll_loss", "hinge_embedding_loss",
    "margin_ranking_loss", "triplet_margin_loss", "cosine_embedding_loss", "multi_margin_loss", "soft_margin_loss",
    "multilabel_soft_margin_loss",
)  # fmt: skip


class HeldOut:
    """Collects single-number losses that are made while no gradient is recorded (torch.no_grad, inference mode).

    nn's loss modules call these functions, so that both ways of writing are seen; a loss written by hand is not.
    """

    def __init__(self, steps: Callable[[], int]) -> None:
        """`steps`: how many optimizer steps were made so far."""
        self._steps = steps
        self._sums: dict[int, list[float]] = {}  # by number of steps: [sum of loss x samples, samples]

    @property
    def losses(self) -> tuple[tuple[int, float], ...]:
        """(steps made, mean loss over all samples looked at then), in order."""
        return tuple((step, total / count) for step, (total, count) in sorted(self._sums.items()))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this lasts, torch.nn.functional's losses are listened to."""
        originals = {name: getattr(functional, name) for name in _LOSSES}
        for name, original in originals.items():
            setattr(functional, name, self._listening(original))
        try:
            yield
        finally:
            for name, original in originals.items():
                setattr(functional, name, original)

    def _listening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def loss(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if not torch.is_grad_enabled() and isinstance(made, Tensor) and made.numel() == 1:
                self._note(float(made), args)
            return made

        loss.__name__ = original.__name__
        return loss

    def _note(self, value: float, args: tuple[Any, ...]) -> None:
        first = args[0] if args else None
        samples = first.shape[0] if isinstance(first, Tensor) and first.dim() else 1
        entry = self._sums.setdefault(self._steps(), [0.0, 0])
        entry[0] += value * samples
        entry[1] += samples
