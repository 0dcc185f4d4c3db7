"""The backward passes of a script, as they begin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


@contextlib.contextmanager
def backward_passes(tell: Callable[[Tensor], None], by_hand: bool = False) -> Iterator[None]:
    """While this lasts, `tell(tensor)` is called before each `tensor.backward()`.

    `by_hand`: and before each torch.autograd.backward and torch.autograd.grad of one number for weights, which some
    scripts use that update them by hand.
    """
    originals = torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad
    method, function, grad = originals

    def backward(tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        tell(tensor)
        torch.autograd.backward = function  # which the method itself calls
        try:
            method(tensor, *args, **kwargs)  # type: ignore[no-untyped-call]  # torch's own
        finally:
            torch.autograd.backward = called if by_hand else function

    def called(tensors: Any, *args: Any, **kwargs: Any) -> None:
        loss = tensors[0] if isinstance(tensors, list | tuple) and len(tensors) == 1 else tensors
        if isinstance(loss, Tensor):
            tell(loss)
        function(tensors, *args, **kwargs)

    def gradients(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs
        several = [inputs] if isinstance(inputs, Tensor) else inputs
        weights = isinstance(several, list | tuple) and all(
            isinstance(p, Tensor) and p.is_leaf for p in several
        )
        if weights and isinstance(loss, Tensor) and loss.numel() == 1 and not kwargs.get("create_graph"):
            tell(loss)
        return grad(outputs, inputs, *args, **kwargs)

    torch.Tensor.backward = backward  # type: ignore[method-assign, assignment]
    if by_hand:
        torch.autograd.backward, torch.autograd.grad = called, gradients
    try:
        yield
    finally:
        torch.Tensor.backward = method  # type: ignore[method-assign]
        torch.autograd.backward, torch.autograd.grad = function, grad
