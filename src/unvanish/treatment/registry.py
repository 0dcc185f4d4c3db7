"""The treatments that there are: one line each, checked when registered."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, get_args

from unvanish.errors import SurgeryError, UsageError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Prescription, Safety
from unvanish.treatment.parameters import Choice, Number, Settings
from unvanish.treatment.treatment import Treatment
from unvanish.treatment.treatments.activation import Activation
from unvanish.treatment.treatments.batchnorm import BatchNorm
from unvanish.treatment.treatments.clip import Clip
from unvanish.treatment.treatments.gated_rnn import GatedRnn
from unvanish.treatment.treatments.groupnorm import GroupNorm
from unvanish.treatment.treatments.init import Init
from unvanish.treatment.treatments.inputs import Inputs
from unvanish.treatment.treatments.layernorm import LayerNorm
from unvanish.treatment.treatments.learning_rate import LearningRate
from unvanish.treatment.treatments.output import Output
from unvanish.treatment.treatments.precision import Precision
from unvanish.treatment.treatments.reconnect import Reconnect
from unvanish.treatment.treatments.residual import Residual
from unvanish.treatment.treatments.simplify import Simplify


class Registry:
    """Treatments by name."""

    def __init__(self, treatments: Iterable[type[Treatment]] = ()) -> None:
        """Register each."""
        self._known: dict[str, Treatment] = {}
        for treatment in treatments:
            self.register(treatment)

    def register(self, kind: type[Treatment]) -> None:
        """Take a treatment in.

        Raises:
            UsageError: it is abstract, unnamed, named outside of the contract, undocumented, or named twice.
        """
        given: Any = kind  # python callers are not held to the annotation
        label = getattr(given, "__name__", repr(given))
        if not (inspect.isclass(given) and issubclass(given, Treatment)) or inspect.isabstract(given):
            raise UsageError(f"{label} is not a concrete Treatment", "subclass Treatment and write operate()")
        name = str(getattr(given, "name", None))
        if name not in get_args(TreatmentName):
            raise UsageError(f"{label}: name {name!r} is not one of the contract's", "use one of those")
        if name in self._known:
            raise UsageError(f"{label}: {name} is registered already", "register it once")
        if getattr(kind, "safety", None) not in get_args(Safety):
            raise UsageError(f"{label}: safety must be one of {', '.join(get_args(Safety))}", "set it")
        specs = getattr(kind, "parameters", None)
        if not isinstance(specs, dict) or not all(isinstance(s, (Number, Choice)) for s in specs.values()):
            raise UsageError(f"{label}: parameters must be a dict of Number and Choice", "declare them")
        for part in ("Why:", "When it is wrong:", "Source:"):
            if part not in (kind.__doc__ or ""):
                raise UsageError(
                    f"{label}: its docstring lacks {part!r}", "say what, why, when it is wrong, source"
                )
        self._known[name] = kind()

    def __getitem__(self, name: str) -> Treatment:
        """The treatment of this name.

        Raises:
            SurgeryError: there is none (yet).
        """
        if name not in self._known:
            raise SurgeryError(f"there is no treatment {name!r}", f"known are: {', '.join(self.names())}")
        return self._known[name]

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registering."""
        return tuple(self._known)

    def read(self, prescription: Prescription) -> tuple[Treatment, Settings]:
        """The treatment that a prescription names, with its checked parameters.

        Raises:
            SurgeryError: unknown treatment or parameter, or a value out of range.
        """
        treatment = self[prescription.treatment]
        return treatment, treatment.read(prescription)


TREATMENTS = Registry(
    (
        Activation,
        Init,
        BatchNorm,
        LayerNorm,
        GroupNorm,
        Residual,
        Simplify,
        LearningRate,
        Clip,
        GatedRnn,
        Precision,
        Reconnect,
        Inputs,
        Output,
    )
)
