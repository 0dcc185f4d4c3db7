"""Keeping optimizers true to the model they train: which group holds what, and what is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from unvanish.errors import SurgeryError

Undo = Callable[[], None]


class StepHooks(Protocol):
    """Who wants to be there when an optimizer steps."""

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Called before each step, with step's own arguments (args[0] is the optimizer); may return others."""
        ...

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called after each step."""
        ...


class OptimizerRegister:
    """The optimizers of one model. Their param_groups are edited in place: others hold on to them."""

    def __init__(self, optimizers: Sequence[Optimizer], root: nn.Module, *, by_hand: bool = False) -> None:
        """Note the optimizers. `by_hand`: the script updates the weights itself, and there is none to be handed in.

        Raises:
            SurgeryError: something that is no torch optimizer.
        """
        for optimizer in optimizers:
            if not isinstance(optimizer, Optimizer):
                raise SurgeryError(
                    f"got {type(optimizer).__name__} as optimizer", "hand in a torch.optim.Optimizer"
                )
        self._optimizers = tuple(optimizers)
        self.by_hand = by_hand
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
        holding = [o for o in self._optimizers if parameter in o.state or self._holds(o, parameter)]
        return _all([_pop_state(o, parameter) for o in holding])

    def holds(self, parameter: nn.Parameter) -> bool:
        """Whether an optimizer updates this parameter."""
        return any(self._holds(o, parameter) for o in self._optimizers)

    def holding(self) -> tuple[Optimizer, ...]:
        """The optimizers that update a parameter of the model.

        Raises:
            SurgeryError: none was handed in, or none of them does.
        """
        if self.by_hand and not self.known:
            raise SurgeryError(
                "the script trains by hand: there is no optimizer whose step this could be put in front of",
                "write it into the script, between its backward pass and its update",
            )
        if not self.known:
            raise SurgeryError("there is no optimizer at hand", "build it first and hand it in as optimizer=")
        found = tuple(
            o
            for o in self._optimizers
            if any(id(p) in self._own for g in o.param_groups for p in g["params"])
        )
        if not found:
            raise SurgeryError(
                "the optimizer holds no parameter of this model", "hand in the one that trains this model"
            )
        return found

    def hook_steps(self, hooks: StepHooks) -> Undo:
        """Have hooks called around each step of the optimizers that update the model.

        Raises:
            SurgeryError: there is none, or one of them takes no hooks.
        """
        undos: list[Undo] = []
        for optimizer in self.holding():
            hooked = getattr(
                type(optimizer).step, "hooked", False
            )  # torch's wrapper around step, which calls hooks
            if not hooked or not hasattr(optimizer, "_optimizer_step_pre_hooks"):
                _all(undos)()
                raise SurgeryError(
                    f"the {type(optimizer).__name__} does not call step hooks",
                    "call super().__init__() in it, or make the change in the training loop",
                )
            undos.append(optimizer.register_step_pre_hook(hooks.before_step).remove)
            undos.append(optimizer.register_step_post_hook(hooks.after_step).remove)
        return _all(undos)

    def scale_rates(self, factor: float) -> Undo:
        """Multiply lr (and a scheduler's initial_lr) of every group with parameters of the model."""
        own = [
            g
            for o in self._optimizers
            for g in o.param_groups
            if any(id(p) in self._own for p in g["params"])
        ]
        return _all([_set_rate(g, key, factor) for g in own for key in ("lr", "initial_lr") if key in g])

    def settle(self, root: nn.Module, before: Iterable[nn.Parameter]) -> Undo:
        """Take out what left the model; put what is new into its anchor's group."""
        now = {id(p): name for name, p in root.named_parameters()}
        gone = [p for p in before if id(p) not in now]
        lost = {id(p) for p in gone}
        undos = []
        for optimizer in self._optimizers:
            held = {id(p) for g in optimizer.param_groups for p in g["params"]}
            for group in optimizer.param_groups:
                members = group["params"]
                wanted = [p for p in members if id(p) not in lost]
                seated = {id(p) for p in members}  # anchors that are leaving still say where their group is
                for parameter, anchor in self._anchors:
                    if id(anchor) in seated and id(parameter) in now and id(parameter) not in held:
                        wanted.append(parameter)
                        seated.add(id(parameter))
                        held.add(id(parameter))
                if len(wanted) != len(members) or any(
                    a is not b for a, b in zip(wanted, members, strict=True)
                ):
                    undos.append(_set_members(optimizer, group, wanted, now))
        undos += [self.forget(p) for p in gone]
        return _all(undos)

    @staticmethod
    def _holds(optimizer: Optimizer, parameter: nn.Parameter) -> bool:
        return any(p is parameter for g in optimizer.param_groups for p in g["params"])


def _pop_state(optimizer: Optimizer, parameter: nn.Parameter) -> Undo:
    there = parameter in optimizer.state
    state = optimizer.state.pop(parameter) if there else None

    def undo() -> None:
        if there:
            optimizer.state[parameter] = state
        else:  # moments of the treated parameter would not fit the old one
            optimizer.state.pop(parameter, None)

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


def _set_members(
    optimizer: Optimizer, group: dict[str, Any], members: list[nn.Parameter], names: dict[int, str]
) -> Undo:
    before = list(group["params"])
    names_before = list(group.get("param_names", ()))  # there when named_parameters() was handed over
    counted = optimizer.__dict__.get("_numel_cache")  # LBFGS keeps the number of elements, which changes
    restore = _all([])
    if counted is not None:
        optimizer.__dict__["_numel_cache"] = None
        restore = _pop_state(optimizer, before[0])  # its memory of directions has the old length, too
    group["params"][:] = members
    if names_before:
        known = {id(p): n for p, n in zip(before, names_before, strict=True)}
        group["param_names"][:] = [known.get(id(p)) or names[id(p)] for p in members]

    def undo() -> None:
        group["params"][:] = before
        if names_before:
            group["param_names"][:] = names_before
        if counted is not None:
            optimizer.__dict__["_numel_cache"] = counted
        restore()

    return undo


def _all(undos: Sequence[Undo]) -> Undo:
    def undo() -> None:
        for step in reversed(undos):
            step()

    return undo
