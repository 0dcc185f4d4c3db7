"""Standardised inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.call import Batch
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.blocks import Preceded
from unvanish.treatment.boundary import Standardised
from unvanish.treatment.entrances import axis_of, data_argument, entrances, seen_by
from unvanish.treatment.kinds import feature_axis, is_sequential
from unvanish.treatment.parameters import Choice, Settings, Spec
from unvanish.treatment.standardise import Standardise, standardiser
from unvanish.treatment.treatment import Operation, Treatment

_PART = "standardise"


@final
class Inputs(Treatment):
    """Put (x - mean) / deviation in front of the layers that see the data, per feature (per channel for images).

    Mean and deviation are measured on the first batch and kept as buffers; a feature that is constant in it is
    centred only. Where the data also goes elsewhere (a skip from the input, say), or the first layers are not
    known, it is done where the data comes into the model.
    Why: features of very different sizes make a valley that is steep one way and flat the other, and large ones
    saturate the first layer; raw pixels or years all push the weights in one direction.
    When it is wrong: where the size of the values is the message (counts, masks, one-hot words), where the first
    batch is small or sorted, and where a pretrained layer counts on other numbers.
    Source: LeCun et al. 1998, Efficient BackProp, section 4.3.
    """

    name: ClassVar[TreatmentName] = "inputs"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "mode": Choice(options=("standardise",), default="standardise")
    }

    def wants_batch(self, settings: Settings) -> bool:  # noqa: ARG002  # there is one mode
        """It measures the data."""
        return True

    def operate(self, operation: Operation) -> None:
        """Measure, and put in front."""
        if operation.batch is None:
            raise SurgeryError("standardising needs a real batch to measure", "hand in batch=")
        if operation.target != "*":
            raise SurgeryError("inputs is about the data of the whole model", 'set the target to "*"')
        if any(isinstance(m, Standardise) for m in operation.root.modules()):
            raise SurgeryError("the inputs are standardised already", "look at the other treatments")
        first = entrances(operation.root, operation.anatomy())
        if first is None or any(m is operation.root for m in first):
            _at_the_door(operation, operation.batch)
        else:
            _in_front(operation, first, operation.batch)


def _in_front(operation: Operation, first: list[nn.Module], batch: Batch) -> None:
    surgery = operation.surgery
    seen = seen_by(operation.root, first, batch)
    fronts = []
    for module, values in zip(first, seen, strict=True):
        axis = feature_axis(module) if operation.anatomy().wired else axis_of(module, values[0])
        fronts.append(standardiser(values, axis, surgery.path(module)))
    for module, front in zip(first, fronts, strict=True):
        places = surgery.aliases(module)
        if len(places) == 1 and is_sequential(places[0][0]) and len(surgery.aliases(places[0][0])) <= 1:
            surgery.insert_before(places[0][0], module, f"{places[0][1]}_{_PART}", front)
        else:
            surgery.replace(module, Preceded(front, module), keeps=True)


def _at_the_door(operation: Operation, batch: Batch) -> None:
    root = operation.root
    place, name, value = data_argument(root, batch)
    front = standardiser([value], axis_of(root, value), "the model")
    part = operation.surgery.put(root, _PART, front)
    operation.surgery.dress(root, Standardised(part=part, place=place, name=name))
