"""Placing a new module straight behind a layer, in front of its activation, in every style of model."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.treatment.anatomy import Layer
from unvanish.treatment.blocks import Joined
from unvanish.treatment.kinds import is_sequential
from unvanish.treatment.surgery import Surgery
from unvanish.treatment.treatment import Operation


def norm_everywhere(
    operation: Operation, build: Callable[[Layer], nn.Module], *, at_every_call: bool = False
) -> None:
    """Put a normalisation between every layer and its activation, where none is yet.

    `at_every_call`: the norm keeps no statistics, so that a layer may be called several times (recurrent steps).

    Raises:
        SurgeryError: nothing to place it at, or a layer that is called more than once in a forward pass.
    """
    sites = [x for x in operation.layers() if x.activation_name != "identity" and not x.last and not x.normed]
    if not sites:
        raise SurgeryError(
            "no layer has an activation straight behind it and no norm in between",
            "there is nothing to normalise here; look at the other treatments",
        )
    for site in sites:
        if site.recurs and not at_every_call:
            raise SurgeryError(
                f"{site.path} is called {site.calls} times per forward pass, with other statistics each time",
                "normalise by hand, with one norm per call (recurrent steps want layer norm)",
            )
        insert_behind(operation.surgery, site, build(site))


def insert_behind(surgery: Surgery, layer: Layer, new: nn.Module) -> None:
    """Insert in the layer's nn.Sequential where it has one; else wrap.

    Old checkpoint keys stay the same in the first two ways; the third one renames the layer's own.
    """
    places = surgery.aliases(layer.module)
    if len(places) == 1 and is_sequential(places[0][0]) and len(surgery.aliases(places[0][0])) <= 1:
        surgery.insert_after(places[0][0], layer.module, f"{places[0][1]}_norm", new)
    elif (
        layer.activation is not None
        and layer.activation_alone
        and len(surgery.aliases(layer.activation)) == 1
    ):
        surgery.precede(layer.activation, new, anchor=layer.module)
    else:
        surgery.wrap(layer.module, Joined(layer.module, new), new)
