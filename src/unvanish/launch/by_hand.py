"""Puts a treatment into a script that updates its weights by hand: there is no optimizer to wait for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from unvanish.launch.loose import LooseSurgeon
from unvanish.launch.moved import Moved
from unvanish.launch.surgeon import Surgeon
from unvanish.probe.discover import living_modules, unwrap
from unvanish.schema.call import Batch
from unvanish.schema.treatment import Prescription

_LISTS = (
    "the treatment changes which parameters there are, and a list of them, or of buffers for them, that was made"
    " before fits no longer; make it from model.parameters() at each step"
)
_SHOWN = 3  # names of parameters that are not trained


class HandSurgeon(Surgeon):
    """Treats the model at its first training forward (gradients on), with that batch; the rest as Surgeon does it.

    Where the script calls parts of the model and never the whole, the first call of a part is the moment. A rate is
    the factor that its gradients are multiplied by (treatment/by_hand.py says what that holds for).
    """

    by_hand = True
    never = "never called its model as a module: model(x), and not model.forward(x)"

    def __init__(
        self, prescriptions: Sequence[Prescription], *, rate_factor: float = 1.0, **rest: Any
    ) -> None:
        """As Surgeon."""
        super().__init__(prescriptions, rate_factor=rate_factor, **rest)
        if not math.isclose(self._factor, 1.0):
            rate = Prescription(treatment="learning_rate", parameters={"factor": self._factor})
            self._prescriptions = (*self._prescriptions, rate)
        if self._most != math.inf:  # of a number that stands in the script: refused, with the reason
            cut = Prescription(treatment="learning_rate", parameters={"most": self._most})
            self._prescriptions = (*self._prescriptions, cut)
        self._factor = 1.0  # nothing is scaled around an optimizer's step
        self._moved = Moved()
        self._renumbered = False  # whether the treated model has other parameters than before
        self._parts: dict[int, nn.Module] = {}  # that were called, and belong to no model that is meant

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.treated is not None or not self._prescriptions

    @property
    def fault(self) -> str | None:
        """What the script does not train of the treated model."""
        if any(undo.pending for undo in self._undone):
            return "a part of the treatment waited for a call of the model, model(x), that never came"
        names = self._moved.left_out
        if not names:
            return None
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return (
            f"the script's own update leaves out {', '.join(names[:_SHOWN])}{more} of the treated model: it goes"
            " through a list of parameters or of buffers that it made before, or takes layers by their numbers; go"
            " through model.parameters() at each step"
        )

    def explained(self, error: str) -> str:
        """A list that was made before the treatment may fit no longer."""
        return f"{error} ({_LISTS})" if self._renumbered else error

    def end(self) -> None:
        """Take the hooks away."""
        super().end()
        self._moved.end()

    def forget(self) -> None:
        """Let go of the script's objects."""
        super().forget()
        self._parts, self._moved = {}, Moved()

    def _before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.done or not torch.is_grad_enabled():
            return
        model = unwrap(module)
        if self._is_meant(model):
            self._operate_on([model], Batch(args=args, kwargs=kwargs))
        elif id(model) not in self._parts:
            self._parts[id(model)] = model
            self._operate_on([m for m in living_modules() if _holds(m, model) and self._is_meant(m)])

    def _is_meant(self, module: nn.Module) -> bool:
        if self._mark is None:
            return any(p.requires_grad for p in module.parameters())
        return super()._is_meant(module)

    def _treat(
        self, model: nn.Module, prescriptions: Sequence[Prescription], batch: Batch | None = None
    ) -> None:
        before = list(model.parameters())
        super()._treat(model, prescriptions, batch)
        if prescriptions is self._prescriptions:  # and not a copy, which the script does not update
            self._moved.watch(model, before)
            self._renumbered = [id(p) for p in model.parameters()] != [id(p) for p in before]


def surgeon_class(*, by_hand: bool, loose: bool) -> type[Surgeon]:
    """Who treats a script of this kind: one that changes its weights itself, or whose weights no module holds."""
    return HandSurgeon if by_hand else LooseSurgeon if loose else Surgeon


def _holds(module: nn.Module, part: nn.Module) -> bool:
    return any(inner is part for inner in module.modules())
