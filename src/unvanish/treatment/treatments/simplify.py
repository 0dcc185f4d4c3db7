"""Fewer layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.anatomy import Anatomy, Layer, follower_of
from unvanish.treatment.flow import Stage
from unvanish.treatment.parameters import Number, Spec
from unvanish.treatment.spans import Span, bare_span_of, span_of
from unvanish.treatment.treatment import Operation, Treatment
from unvanish.treatment.wired import WiredBlock, wired_block
from unvanish.treatment.wiring import Wiring


@final
class Simplify(Treatment):
    """Keep the first blocks and the output, `layers` weighted layers in all; drop whole equal blocks.

    Blocks are dropped from their nn.Sequential or nn.ModuleList; where layer and activation are called in
    forward, both calls hand on what they get, and the layer leaves the model.
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
        layers, keep = operation.layers(), operation.settings.whole("layers")
        surplus = len(layers) - keep
        if surplus <= 0:
            raise SurgeryError(
                f"the net has {len(layers)} layers, not more than {keep}", "choose another treatment"
            )
        before, wiring = operation.anatomy(), Wiring(operation.surgery)
        found = [
            _block(operation, before, wiring, layer) for layer in layers[1:]
        ]  # the first one fits the data
        blocks = [block for block in found if not isinstance(block, str)]
        if len(blocks) < surplus:
            why = next(block for block in found if isinstance(block, str))
            raise SurgeryError(
                f"only {len(blocks)} of {len(layers)} layers can be dropped whole ({why})",
                f"ask for {len(layers) - len(blocks)} layers or more, or cut the depth in the source",
            )
        gone = blocks[len(blocks) - surplus :]
        _drop(operation, wiring, gone)
        lost = {id(_layer(block).module) for block in gone}
        _check(operation, [layer.module for layer in layers if id(layer.module) not in lost])
        if before.wired:
            _check_wiring(before, operation.anatomy(), [_layer(block) for block in gone])


def _block(operation: Operation, anatomy: Anatomy, wiring: Wiring, layer: Layer) -> Span | WiredBlock | str:
    """How a layer can be dropped with its activation, or why it can't."""
    span, why = span_of(operation.surgery, layer)
    if span is not None:
        return span
    try:
        block = wired_block(wiring, anatomy, layer)
    except SurgeryError as error:
        return error.mistake if "wiring" not in why else f"{why}; {error.mistake}"
    if len(block.layers) == 1:
        return block
    bare = bare_span_of(operation.surgery, layer)
    return bare or f"{block.first.words}, runs {len(block.layers)} layers"


def _layer(block: Span | WiredBlock) -> Layer:
    return block.layer if isinstance(block, Span) else block.layers[0]


def _drop(operation: Operation, wiring: Wiring, gone: Sequence[Span | WiredBlock]) -> None:
    for block in gone:
        if isinstance(block, WiredBlock):
            wiring.edit(block.first, "swap", "identity")
            wiring.edit(block.last, "swap", "identity")
    wiring.carry_out()
    for block in gone:
        if isinstance(block, WiredBlock):
            _take_out(operation, block.layers[0].module)
        else:
            operation.surgery.remove(block.container, block.members)


def _take_out(operation: Operation, module: nn.Module) -> None:
    """In a list the others keep their numbers: forward may ask for them."""
    lists = (nn.ModuleList, nn.Sequential)
    if any(isinstance(parent, lists) for parent, _ in operation.surgery.aliases(module)):
        operation.surgery.replace(module, nn.Identity())
    else:
        operation.surgery.take_out(module)


def _check(operation: Operation, left: Sequence[nn.Module]) -> None:
    """A forward that counts on positions in a container would now run other layers, or none."""
    anatomy = operation.anatomy()
    now = [layer.module for layer in operation.layers()] if anatomy.layers else []
    if len(now) != len(left) or any(a is not b for a, b in zip(now, left, strict=True)):
        raise SurgeryError(
            "the forward pass counts on the number of layers, so that none can be dropped",
            "loop over the container (for layer in self.layers) or cut the depth in the source",
        )


def _check_wiring(before: Anatomy, after: Anatomy, lost: Sequence[Layer]) -> None:
    """All that is left must run in the same order as before, each with the same things around it."""
    gone = {place for layer in lost for place in _places(before.flow.stages, layer)}
    wanted = [_mark(s) for place, s in enumerate(before.flow.stages) if place not in gone]
    if not after.wired or wanted != [_mark(s) for s in after.flow.stages]:
        raise SurgeryError(
            "without these layers the forward pass does other things as well", "cut the depth in the source"
        )


def _places(stages: Sequence[Stage], layer: Layer) -> list[int]:
    """The stages of a block, at each of its calls: the layer, its activation, and what lies between."""
    places = []
    for start in (place for place, stage in enumerate(stages) if stage.module is layer.module):
        end, _ = follower_of(stages, start)
        places.append(start)
        while end is not None and places[-1] != end:
            places.append(stages[places[-1]].behind[0])
    return places


def _mark(stage: Stage) -> tuple[int, str]:
    return (0 if stage.module is None else id(stage.module), stage.name)
