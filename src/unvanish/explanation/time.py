"""The signal's way back through the time steps of the recurrent layers on a path."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from unvanish.diagnose.causes import RECURRENT, recurrent_weight
from unvanish.diagnose.path import Traced, is_weight, layer_name
from unvanish.schema.chain import Recurrence, TimeStep

_FUSED = ("RnnLayer", "Rnn", "Lstm", "Gru")


def recurrences_of(traced: Traced, path: Sequence[int]) -> tuple[Recurrence, ...]:
    """Layers whose weight the path goes through again and again, and fused ones that it goes through at once."""
    found: list[Recurrence] = []
    weight = recurrent_weight(traced, list(path)) or _repeated(traced, path[-1])
    if weight is not None:
        found.append(_unrolled(traced, weight))
    modules = {traced.operations[i].module for i in path if traced.operations[i].name.endswith(_FUSED)}
    for part in traced.trace.through_time:
        if part.module in modules and len(part.norms) >= RECURRENT:
            direction = ", backwards" if part.reverse else ""
            found.append(
                Recurrence(
                    layer=f"{part.module} (layer {part.layer}{direction})",
                    steps=tuple(
                        TimeStep(step=t, signal_norm=norm, gradient_norm=None)
                        for t, norm in enumerate(part.norms)
                    ),
                    fused=True,
                )
            )
    return tuple(found)


def _repeated(traced: Traced, target: int) -> str | None:
    """A weight of the target's own that is used again and again, each time on what came of the time before.

    The path need not go through it: in a gated cell most of the signal passes by.
    """
    for name in filter(is_weight, traced.operations[target].parameters):
        uses = [o.index for o in traced.operations if name in o.parameters]
        if len(uses) >= RECURRENT and all(traced.follows(a, b) for a, b in pairwise(uses)):
            return name
    return None


def _unrolled(traced: Traced, weight: str) -> Recurrence:
    uses = [o.index for o in traced.operations if weight in o.parameters]
    steps = []
    for number, index in enumerate(uses):
        stats, operation = traced.stats[index], traced.operations[index]
        handed = stats.parameter_norms[operation.parameters.index(weight)]
        steps.append(TimeStep(step=number, signal_norm=stats.norm, gradient_norm=handed))
    return Recurrence(layer=layer_name(traced.operations[uses[0]]), steps=tuple(steps), fused=False)
