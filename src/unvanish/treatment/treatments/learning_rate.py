"""Another learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.parameters import Number, Spec
from unvanish.treatment.rates import SteppedRates, rate_of
from unvanish.treatment.treatment import Operation, Treatment


@final
class LearningRate(Treatment):
    """Multiply the learning rate of every parameter group of this model by `factor`, or cut it at `most`.

    One of the two. `most` holds at every step, whatever a schedule or the script sets.

    Why: a net whose signal is fine may still crawl or jump; and a treated net has other gradients, so that
    its best rate is another one (the trials look for it on a grid, for treated and untreated alike).
    When it is wrong: as the only answer to a vanished signal. No rate mends a factor of 1e-9 without
    blowing up the layers that get theirs. A scheduler that was built before keeps the old base rate. `most` is for
    a rate that is raised for a while (a first step, a restart, a second phase) and is no answer to one that is too
    large all along.
    Where the script updates its weights by hand, its gradients are multiplied in place of the rate: see
    treatment/by_hand.py for what that holds for.
    Source: LeCun et al. 1998, Efficient BackProp.
    """

    name: ClassVar[TreatmentName] = "learning_rate"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "factor": Number(low=1e-6, high=1e6),
        "most": Number(low=1e-12, high=1e6),
    }

    def operate(self, operation: Operation) -> None:
        """Scale the rates, or cut them around each step."""
        factor, most = rate_of(operation.settings)
        if not operation.surgery.has_rate:
            raise SurgeryError("there is no optimizer to set a rate in", "hand in optimizer=")
        if factor is not None:
            operation.surgery.scale_rates(factor)
        elif most is not None:
            operation.surgery.hook_steps(SteppedRates(most=most))
