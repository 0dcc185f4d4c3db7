"""Another activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment import activations
from unvanish.treatment.anatomy import within
from unvanish.treatment.parameters import Choice, Number, Spec
from unvanish.treatment.treatment import Operation, Treatment


@final
class Activation(Treatment):
    """Replace the hidden activations by another kind, at every place where they are registered.

    Why: a sigmoid's derivative is at most 1/4, so that every layer takes at least 0.6 decades of the
    signal (and 2 log10(1/4) of its square); a rectifier's is 1 for the half that is on.
    When it is wrong: alone, where the weights are too small as well. torch's default init loses a factor
    of 6 per layer (squared) under ReLU, so the init has to change with it. ReLU units can die: LeakyReLU
    can't. Output activations and gates are left as they are, since the loss or the mechanism counts on
    their range.
    Source: Glorot, Bordes & Bengio 2011; Maas et al. 2013 (leaky).
    """

    name: ClassVar[TreatmentName] = "activation"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "kind": Choice(options=activations.BUILDABLE, required=True),
        "slope": Number(low=0.0, high=1.0, default=activations.LEAKY_SLOPE),
    }

    def operate(self, operation: Operation) -> None:
        """Swap every hidden activation module in the target that is of another kind."""
        kind, slope = operation.settings.word("kind"), operation.settings.number("slope")
        anatomy = operation.anatomy()
        if anatomy.functional and any(name != kind for name in anatomy.functional):
            names = ", ".join(sorted(set(anatomy.functional)))
            raise SurgeryError(
                f"forward calls {names} as a function, which is not in the module tree",
                f"make it a module (self.act = nn.{_class_name(anatomy.functional[0])}()) and call that",
            )
        paths = {id(m): p for p, m in operation.root.named_modules()}
        fresh = activations.build(kind, slope)
        swapped = [
            old
            for old in anatomy.hidden
            if within(paths[id(old)], operation.target) and repr(old) != repr(fresh)
        ]
        if not swapped:
            held = "; ".join(f"{path or 'the root'} stays: {why}" for path, why in anatomy.kept[:3])
            raise SurgeryError(
                f"there is no hidden activation to replace by {kind}" + (f" ({held})" if held else ""),
                "choose another treatment",
            )
        for old in swapped:
            operation.surgery.replace(old, activations.build(kind, slope))


def _class_name(name: str) -> str:
    return next((cls.__name__ for cls, n in activations.NAMES.items() if n == name), nn.ReLU.__name__)
