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
from unvanish.treatment.surgery import Surgery
from unvanish.treatment.treatment import Operation, Treatment
from unvanish.treatment.twins import twin_blocks
from unvanish.treatment.wired import has_sum_behind, takes_skip, wired_block
from unvanish.treatment.wiring import Wiring


@final
class Residual(Treatment):
    """Put an identity skip around every [layer, activation] block of equal shape: x + scale * F(x).

    Blocks that are modules are wrapped; where layer and activation are called in forward, these two calls are
    edited in the running forward: what goes into the layer is kept, and added behind the activation. Where there are
    no such blocks (gates that are multiplied, say), modules of several layers that stand behind one of their own kind
    are taken as they are.
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
        anatomy, wiring = operation.anatomy(), Wiring(surgery)
        spans: list[Span] = []
        reasons: list[str] = []
        wired: set[str] = set()
        for layer in operation.layers():
            if has_sum_behind(anatomy, layer):
                reasons.append(f"layer {layer.path!r} has a sum behind it already")
                continue
            span, why = span_of(surgery, layer)
            if span is not None:
                spans.append(span)
                continue
            try:
                block = wired_block(wiring, anatomy, layer)
                unsure = next((found.path for found in block.layers if not takes_skip(found)), None)
                if unsure is not None:
                    raise SurgeryError(f"{block.first.words}, also calls {unsure}, which can take no skip")
                kept = f"_unvanish_kept_{block.first.node.end_lineno}_{block.first.node.end_col_offset}"
                wiring.edit(block.first, "keep", kept)
                wiring.edit(block.last, "add", kept, scale)
                wired.add(layer.path)
            except SurgeryError as error:
                reasons.append(error.mistake if "wiring" not in why else f"{why}; {error.mistake}")
        twins = [] if spans or wired else twin_blocks(surgery, anatomy, operation.target)
        if not spans and not wired and not twins:
            raise SurgeryError(
                f"no block takes a skip: {reasons[0]}",
                "write the blocks as nn.Sequential(layer, activation) of equal width, or add x + in forward",
            )
        wiring.carry_out()
        for span in spans:
            _wrap(surgery, span, scale)
        for twin in twins:
            surgery.replace(twin, ResidualBlock(twin, scale), keeps=True)


def _wrap(surgery: Surgery, span: Span, scale: float) -> None:
    if isinstance(span.container, nn.Sequential):
        body = span.members[0] if len(span.members) == 1 else nn.Sequential(*span.members)
        surgery.gather(span.container, span.members, ResidualBlock(body, scale))
    else:
        surgery.replace(span.members[0], ResidualBlock(span.members[0], scale), keeps=True)
