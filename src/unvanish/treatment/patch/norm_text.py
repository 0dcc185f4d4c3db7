"""The call that builds a norm, and the class that it needs where torch has none."""

from __future__ import annotations

from collections.abc import Sequence

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Norm
from unvanish.treatment.patch.spots import Spot
from unvanish.treatment.patch.text import PatchError

_SAYS = {
    "BatchNorm1d": "Batch norm over the last axis: all axes in front of it count as the batch.",
    "GroupNorm": "Group norm over the last axis, each row by itself.",
}


def norm_text(draft: Draft, spot: Spot, norms: Sequence[Norm], width: str | None) -> str:
    """The call, as it stands at `spot`; `width` None takes the number of features itself.

    Raises:
        PatchError: the norms of one place differ.
    """
    kinds = {(norm.kind, norm.before, _is_last(draft, norm)) for norm in norms}
    widths = {norm.features for norm in norms}
    if len(kinds) > 1 or (width is None and len(widths) > 1):
        raise PatchError(f"the layers of one place ({norms[0].layer} and others) need different norms")
    kind, before, last = kinds.pop()
    name = draft.spelling(spot.tree).write(f"torch.nn.{kind}")
    if last:
        name = draft.define(spot.tree, spot.node, f"Feature{kind.removesuffix('1d')}", _class(name, kind))
    return f"{name}({before}{width if width is not None else norms[0].features})"


def _is_last(draft: Draft, norm: Norm) -> bool:
    """Whether the features are on the last of more than two axes, where torch takes the second for them."""
    linear = draft.facts.parts[norm.layer].base == "torch.nn.Linear"
    return linear and norm.kind in _SAYS and norm.axes > 2


def _class(base: str, kind: str) -> list[str]:
    return [
        f"class {{name}}({base}):",
        f'    """{_SAYS[kind]}"""',
        "",
        "    def forward(self, x):",
        "        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)",
    ]
