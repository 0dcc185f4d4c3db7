"""Identity skips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.blocks import Residual as ResidualBlock
from unvanish.treatment.parameters import Number, Spec
from unvanish.treatment.spans import Span, span_of
from unvanish.treatment.treatment import Operation, Treatment


@final
class Residual(Treatment):
    """Put an identity skip around every [layer, activation] block of equal shape: x + scale * F(x).

    Why: the skip hands the signal on with gain 1, so that the product over layers no longer shrinks,
    whatever F's own derivative is (1 + small instead of small).
    When it is wrong: where shapes differ (those blocks are left out), or where the sum grows too large: with
    He-initialised branches it doubles per block (2^L); use scale = 1/sqrt(L) there.
    Source: He et al. 2016.
    """

    name: ClassVar[TreatmentName] = "residual"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {"scale": Number(low=1e-4, high=10.0, default=1.0)}

    def operate(self, operation: Operation) -> None:
        """Wrap the blocks."""
        surgery, scale = operation.surgery, operation.settings.number("scale")
        spans: list[Span] = []
        reasons: list[str] = []
        for layer in operation.layers():
            span, why = span_of(surgery, layer)
            if span is not None:
                spans.append(span)
            else:
                reasons.append(why)
        if not spans:
            raise SurgeryError(
                f"no block takes a skip: {reasons[0]}",
                "write the blocks as nn.Sequential(layer, activation) of equal width, or add x + in forward",
            )
        for span in spans:
            if isinstance(span.container, nn.Sequential):
                body = span.members[0] if len(span.members) == 1 else nn.Sequential(*span.members)
                surgery.gather(span.container, span.members, ResidualBlock(body, scale))
            else:
                wrapper = ResidualBlock(span.members[0], scale)
                surgery.replace(span.members[0], wrapper, keeps=True)
