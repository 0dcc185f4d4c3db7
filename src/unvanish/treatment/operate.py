"""Carrying out prescriptions: all of them, or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from unvanish.errors import SurgeryError
from unvanish.schema.call import Batch
from unvanish.schema.treatment import Prescription, Safety
from unvanish.treatment.anatomy import read_anatomy
from unvanish.treatment.draw import current_seed, quiet_rng
from unvanish.treatment.registry import TREATMENTS
from unvanish.treatment.surgery import Surgery
from unvanish.treatment.treatment import Operation

Optimizers = Optimizer | Sequence[Optimizer] | None


class Undo:
    """What was done to a model, and the way back."""

    def __init__(self, surgeries: Sequence[Surgery] = ()) -> None:
        """Hold the surgeries, the first one first."""
        self._surgeries = list(surgeries)
        self._handle: torch.utils.hooks.RemovableHandle | None = None

    @property
    def pending(self) -> bool:
        """Whether a part still waits for the first batch (see apply_when_ready)."""
        return self._handle is not None

    def undo(self) -> None:
        """Put module tree, values, rates and optimizer groups back, bit by bit. Twice does nothing more."""
        self._stop_waiting()
        while self._surgeries:
            self._surgeries.pop().undo()

    def key_map(self) -> dict[str, str]:
        """Parameter names before -> now, for loading a checkpoint of the untreated model."""
        names: dict[str, str] | None = None
        for surgery in self._surgeries:
            step = surgery.key_map()
            names = step if names is None else {a: step[b] for a, b in names.items() if b in step}
        return names or {}

    def _stop_waiting(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


def needs_batch(prescription: Prescription) -> bool:
    """Whether a prescription measures a real batch (LSUV).

    Raises:
        SurgeryError: the prescription is not a valid one.
    """
    treatment, settings = TREATMENTS.read(prescription)
    return treatment.wants_batch(settings)


def safety_of(prescriptions: Iterable[Prescription]) -> Safety:
    """The worst safety of these treatments."""
    order: tuple[Safety, ...] = ("safe", "unsafe", "display_only")
    return max((TREATMENTS[p.treatment].safety for p in prescriptions), key=order.index, default="safe")


def apply(
    model: nn.Module,
    prescriptions: Iterable[Prescription],
    *,
    optimizer: Optimizers = None,
    batch: Any = None,
    seed: int | None = None,
    order: Sequence[str] | None = None,
    by_hand: bool = False,
) -> Undo:
    """Treat the model in place, in the order given. The global random state is left as it was.

    `batch` is a tensor (the model's only input) or a Batch; `seed` (None = torch's current seed, read without
    drawing) decides the weights that are drawn; `order` are module paths in execution order, if known. `by_hand`:
    the script updates the weights without an optimizer.

    Raises:
        SurgeryError: one of them can't be carried out; then all is undone.
    """
    surgery = Surgery(model, optimizers=_listed(optimizer), order=_resolved(model, order), by_hand=by_hand)
    seed = current_seed() if seed is None else seed
    try:
        with quiet_rng(model):
            for prescription in prescriptions:
                _carry_out(surgery, prescription, _as_batch(batch), seed)
            surgery.settle_optimizers()
            surgery.redirect_running_calls()
    except BaseException as error:
        surgery.undo()
        if isinstance(error, SurgeryError) or not isinstance(error, Exception):
            raise
        raise SurgeryError(
            f"the treatment failed half way and was taken back: {type(error).__name__}: {error}",
            "please report this with the model's print-out",
        ) from error
    return Undo([surgery])


def apply_when_ready(
    model: nn.Module,
    prescriptions: Iterable[Prescription],
    *,
    optimizer: Optimizers = None,
    seed: int | None = None,
    order: Sequence[str] | None = None,
    by_hand: bool = False,
) -> Undo:
    """As apply; what needs a batch, and all after it, waits for the model's first training forward.

    So does all of it where the model can't be read without a batch and is refused for that; an optimizer has to be
    handed in then, as one that is built in the meantime would hold the wrong parameters.

    Raises:
        SurgeryError: as apply does, at once for what needs no batch, else out of that first forward.
    """
    plan = list(prescriptions)
    if by_hand:  # gradients are scaled when all parameters are there
        plan.sort(key=lambda p: p.treatment == "learning_rate")
    split = next((i for i, p in enumerate(plan) if needs_batch(p)), len(plan))
    seed = current_seed() if seed is None else seed
    try:
        done = apply(model, plan[:split], optimizer=optimizer, seed=seed, order=order, by_hand=by_hand)
    except SurgeryError:
        if not _may_wait(model, plan, optimizer, order):
            raise
        split, done = 0, Undo()
    if split == len(plan):
        return done

    def first_batch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return  # a validation pass before the training
        done._stop_waiting()
        here = Batch(args=args, kwargs=kwargs)
        later = apply(module, plan[split:], optimizer=optimizer, batch=here, seed=seed, by_hand=by_hand)
        done._surgeries += later._surgeries

    done._handle = model.register_forward_pre_hook(first_batch, with_kwargs=True, prepend=True)
    return done


def _may_wait(
    model: nn.Module, plan: Sequence[Prescription], optimizer: Optimizers, order: Sequence[str] | None
) -> bool:
    """Whether a refusal may be for want of a batch: the wiring is not known, and all that is asked for is there."""
    if optimizer is None or order is not None or not isinstance(model, nn.Module):
        return False
    known = {path for path, _ in model.named_modules()}
    if any(p.target != "*" and p.target not in known for p in plan):
        return False
    return not read_anatomy(model).wired


def _carry_out(surgery: Surgery, prescription: Prescription, batch: Batch | None, seed: int) -> None:
    treatment, settings = TREATMENTS.read(prescription)
    if treatment.safety == "display_only":
        raise SurgeryError(f"{treatment.name} is only proposed, not applied", "make the change by hand")
    if prescription.target != "*":
        try:
            surgery.root.get_submodule(prescription.target)
        except AttributeError:
            raise SurgeryError(
                f"the model has no module {prescription.target[:80]!r}",
                'use a module path of this model, or "*"',
            ) from None
    treatment.operate(
        Operation(surgery=surgery, settings=settings, target=prescription.target, seed=seed, batch=batch)
    )


def _listed(optimizer: Optimizers) -> Sequence[Optimizer]:
    if optimizer is None:
        return ()
    return (optimizer,) if isinstance(optimizer, Optimizer) else tuple(optimizer)


def _as_batch(batch: Any) -> Batch | None:
    return batch if batch is None or isinstance(batch, Batch) else Batch(args=(batch,))


def _resolved(model: nn.Module, order: Sequence[str] | None) -> list[nn.Module] | None:
    """Module paths as modules; a path that is not there is left out (the order is a hint)."""
    if order is None:
        return None
    known = dict(model.named_modules())
    return [known[path] for path in order if path in known]
