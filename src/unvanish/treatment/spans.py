"""Whole blocks of equal shape (a layer with its activation) that can be wrapped or dropped as one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from unvanish.treatment.anatomy import Layer
from unvanish.treatment.kinds import is_sequential
from unvanish.treatment.surgery import Surgery


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A run of neighbours in a container that is one layer, what lies between, and its activation."""

    layer: Layer
    container: nn.Sequential | nn.ModuleList
    members: tuple[nn.Module, ...]


def span_of(surgery: Surgery, layer: Layer) -> tuple[Span | None, str]:
    """The layer's block as one piece, or None and why there is none.

    A piece is a run of neighbours in one nn.Sequential, or one custom module that holds layer and
    activation and stands in an nn.Sequential or nn.ModuleList.
    """
    unfit = why_no_block(layer)
    if unfit:
        return None, unfit
    if layer.region is not None:
        block = surgery.root.get_submodule(layer.region)
        places = surgery.aliases(block)
        if len(places) == 1 and isinstance(places[0][0], (nn.Sequential, nn.ModuleList)):
            return Span(layer=layer, container=places[0][0], members=(block,)), ""
        return None, f"{layer.region} is not in an nn.Sequential or nn.ModuleList"
    places = surgery.aliases(layer.module)
    if len(places) != 1 or not is_sequential(places[0][0]) or len(surgery.aliases(places[0][0])) > 1:
        return None, f"the wiring around {layer.path} is written in forward, not in an nn.Sequential"
    container = places[0][0]
    members = _run(list(container.children()), layer)
    if not members:
        return None, f"{layer.path} and its activation do not stand side by side in one nn.Sequential"
    return Span(layer=layer, container=container, members=members), ""


def bare_span_of(surgery: Surgery, layer: Layer) -> Span | None:
    """A layer that stands alone in an nn.ModuleList, where dropping it also drops a round of the loop over it."""
    places = surgery.aliases(layer.module)
    if why_no_block(layer) or not layer.functional or len(places) != 1:
        return None
    container = places[0][0]
    return (
        Span(layer=layer, container=container, members=(layer.module,))
        if isinstance(container, nn.ModuleList)
        else None
    )


def why_no_block(layer: Layer) -> str:
    """Why a layer with its activation is no block of equal shape ("" = it is one)."""
    if layer.recurs:
        return f"layer {layer.path!r} is called {layer.calls} times in one forward pass"
    if not keeps_shape(layer.module):
        return f"layer {layer.path!r} changes the shape"
    if layer.last or layer.activation_name == "identity":
        return f"layer {layer.path!r} has no activation behind it"
    return ""


def keeps_shape(module: nn.Module) -> bool:
    """Whether the layer gives back the shape that it got, for every input size."""
    if isinstance(module, nn.Linear):
        return module.in_features == module.out_features
    return keeps_room(module) and module.in_channels == module.out_channels


def keeps_room(module: nn.Module) -> bool:
    """Whether a convolution gives back the length, height and width that it got, whatever its channels are."""
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or any(s != 1 for s in module.stride):
        return False
    if isinstance(module.padding, str):
        return module.padding == "same"
    sizes = zip(module.kernel_size, module.dilation, module.padding, strict=True)
    return all(d * (k - 1) == 2 * p for k, d, p in sizes)


def _run(children: Sequence[nn.Module], layer: Layer) -> tuple[nn.Module, ...]:
    start = next(i for i, c in enumerate(children) if c is layer.module)
    for end in range(start + 1, len(children)):
        if children[end] is layer.activation or (
            is_sequential(children[end]) and _ends(children[end], layer)
        ):
            return tuple(children[start : end + 1])
        if any(c is not layer.module and hasattr(c, "out_features") for c in children[end].modules()):
            break
    return ()


def _ends(module: nn.Module, layer: Layer) -> bool:
    """A norm-and-activation pair that a batch norm treatment left behind."""
    children = list(module.children())
    return bool(children) and children[-1] is layer.activation
