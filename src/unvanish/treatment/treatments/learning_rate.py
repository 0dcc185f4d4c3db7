"""Another learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.parameters import Number, Spec
from unvanish.treatment.treatment import Operation, Treatment


@final
class LearningRate(Treatment):
    """Multiply the learning rate of every parameter group of this model by `factor`.

    Why: a net whose signal is fine may still crawl or jump; and a treated net has other gradients, so that
    its best rate is another one (the trials look for it on a grid, for treated and untreated alike).
    When it is wrong: as the only answer to a vanished signal. No rate mends a factor of 1e-9 without
    blowing up the layers that get theirs. A scheduler that was built before keeps the old base rate.
    Where the script updates its weights by hand, its gradients are multiplied in place of the rate: see
    treatment/by_hand.py for what that holds for.
    Source: LeCun et al. 1998, Efficient BackProp.
    """

    name: ClassVar[TreatmentName] = "learning_rate"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {"factor": Number(low=1e-6, high=1e6, required=True)}

    def operate(self, operation: Operation) -> None:
        """Scale the rates."""
        if not operation.surgery.has_rate:
            raise SurgeryError("there is no optimizer to set a rate in", "hand in optimizer=")
        operation.surgery.scale_rates(operation.settings.number("factor"))
