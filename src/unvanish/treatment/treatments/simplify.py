"""Fewer layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.parameters import Number, Spec
from unvanish.treatment.spans import span_of
from unvanish.treatment.treatment import Operation, Treatment


@final
class Simplify(Treatment):
    """Keep the first blocks and the output, `layers` weighted layers in all; drop whole equal blocks.

    Why: the signal is a product over layers. A gain of .02 per layer (squared) leaves 1e-2 of the
    amplitude after 3 layers and 1e-9 after 12.
    When it is wrong: where the depth is needed. It takes capacity away, and old checkpoints no longer fit:
    unsafe.
    Source: Schoenholz et al. 2017: trainable depth is about 6 / |ln chi|.
    """

    name: ClassVar[TreatmentName] = "simplify"
    safety: ClassVar[Safety] = "unsafe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "layers": Number(low=2, high=10_000, whole=True, required=True)
    }

    def operate(self, operation: Operation) -> None:
        """Drop the last blocks that can be dropped."""
        surgery = operation.surgery
        layers, keep = operation.layers(), operation.settings.whole("layers")
        surplus = len(layers) - keep
        if surplus <= 0:
            raise SurgeryError(
                f"the net has {len(layers)} layers, not more than {keep}", "choose another treatment"
            )
        pairs = [span_of(surgery, layer) for layer in layers[1:]]  # the first layer fits the data: it stays
        spans = [span for span, _ in pairs if span is not None]
        if len(spans) < surplus:
            why = next(why for span, why in pairs if span is None)
            raise SurgeryError(
                f"only {len(spans)} of {len(layers)} layers can be dropped whole ({why})",
                f"ask for {len(layers) - len(spans)} layers or more, or cut the depth in the source",
            )
        gone = spans[len(spans) - surplus :]
        lost = {id(span.layer.module) for span in gone}
        left = [layer.module for layer in layers if id(layer.module) not in lost]
        for span in gone:
            surgery.remove(span.container, span.members)
        self._check(operation, left)

    def _check(self, operation: Operation, left: list[nn.Module]) -> None:
        """A forward that counts on positions in a container would now run other layers, or none."""
        anatomy = operation.anatomy()
        now = [layer.module for layer in operation.layers()] if anatomy.layers else []
        if len(now) != len(left) or any(a is not b for a, b in zip(now, left, strict=True)):
            raise SurgeryError(
                "the forward pass counts on the number of layers, so that none can be dropped",
                "loop over the container (for layer in self.layers) or cut the depth in the source",
            )
