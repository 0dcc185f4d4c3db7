"""Training without an optimizer of torch's: the script changes the weights itself, between two backward passes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unvanish.probe.discover import living_optimizers, parameters_of
from unvanish.probe.explore import explore

LOOKED_AT, ELEMENTS = 16, 64  # weights, and elements of each, that show whether something moved
PATIENCE = 64  # backward passes: who has not moved a weight by then does not train


class ByHand:
    """Stands for the optimizer that is not there: each backward pass that is followed by a change is a step.

    It is of use where no optimizer lives in the process, and weights have moved between the first backward passes.
    """

    def __init__(self, *, waiting: bool, known: bool = False) -> None:
        """`waiting`: whether it may come to that at all; `known`: that it does, from the first backward pass on."""
        self.waiting = waiting  # for a sign
        self._known = known
        self.stepping = False  # the script trains by hand
        self.param_groups: list[dict[str, Any]] = [{"params": [], "lr": math.nan}]
        self.state: dict[Any, Any] = {}
        self.defaults: dict[str, Any] = {}
        self._seen = 0
        self._before: list[tuple[Tensor, Tensor, int]] = []

    def off(self) -> None:
        """An optimizer steps: the weights are its own."""
        self.waiting = self.stepping = False
        self._before = []

    def begin(self, leaves: list[Tensor]) -> None:
        """No need to wait: these are the weights that the script is about to change."""
        self.param_groups[0]["params"] = leaves
        self.waiting, self.stepping, self._before = False, True, []

    def see(self, loss: Tensor, leaves: list[Tensor] | None = None) -> None:
        """A backward pass begins (to these leaves). From the second on it is known whether the weights have moved."""
        self._seen += 1
        if self._seen == 1:
            leaves = leaves_of(loss) if leaves is None else leaves
            if self._known:
                self.begin(leaves)
                return
            self.param_groups[0]["params"] = leaves
            self._before = [(p, some(p), writes(p)) for p in leaves[:LOOKED_AT]]
            return
        if self._seen > PATIENCE or (self._seen == 2 and held(self.param_groups[0]["params"])):
            self.off()
        elif any(writes(p) != count or not torch.equal(some(p), then) for p, then, count in self._before):
            self.waiting, self.stepping, self._before = False, True, []


def held(leaves: list[Tensor]) -> bool:
    """Whether an optimizer holds them, and has not stepped yet: gradients are being accumulated."""
    own = {id(p) for p in leaves}
    return any(id(p) in own for o in living_optimizers() for p in parameters_of(o))


def asked_for(outputs: Any, inputs: Any, options: dict[str, Any]) -> list[Tensor] | None:
    """The weights whose gradients torch.autograd.grad is asked for; None where it is asked for something else.

    Those of one loss, for leaves, once: derivatives that go into a loss themselves are wanted with their own graph.
    """
    if not isinstance(outputs, Tensor | list | tuple) or not isinstance(inputs, Tensor | list | tuple):
        return None  # a generator, say, can be gone through only once
    losses = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    leaves = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if len(losses) != 1 or options.get("create_graph") or "grad_outputs" in options:
        return None
    if not isinstance(losses[0], Tensor) or losses[0].numel() != 1:
        return None
    return leaves if leaves and all(isinstance(p, Tensor) and p.is_leaf for p in leaves) else None


def leaves_of(loss: Tensor) -> list[Tensor]:
    """The tensors that a backward pass from here hands gradients to, in order of execution."""
    graph = None if loss.grad_fn is None else explore(loss.grad_fn)
    if graph is None:
        return []
    return list({id(p): p for number in graph.order for p in graph.parameters[number]}.values())


def writes(parameter: Tensor) -> int:
    """How often it was written in place: a step that is nothing, since the gradient is, changes no value."""
    return 0 if parameter.is_inference() else parameter._version


def some(parameter: Tensor) -> Tensor:
    """A copy of some of its elements."""
    return parameter.detach().reshape(-1)[:ELEMENTS].clone()
