"""Keeping optimizers true to the model they train: which group holds what, and what is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from unvanish.errors import SurgeryError

Undo = Callable[[], None]


class OptimizerRegister:
    """The optimizers of one model. Their param_groups are edited in place: others hold on to them."""

    def __init__(self, optimizers: Sequence[Optimizer], root: nn.Module) -> None:
        """Note the optimizers.

        Raises:
            SurgeryError: something that is no torch optimizer.
        """
        for optimizer in optimizers:
            if not isinstance(optimizer, Optimizer):
                raise SurgeryError(
                    f"got {type(optimizer).__name__} as optimizer", "hand in a torch.optim.Optimizer"
                )
        self._optimizers = tuple(optimizers)
        self._own = {id(p) for p in root.parameters()}
        self._anchors: list[tuple[nn.Parameter, nn.Parameter]] = []

    @property
    def known(self) -> bool:
        """Whether there is any optimizer."""
        return bool(self._optimizers)

    def seat(self, parameter: nn.Parameter, anchor: nn.Parameter) -> None:
        """Say which old (or newly seated) parameter's group a new parameter belongs to."""
        self._anchors.append((parameter, anchor))

    def forget(self, parameter: nn.Parameter) -> Undo:
        """Drop an optimizer's state (moments) of a parameter: stale Adam moments overshoot 6.6 times."""
        undos = [_pop_state(o, parameter) for o in self._optimizers if parameter in o.state]
        return _all(undos)

    def scale_rates(self, factor: float) -> Undo:
        """Multiply lr (and a scheduler's initial_lr) of every group with parameters of the model."""
        own = [g for g in self._groups() if any(id(p) in self._own for p in g["params"])]
        return _all([_set_rate(g, key, factor) for g in own for key in ("lr", "initial_lr") if key in g])

    def settle(self, root: nn.Module, before: Iterable[nn.Parameter]) -> Undo:
        """Take out what left the model; put what is new into its anchor's group."""
        now = {id(p): name for name, p in root.named_parameters()}
        gone = [p for p in before if id(p) not in now]
        lost = {id(p) for p in gone}
        undos = []
        for group in self._groups():
            members = group["params"]
            wanted = [p for p in members if id(p) not in lost]
            seated = {id(p) for p in members}  # anchors that are leaving still say where their group is
            for parameter, anchor in self._anchors:
                if id(anchor) in seated and id(parameter) in now and id(parameter) not in seated:
                    wanted.append(parameter)
                    seated.add(id(parameter))
            if len(wanted) != len(members) or any(a is not b for a, b in zip(wanted, members, strict=True)):
                undos.append(_set_members(group, wanted, now))
        undos += [self.forget(p) for p in gone]
        return _all(undos)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for o in self._optimizers for group in o.param_groups]


def _pop_state(optimizer: Optimizer, parameter: nn.Parameter) -> Undo:
    state = optimizer.state.pop(parameter)

    def undo() -> None:
        optimizer.state[parameter] = state

    return undo


def _set_rate(group: dict[str, Any], key: str, factor: float) -> Undo:
    before = group[key]
    if isinstance(before, torch.Tensor):  # capturable optimizers keep the rate in a tensor that graphs hold
        saved = before.clone()
        before.mul_(factor)

        def restore() -> None:
            before.copy_(saved)

        return restore
    group[key] = before * factor

    def undo() -> None:
        group[key] = before

    return undo


def _set_members(group: dict[str, Any], members: list[nn.Parameter], names: dict[int, str]) -> Undo:
    before = list(group["params"])
    names_before = list(group.get("param_names", ()))  # there when named_parameters() was handed over
    group["params"][:] = members
    if names_before:
        known = {id(p): n for p, n in zip(before, names_before, strict=True)}
        group["param_names"][:] = [known.get(id(p)) or names[id(p)] for p in members]

    def undo() -> None:
        group["params"][:] = before
        if names_before:
            group["param_names"][:] = names_before

    return undo


def _all(undos: Sequence[Undo]) -> Undo:
    def undo() -> None:
        for step in reversed(undos):
            step()

    return undo
