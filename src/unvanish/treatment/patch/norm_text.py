"""The call that builds a norm, and the class that it needs where torch has none."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Norm, Site
from unvanish.treatment.patch.spots import Spot
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree

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


def call_sites(draft: Draft, norms: Sequence[Norm]) -> list[Site]:
    """Where the layers are called in forward, each place once.

    Raises:
        PatchError: library code calls them, or the pass was not seen.
    """
    sites: list[Site] = []
    for norm in norms:
        called = draft.facts.calls_of(norm.layer)
        if not called or any(site is None for site in called):
            raise PatchError(f"where forward calls {norm.layer} is not in the sources")
        sites += [site for site in called if site is not None and site not in sites]
    return sites


def not_seen(tree: Tree, node: cst.CSTNode) -> PatchError:
    """For a place that runs the layers without having been seen to run."""
    place = tree.place(node)
    return PatchError(f"{place} runs the layers, too, and was not seen to run", place=place)


def width_of(draft: Draft, layer: str, norms: Sequence[Norm]) -> str | None:
    """How many features a layer gives out, asked of the layer itself."""
    linear = draft.facts.parts[norms[0].layer].base == "torch.nn.Linear"
    return f"{layer}.{'out_features' if linear else 'out_channels'}"
