"""The learning rate of a script that updates its weights by hand: a number in its source, which nobody can reach."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from unvanish.treatment.journal import Step


def scale_gradients(root: nn.Module, factor: float) -> Step:
    """Multiply each gradient as it arrives at a parameter of the model; returns the way back.

    For plain gradient descent and for momentum written by hand it is the same as a rate that is so many times as
    large, since their update is proportional to the gradients. It holds for backward() and for torch.autograd.grad.

    Limits: an update that divides by the gradient's own size (Adam written by hand) hardly notices it, one that
    clips gradients notices it otherwise, and weight decay in the update keeps its own rate. What is recorded of the
    gradients is what the script gets, the factor included.
    """
    handles = [p.register_hook(_times(factor)) for p in root.parameters() if p.requires_grad and p.is_leaf]

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


def _times(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient * factor
