"""What a treatment is, and what it is given to work with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.call import Batch
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Prescription, Safety
from unvanish.treatment.anatomy import Anatomy, Layer, read_anatomy, within
from unvanish.treatment.parameters import Settings, Spec
from unvanish.treatment.surgery import Surgery


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One prescription on its way into one model. Only `surgery` may change anything."""

    surgery: Surgery
    settings: Settings
    target: str
    seed: int
    batch: Batch | None

    @property
    def root(self) -> nn.Module:
        """The model."""
        return self.surgery.root

    def module(self) -> nn.Module:
        """The module that the target names."""
        return self.root if self.target == "*" else self.root.get_submodule(self.target)

    def anatomy(self) -> Anatomy:
        """The model as it is now (read anew: an edit changes it)."""
        return read_anatomy(self.root, self.surgery.order, self.batch)

    def layers(self) -> list[Layer]:
        """The layers of the target, in execution order.

        Raises:
            SurgeryError: none is known.
        """
        found = [layer for layer in self.anatomy().layers if within(layer.path, self.target)]
        if not found:
            where = "in the model" if self.target == "*" else f"in {self.target!r}"
            raise SurgeryError(
                f"no Linear or convolution was found {where} whose place in the forward pass is known",
                "treat a model whose forward calls its layers as modules",
            )
        return found


class Treatment(ABC):
    """One kind of change. Subclasses are final; their docstring says what, why, when it is wrong, source.

    `safety`: safe = same inputs and outputs, no weighted layer lost; unsafe = takes something away and is
    only applied by opt-in; display_only = is proposed in words and never applied.
    """

    name: ClassVar[TreatmentName]
    safety: ClassVar[Safety]
    parameters: ClassVar[Mapping[str, Spec]]

    @abstractmethod
    def operate(self, operation: Operation) -> None:
        """Make the change through `operation.surgery`.

        Raises:
            SurgeryError: it can't be made on this model; the caller takes back what was done.
        """

    def wants_batch(self, settings: Settings) -> bool:  # noqa: ARG002  # subclasses look at it
        """Whether a real batch is needed to make the change."""
        return False

    @final
    def read(self, prescription: Prescription) -> Settings:
        """Check a prescription's parameters.

        Raises:
            SurgeryError: a parameter is unknown, missing or out of range.
        """
        return Settings(self.parameters, prescription)
