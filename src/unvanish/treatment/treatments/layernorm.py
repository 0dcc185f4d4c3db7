"""Layer normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.anatomy import Layer
from unvanish.treatment.kinds import features_of
from unvanish.treatment.other_norms import PLACES, NormSite, place_norms
from unvanish.treatment.parameters import Spec
from unvanish.treatment.treatment import Operation, Treatment


@final
class LayerNorm(Treatment):
    """Put a layer norm between every layer and its activation (over the features; one group in convolutions).

    `at`: "layers", or "norms" for a layer norm in the place of every norm that the model has.

    Why: as batch norm, it holds the pre-activations at variance 1; it needs no batch, and is the same in
    training and in use.
    When it is wrong: on a few features (two values normalised are always +1 and -1), and where the size of
    the vector as a whole carries the information.
    Source: Ba, Kiros & Hinton 2016; for convolutions Wu & He 2018 (group norm with one group).
    """

    name: ClassVar[TreatmentName] = "layernorm"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {"at": PLACES}

    def operate(self, operation: Operation) -> None:
        """Insert the norms."""
        place_norms(operation, _norm_for, _in_place_of, at_every_call=True)


def _in_place_of(site: NormSite) -> nn.Module:
    features = int(site.features or 0)
    return nn.LayerNorm(features) if site.last else nn.GroupNorm(1, features)


def _norm_for(layer: Layer) -> nn.Module:
    module = layer.module
    if isinstance(module, nn.Linear):
        return nn.LayerNorm(module.out_features)
    return nn.GroupNorm(1, features_of(module))
