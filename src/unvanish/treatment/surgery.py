"""The only place that edits a model: every edit is written in a journal, and undone from it bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from unvanish.errors import SurgeryError
from unvanish.treatment.adoption import adopt, set_mode, share_hooks, take_over
from unvanish.treatment.blocks import Joined
from unvanish.treatment.by_hand import scale_gradients
from unvanish.treatment.dressing import Coat, dress
from unvanish.treatment.journal import Journal
from unvanish.treatment.refuse import refuse_wrappers
from unvanish.treatment.registers import OptimizerRegister, StepHooks
from unvanish.treatment.running import redirect_running_call
from unvanish.treatment.values import ValueEdits


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
        by_hand: bool = False,
    ) -> None:
        """Refuse what can't be operated on, and note which optimizer holds which parameter, if it is not `by_hand`.

        Raises:
            SurgeryError: a DDP, FSDP, compiled or scripted model, or parameters that do not exist yet.
        """
        refuse_wrappers(root)
        self.root = root
        self.order = None if order is None else list(order)
        self._journal = Journal()
        self._dressed: list[nn.Module] = []
        self._names_before = {id(p): name for name, p in root.named_parameters()}
        self._before = list(root.parameters())  # held, so that no id is given to a new tensor
        self.optimizers = OptimizerRegister(optimizers, root, by_hand=by_hand)
        self._factor = 1.0  # of the gradients, for weights that are updated by hand
        self.values = ValueEdits(self._journal, self.optimizers)

    # --- the module tree ------------------------------------------------------------------------------------

    def aliases(self, module: nn.Module) -> list[tuple[nn.Module, str]]:
        """Every (parent, name) under which this very module is registered."""
        return [(p, n) for p in self.root.modules() for n, c in p._modules.items() if c is module]

    def path(self, module: nn.Module) -> str:
        """The dotted path of a module ("" = the root)."""
        return next((p for p, m in self.root.named_modules() if m is module), "?")

    def replace(
        self, old: nn.Module, new: nn.Module, *, keeps: bool = False, anchor: nn.Module | None = None
    ) -> None:
        """Put `new` in the place of `old` at every alias. `keeps`: the new one holds the old one (a wrapper).

        New parameters train as those of `old` do, or where it has none, as those of `anchor`.

        Raises:
            SurgeryError: `old` is the root itself, or is not registered in this model.
        """
        places = self.aliases(old)
        if not places:
            raise SurgeryError(
                f"the {type(old).__name__} to be replaced is not a part of the model",
                "treat a model that holds it",
            )
        self._adopt(new, beside=old if anchor is None else anchor, mode=old.training)
        if not keeps:
            share_hooks(old, new)
        for parent, name in places:
            self._edit(parent)
            parent._modules[name] = new
        if self.order is not None and not keeps:
            self._set_order([new if m is old else m for m in self.order])

    def become(self, new: nn.Module) -> None:
        """Have the root itself become another module: the object stays, as scripts hold on to it."""
        self._adopt(new, beside=self.root)
        self._journal.note(take_over(self.root, new))
        self._dressed.append(self.root)

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

    def insert_before(self, container: nn.Sequential, old: nn.Module, name: str, new: nn.Module) -> None:
        """Put `new` straight in front of `old` in an nn.Sequential, as insert_after does behind it."""
        self.insert_after(container, old, name, new)
        items = list(container._modules.items())
        place = next(i for i, (_, child) in enumerate(items) if child is new)
        items.insert(place - 1, items.pop(place))
        container._modules.clear()
        container._modules.update(items)
        if self.order is not None:
            self._set_order([x for m in self.order if m is not new for x in ([new, m] if m is old else [m])])

    def put(self, parent: nn.Module, name: str, new: nn.Module) -> str:
        """Register a new part of a module; return the name that it got (one that was free)."""
        while hasattr(parent, name):
            name += "_"
        self._adopt(new, beside=parent)
        self._edit(parent)
        parent._modules[name] = new
        return name

    def wrap(self, module: nn.Module, wrapper: nn.Sequential, added: nn.Module) -> None:
        """Replace `module` by a Sequential that holds it and `added`, at every alias."""
        self._adopt(added, beside=module)
        self.replace(module, wrapper, keeps=True)
        self._follow(module, added)

    def precede(self, module: nn.Module, added: nn.Module, *, anchor: nn.Module) -> None:
        """Put `added` in front of a module (an activation), at every alias; it trains as `anchor` does."""
        self.replace(module, Joined(added, module, main=1), keeps=True, anchor=anchor)
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

    def take_out(self, module: nn.Module) -> None:
        """Take a module that nothing calls any more out of the model, at every alias."""
        for parent, name in self.aliases(module):
            self._edit(parent)
            del parent._modules[name]
        if self.order is not None:
            inside = {id(m) for m in module.modules()}
            self._set_order([m for m in self.order if id(m) not in inside])

    # --- values ---------------------------------------------------------------------------------------------

    def write(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        """Give a parameter new values in place; it stays the same object (ties and optimizers hold)."""
        self.values.write(parameter, value)

    def dress(self, module: nn.Module, coat: Coat) -> None:
        """Change how this one module's forward runs; its name, its parts and its state_dict stay.

        Raises:
            SurgeryError: the class of the module can't be extended.
        """
        self._journal.note(dress(module, coat))
        self._dressed.append(module)

    def scale_rates(self, factor: float) -> None:
        """Multiply the learning rate of every group that holds a parameter of this model.

        Where the script updates by hand, all gradients, at the end of the surgery: new parameters have theirs, too.
        """
        if self.optimizers.by_hand:
            self._factor *= factor
        else:
            self._journal.note(self.optimizers.scale_rates(factor))

    def hook_steps(self, hooks: StepHooks) -> None:
        """Have hooks called before and after each step of the optimizers that hold a part of this model.

        Raises:
            SurgeryError: no optimizer holds one, or an optimizer takes no hooks.
        """
        self._journal.note(self.optimizers.hook_steps(hooks))

    @property
    def has_optimizer(self) -> bool:
        """Whether an optimizer was handed in."""
        return self.optimizers.known

    @property
    def has_rate(self) -> bool:
        """Whether there is a learning rate that can be scaled."""
        return self.optimizers.known or self.optimizers.by_hand

    # --- the end --------------------------------------------------------------------------------------------

    def settle_optimizers(self) -> None:
        """Take what left the model out of the optimizers, and put new parameters beside their neighbours."""
        self._journal.note(self.optimizers.settle(self.root, self._before))
        if self._factor != 1.0:
            self._journal.note(scale_gradients(self.root, self._factor))

    def redirect_running_calls(self) -> None:
        """Have calls that have begun (this is a forward pre-hook of theirs) run the new forward."""
        for module in self._dressed:
            self._journal.note(redirect_running_call(module))

    def key_map(self) -> dict[str, str]:
        """Old parameter name -> new one, for what is still in the model (to load old checkpoints)."""
        now = {id(p): name for name, p in self.root.named_parameters()}
        return {old: now[i] for i, old in self._names_before.items() if i in now}

    def undo(self) -> None:
        """Take every edit back, the last first. Doing it again does nothing."""
        self._journal.undo()

    # --- inside ---------------------------------------------------------------------------------------------

    def _edit(self, parent: nn.Module) -> None:
        children = list(parent._modules.items())

        def undo() -> None:
            parent._modules.clear()
            parent._modules.update(children)

        self._journal.note(undo)

    def _set_order(self, order: list[nn.Module]) -> None:
        before = self.order

        def undo() -> None:
            self.order = before

        self._journal.note(undo)
        self.order = order

    def _follow(self, old: nn.Module, new: nn.Module) -> None:
        if self.order is not None:
            self._set_order([x for m in self.order for x in ([m, new] if m is old else [m])])

    def _adopt(self, new: nn.Module, *, beside: nn.Module, mode: bool | None = None) -> None:
        adopt(new, self.root, beside, self.optimizers)
        set_mode(new, self.root, beside.training if mode is None else mode)
