"""Edits of a model's tensors and plain attributes: each is written in the journal, and undone bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import nn

from unvanish.treatment.journal import Journal
from unvanish.treatment.registers import OptimizerRegister


@final
class ValueEdits:
    """Writes parameters and buffers. They stay the same objects, so that ties, optimizers and lists hold."""

    def __init__(self, journal: Journal, register: OptimizerRegister) -> None:
        """Share the surgery's journal and its view of the optimizers."""
        self._journal = journal
        self._register = register

    def write(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        """Give a parameter new values in place."""
        self.touch(parameter)
        with torch.no_grad():
            parameter.copy_(value)

    def touch(self, parameter: nn.Parameter) -> None:
        """Journal a parameter that is about to be written, and drop its stale gradient and moments."""
        saved, gradient = parameter.detach().clone(), parameter.grad

        def undo() -> None:
            with torch.no_grad():
                parameter.copy_(saved)
            parameter.grad = gradient

        self._journal.note(undo)
        parameter.grad = None
        self._journal.note(self._register.forget(parameter))

    def convert(self, tensor: torch.Tensor, dtype: torch.dtype) -> None:
        """Change the dtype of a parameter or buffer, as nn.Module.to does: the object stays, its storage is new.

        A parameter's gradient and moments are dropped, since they have the old dtype.
        """
        old, gradient = tensor.data, tensor.grad

        def undo() -> None:
            tensor.grad = None
            tensor.data = old
            tensor.grad = gradient

        self._journal.note(undo)
        tensor.grad = None
        tensor.data = old.to(dtype)
        if isinstance(tensor, nn.Parameter):
            self._journal.note(self._register.forget(tensor))

    def unfreeze(self, parameter: nn.Parameter) -> None:
        """Have a parameter trained: requires_grad becomes True."""
        before, gradient = parameter.requires_grad, parameter.grad

        def undo() -> None:
            parameter.grad = gradient
            parameter.requires_grad_(before)

        self._journal.note(undo)
        parameter.requires_grad_(True)

    def forget(self, parameter: nn.Parameter) -> None:
        """Drop the optimizers' moments of a parameter."""
        self._journal.note(self._register.forget(parameter))

    def until_undone(self, stop: Callable[[], None]) -> None:
        """Have something that is at work in the model stopped by the undo."""
        self._journal.note(stop)

    def set_attribute(self, module: nn.Module, name: str, value: Any) -> None:
        """Set a plain attribute of this one module (not a parameter, buffer or submodule)."""
        own = module.__dict__
        there, before = name in own, own.get(name)

        def undo() -> None:
            if there:
                own[name] = before
            else:
                own.pop(name, None)

        self._journal.note(undo)
        own[name] = value
