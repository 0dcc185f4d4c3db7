"""The only place that edits a model: every edit is written in a journal, and undone from it bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from unvanish.errors import SurgeryError
from unvanish.treatment.refuse import refuse_wrappers
from unvanish.treatment.registers import OptimizerRegister


class Surgery:
    """A model on the table. The root object stays the same object throughout, since scripts hold on to it.

    `order` lists the modules in execution order where the caller knows it (the probe recorded it); the
    edits keep it up to date. New modules take device, dtype, training mode and requires_grad from their
    neighbour.
    """

    def __init__(
        self,
        root: nn.Module,
        *,
        optimizers: Sequence[Optimizer] = (),
        order: Sequence[nn.Module] | None = None,
    ) -> None:
        """Refuse what can't be operated on, and note which optimizer holds which parameter.

        Raises:
            SurgeryError: a DDP, FSDP, compiled or scripted model, or parameters that do not exist yet.
        """
        refuse_wrappers(root)
        self.root = root
        self.order = None if order is None else list(order)
        self._journal: list[Callable[[], None]] = []
        self._names_before = {id(p): name for name, p in root.named_parameters()}
        self._before = list(root.parameters())  # held, so that no id is given to a new tensor
        self._register = OptimizerRegister(optimizers, root)

    # --- the module tree ------------------------------------------------------------------------------------

    def aliases(self, module: nn.Module) -> list[tuple[nn.Module, str]]:
        """Every (parent, name) under which this very module is registered."""
        return [(p, n) for p in self.root.modules() for n, c in p._modules.items() if c is module]

    def path(self, module: nn.Module) -> str:
        """The dotted path of a module ("" = the root)."""
        return next((p for p, m in self.root.named_modules() if m is module), "?")

    def replace(self, old: nn.Module, new: nn.Module, *, keeps: bool = False) -> None:
        """Put `new` in the place of `old` at every alias. `keeps`: the new one holds the old one (a wrapper).

        Raises:
            SurgeryError: `old` is the root itself, or is not registered in this model.
        """
        places = self.aliases(old)
        if not places:
            raise SurgeryError(
                f"the {type(old).__name__} to be replaced is not a part of the model",
                "treat a model that holds it",
            )
        if keeps:
            self._adopt(new, beside=old)
        else:
            new.train(old.training)
        for parent, name in places:
            self._edit(parent)
            parent._modules[name] = new
        if self.order is not None and not keeps:
            self._set_order([new if m is old else m for m in self.order])

    def insert_after(self, container: nn.Sequential, old: nn.Module, name: str, new: nn.Module) -> None:
        """Put `new` right behind `old` in an nn.Sequential under a name of its own.

        The names of all others stay as they were (a Sequential runs in order, whatever the names), and so do
        the keys of old checkpoints.
        """
        while name in container._modules:
            name += "_"
        self._adopt(new, beside=old)
        self._edit(container)
        items = list(container._modules.items())
        container._modules.clear()
        for key, child in items:
            container._modules[key] = child
            if child is old:
                container._modules[name] = new
        self._follow(old, new)

    def wrap(self, module: nn.Module, wrapper: nn.Sequential, added: nn.Module) -> None:
        """Replace `module` by a Sequential that holds it and `added`, at every alias."""
        self._adopt(added, beside=module)
        self.replace(module, wrapper, keeps=True)
        self._follow(module, added)

    def precede(self, module: nn.Module, added: nn.Module, *, anchor: nn.Module) -> None:
        """Put `added` in front of a module (an activation), at every alias; it trains as `anchor` does."""
        self._adopt(added, beside=anchor)
        self.replace(module, nn.Sequential(added, module), keeps=True)
        if self.order is not None:
            self._set_order([x for m in self.order for x in ((added, m) if m is module else (m,))])

    def gather(self, container: nn.Sequential, span: Sequence[nn.Module], wrapper: nn.Module) -> None:
        """Replace a run of neighbours in an nn.Sequential by one wrapper that holds them."""
        names = [n for n, c in container._modules.items() if any(c is m for m in span)]
        self._adopt(wrapper, beside=span[0])
        self._edit(container)
        items = list(container._modules.items())
        container._modules.clear()
        for key, child in items:
            if key == names[0]:
                container._modules[key] = wrapper
            elif key not in names:
                container._modules[key] = child

    def remove(self, container: nn.Sequential | nn.ModuleList, gone: Sequence[nn.Module]) -> None:
        """Take modules out of a container. A ModuleList is counted anew, a Sequential keeps its names."""
        self._edit(container)
        items = [(n, c) for n, c in container._modules.items() if not any(c is m for m in gone)]
        container._modules.clear()
        for place, (name, child) in enumerate(items):
            container._modules[str(place) if isinstance(container, nn.ModuleList) else name] = child
        if self.order is not None:
            inside = {id(m) for top in gone for m in top.modules()}
            self._set_order([m for m in self.order if id(m) not in inside])

    # --- values ---------------------------------------------------------------------------------------------

    def write(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        """Give a parameter new values in place; it stays the same object (ties and optimizers hold)."""
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

        self._journal.append(undo)
        parameter.grad = None
        self._journal.append(self._register.forget(parameter))

    def scale_rates(self, factor: float) -> None:
        """Multiply the learning rate of every group that holds a parameter of this model."""
        self._journal.append(self._register.scale_rates(factor))

    @property
    def has_optimizer(self) -> bool:
        """Whether an optimizer was handed in."""
        return self._register.known

    # --- the end --------------------------------------------------------------------------------------------

    def settle_optimizers(self) -> None:
        """Take what left the model out of the optimizers, and put new parameters beside their neighbours."""
        self._journal.append(self._register.settle(self.root, self._before))

    def key_map(self) -> dict[str, str]:
        """Old parameter name -> new one, for what is still in the model (to load old checkpoints)."""
        now = {id(p): name for name, p in self.root.named_parameters()}
        return {old: now[i] for i, old in self._names_before.items() if i in now}

    def undo(self) -> None:
        """Take every edit back, the last first. Doing it again does nothing."""
        while self._journal:
            self._journal.pop()()

    # --- inside ---------------------------------------------------------------------------------------------

    def _edit(self, parent: nn.Module) -> None:
        children = list(parent._modules.items())

        def undo() -> None:
            parent._modules.clear()
            parent._modules.update(children)

        self._journal.append(undo)

    def _set_order(self, order: list[nn.Module]) -> None:
        before = self.order

        def undo() -> None:
            self.order = before

        self._journal.append(undo)
        self.order = order

    def _follow(self, old: nn.Module, new: nn.Module) -> None:
        if self.order is not None:
            self._set_order([x for m in self.order for x in ([m, new] if m is old else [m])])

    def _adopt(self, new: nn.Module, *, beside: nn.Module) -> None:
        """Make a new module like its neighbour, and have its parameters trained in the neighbour's group."""
        there = {id(t) for t in [*self.root.parameters(), *self.root.buffers()]}
        anchor = next((p for p in beside.parameters() if p.requires_grad), next(beside.parameters(), None))
        if anchor is not None:
            for tensor in [*new.parameters(), *new.buffers()]:
                if id(tensor) not in there:
                    kind = anchor.dtype if tensor.is_floating_point() else tensor.dtype
                    tensor.data = tensor.data.to(device=anchor.device, dtype=kind)
            for parameter in new.parameters():
                if id(parameter) not in there:
                    parameter.requires_grad_(anchor.requires_grad)
                    self._register.seat(parameter, anchor)
        held = {id(m) for m in self.root.modules()}
        for module in new.modules():
            if id(module) not in held:
                module.training = beside.training
