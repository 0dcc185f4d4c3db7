"""Parameters that were left out of the training, brought back in."""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.parameters import Spec
from unvanish.treatment.treatment import Operation, Treatment

Named = Sequence[tuple[str, nn.Parameter]]
_CUTS = {
    "detach": ".detach()", "detach_": ".detach_()", "data": ".data", "no_grad": "torch.no_grad()", "item": ".item()",
    "inference_mode": "torch.inference_mode()", "numpy": ".numpy()", "tolist": ".tolist()",
}  # fmt: skip


@final
class Reconnect(Treatment):
    """Have every parameter of the target trained: requires_grad on, and a place in the optimizer.

    A parameter that no optimizer holds joins the group of its neighbours: of the same module, else of the nearest
    one in module order. Groups, their options and the moments of all others stay.
    Why: a layer that keeps its random weights passes a random signal on; mostly nobody meant it (a list of modules
    that is no nn.ModuleList, an optimizer built from the wrong part, a freeze that was never taken back).
    When it is wrong: for what is frozen on purpose: a pretrained backbone, a target network, fixed random features.
    It can't tell, so it is unsafe, and `target` should name the part that is meant. What is cut off in forward, by
    .detach() say, has to be mended there.
    Source: the definition of backpropagation, Rumelhart, Hinton & Williams 1986; torch.optim's parameter groups.
    """

    name: ClassVar[TreatmentName] = "reconnect"
    safety: ClassVar[Safety] = "unsafe"
    parameters: ClassVar[Mapping[str, Spec]] = {}

    def operate(self, operation: Operation) -> None:
        """Unfreeze, and seat."""
        surgery = operation.surgery
        inside = {id(p) for p in operation.module().parameters()}
        every = list(operation.root.named_parameters())
        meant = [(n, p) for n, p in every if id(p) in inside and (p.is_floating_point() or p.is_complex())]
        frozen = [(n, p) for n, p in meant if not p.requires_grad]
        outside = [(n, p) for n, p in meant if surgery.has_optimizer and not surgery.optimizers.holds(p)]
        if not frozen and not outside:
            raise SurgeryError(*_nothing_to_do(operation))
        held = [(n, p) for n, p in every if surgery.optimizers.holds(p)]
        if surgery.has_optimizer and not held:
            raise SurgeryError(
                "the optimizer holds no parameter of this model", "hand in the one that trains this model"
            )
        for _, parameter in frozen:
            surgery.values.unfreeze(parameter)
        for name, parameter in outside:
            surgery.optimizers.seat(parameter, _neighbour(name, every, held))


def _neighbour(name: str, every: Named, held: Named) -> nn.Parameter:
    """The held parameter that is nearest: in the same module, else by the distance in module order."""
    places = {other: place for place, (other, _) in enumerate(every)}
    home = name.rpartition(".")[0]
    siblings = [(n, p) for n, p in held if n.rpartition(".")[0] == home]
    return min(siblings or held, key=lambda entry: abs(places[entry[0]] - places[name]))[1]


def _nothing_to_do(operation: Operation) -> tuple[str, str]:
    """The mistake and the mend, where all parameters are trained as it is."""
    where = "of the model" if operation.target == "*" else f"of {operation.target!r}"
    cuts = list(_cuts(operation.module()))
    if not operation.surgery.has_optimizer:
        return f"no parameter {where} is frozen, and there is no optimizer to look at", "hand in optimizer="
    if not cuts:
        return f"every parameter {where} is trained already", "look at the other treatments"
    return (
        f"every parameter {where} is trained already; what cuts the gradient off is in forward",
        f"take {'; '.join(cuts[:3])} out, or put the layers behind it into the loss",
    )


def _cuts(module: nn.Module) -> Iterator[str]:
    """What ends a gradient in the methods of the model's own classes, with its place."""
    for kind in dict.fromkeys(type(part) for part in module.modules()):
        if kind.__module__.startswith("torch."):
            continue
        for name, method in vars(kind).items():
            if isinstance(method, FunctionType) and not name.startswith("__"):
                yield from _cuts_in(method)


def _cuts_in(method: FunctionType) -> Iterator[str]:
    line = method.__code__.co_firstlineno
    for instruction in dis.get_instructions(method):
        line = _line(instruction, line)
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and instruction.argval in _CUTS:
            yield f"{_CUTS[instruction.argval]} in {method.__qualname__}, line {line}"


def _line(instruction: dis.Instruction, before: int) -> int:
    found = (
        getattr(instruction, "line_number", None) or instruction.starts_line
    )  # the former since Python 3.13
    return before if found is None or isinstance(found, bool) else found
