"""Making a new module one of the model: device, dtype, training mode, gradients, optimizer group and hooks."""

from __future__ import annotations

from torch import nn

from unvanish.treatment.journal import Step
from unvanish.treatment.registers import OptimizerRegister

_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip


def adopt(new: nn.Module, root: nn.Module, beside: nn.Module, register: OptimizerRegister) -> None:
    """Make what is new in a module like its neighbour, and have its parameters trained in the neighbour's group."""
    there = {id(t) for t in [*root.parameters(), *root.buffers()]}
    neighbours = [p for p in beside.parameters() if p.requires_grad] or list(beside.parameters())
    if not neighbours:
        return
    for tensor in [*new.parameters(), *new.buffers()]:
        if id(tensor) not in there:
            kind = neighbours[0].dtype if tensor.is_floating_point() else tensor.dtype
            tensor.data = tensor.data.to(device=neighbours[0].device, dtype=kind)
    for name, parameter in new.named_parameters():
        if id(parameter) not in there:
            anchor = _anchor(name, parameter, beside, neighbours)
            parameter.requires_grad_(anchor.requires_grad)
            register.seat(parameter, anchor)
    for module in new.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()


def _anchor(
    name: str, parameter: nn.Parameter, beside: nn.Module, neighbours: list[nn.Parameter]
) -> nn.Parameter:
    """The neighbour of the same name, else one with as many axes: scripts keep weight decay from biases, say."""
    namesake = dict(beside.named_parameters()).get(name)
    if any(namesake is p for p in neighbours) and namesake is not None:
        return namesake
    return next((p for p in neighbours if p.dim() == parameter.dim()), neighbours[0])


def set_mode(new: nn.Module, root: nn.Module, training: bool) -> None:  # as nn.Module.train has it
    """Set the training mode of what is new in a module."""
    held = {id(m) for m in root.modules()}
    for module in new.modules():
        if id(module) not in held:
            module.training = training


def share_hooks(old: nn.Module, new: nn.Module) -> None:
    """Give a module the hooks of the one that it replaces: the very dicts, so that the script's handles work on."""
    for name in _HOOKS:
        if name in old.__dict__:
            new.__dict__[name] = old.__dict__[name]


def take_over(old: nn.Module, new: nn.Module) -> Step:
    """Give the object `old` the class and the contents of `new`; returns the way back."""
    kind, contents = type(old), dict(old.__dict__)
    share_hooks(old, new)

    def undo() -> None:
        object.__setattr__(old, "__class__", kind)
        old.__dict__.clear()
        old.__dict__.update(contents)

    old.__dict__.clear()
    old.__dict__.update(new.__dict__)
    object.__setattr__(old, "__class__", type(new))
    return undo
