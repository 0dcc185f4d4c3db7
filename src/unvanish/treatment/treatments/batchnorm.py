"""Batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.anatomy import Layer
from unvanish.treatment.kinds import features_of, weight_of
from unvanish.treatment.norms import FeatureBatchNorm, SecondAxisBatchNorm
from unvanish.treatment.other_norms import PLACES, NormSite, place_norms
from unvanish.treatment.parameters import Spec
from unvanish.treatment.treatment import Operation, Treatment


@final
class BatchNorm(Treatment):
    """Put a batch norm between every layer and its activation (1d, 2d or 3d by the layer's type).

    `at`: "layers", or "norms" for a batch norm in the place of every norm that the model has.

    Why: it holds the pre-activations at variance 1 whatever the weights are, so that no layer saturates
    and the gain per layer no longer depends on the init: 1.03 (squared) for sigmoid, 1.18 for tanh.
    When it is wrong: batches under 16 rows (group norm there); recurrent steps; and deep ReLU nets without
    skips, where gradients explode by 1.47 per layer. The layer's own bias stops to matter.
    Source: Ioffe & Szegedy 2015; Yang et al. 2019 for the explosion.
    """

    name: ClassVar[TreatmentName] = "batchnorm"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {"at": PLACES}

    def operate(self, operation: Operation) -> None:
        """Insert the norms."""
        place_norms(operation, _norm_for, _in_place_of)


def _in_place_of(site: NormSite) -> nn.Module:
    features = int(site.features or 0)
    if site.last:
        return FeatureBatchNorm(features)
    kinds = {"1d": nn.BatchNorm1d, "2d": nn.BatchNorm2d, "3d": nn.BatchNorm3d}
    return kinds.get(site.kind, SecondAxisBatchNorm)(features)


def _norm_for(layer: Layer) -> nn.Module:
    module = layer.module
    if isinstance(module, nn.Linear):
        return FeatureBatchNorm(module.out_features)
    kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    return kinds[weight_of(module).dim() - 2](features_of(module))
