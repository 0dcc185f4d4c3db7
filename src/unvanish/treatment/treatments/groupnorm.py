"""Group normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.anatomy import Layer
from unvanish.treatment.kinds import features_of
from unvanish.treatment.norms import FeatureGroupNorm
from unvanish.treatment.other_norms import PLACES, NormSite, place_norms
from unvanish.treatment.parameters import Number, Spec
from unvanish.treatment.treatment import Operation, Treatment

MOST_GROUPS = 32  # Wu & He's own default
LEAST_FEATURES = 4  # in a group: the variance of fewer values says little


@final
class GroupNorm(Treatment):
    """Put a group norm between every layer and its activation (channels in groups; for Linear the features).

    `at`: "layers", or "norms" for a group norm in the place of every norm that the model has.

    `groups` is the same for every layer and divides its features; where it is left out, each layer gets as many as
    divide its features, up to 32, with at least 4 features in each.
    Why: as batch norm, it holds the pre-activations at variance 1 whatever the weights are; but sample by sample,
    so that small batches, recurrent steps and use in evaluation are all the same.
    When it is wrong: with groups of one or two features, which are then always near 0 or +1 and -1; and where
    batches are large, batch norm trains faster as a rule.
    Source: Wu & He 2018.
    """

    name: ClassVar[TreatmentName] = "groupnorm"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "groups": Number(low=1, high=100_000, whole=True),
        "at": PLACES,
    }

    def operate(self, operation: Operation) -> None:
        """Insert the norms."""
        asked = operation.settings.optional("groups")

        def build(layer: Layer) -> nn.Module:
            groups = groups_for(features_of(layer.module)) if asked is None else int(asked)
            return _norm(layer, groups)

        def in_place_of(site: NormSite) -> nn.Module:
            features = int(site.features or 0)
            groups = groups_for(features) if asked is None else int(asked)
            _refuse(groups, features, site.path)
            return FeatureGroupNorm(groups, features) if site.last else nn.GroupNorm(groups, features)

        place_norms(operation, build, in_place_of, at_every_call=True)


def groups_for(features: int) -> int:
    """The largest number of groups that divides the features, <= 32, with >= 4 features in each; else 1."""
    fitting = (g for g in range(MOST_GROUPS, 0, -1) if features % g == 0 and features // g >= LEAST_FEATURES)
    return next(fitting, 1)


def _refuse(groups: int, features: int, path: str) -> None:
    if features % groups:
        raise SurgeryError(
            f"{groups} groups do not divide the {features} features of {path}",
            "choose a number that divides them all, or leave groups out",
        )


def _norm(layer: Layer, groups: int) -> nn.Module:
    features = features_of(layer.module)
    _refuse(groups, features, layer.path)
    if not isinstance(layer.module, nn.Linear):
        return nn.GroupNorm(groups, features)
    if features == groups:
        raise SurgeryError(
            f"groups of a single feature would make every output of {layer.path} zero",
            "choose fewer groups, or set the target to wider layers",
        )
    return FeatureGroupNorm(groups, features)
