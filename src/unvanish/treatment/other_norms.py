"""Norms in the place of norms: over other axes than the ones that a model has, where those lose its signal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from unvanish.errors import SurgeryError
from unvanish.treatment.anatomy import Layer, within
from unvanish.treatment.kinds import NORMS, RECURRENT, WEIGHTED
from unvanish.treatment.parameters import Choice
from unvanish.treatment.placement import norm_everywhere
from unvanish.treatment.treatment import Operation

PLACES = Choice(options=("layers", "norms"), default="layers")
FEW = (1, 2)  # values: normalised they are 0, or +1 and -1, whatever they were
LOST = 0.1  # a gain that lets less through is as good as none
_LAST = (nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSite:
    """A norm that stands in the model. `features` None: not known (a class of the script's own)."""

    module: nn.Module
    path: str
    features: int | None
    last: bool  # whether the features are on the last axis; else on the second one

    @property
    def kind(self) -> str:
        """The end of its class's name where that says how many axes its inputs have: "1d", "2d", "3d"; else ""."""
        end = type(self.module).__name__[-2:]
        return end if end in ("1d", "2d", "3d") else ""


class PlainNorm(nn.Module):
    """A layer norm without gain and bias, of any width: in the place of a norm that a script has written itself.

    Over the last axis; over all axes but the first one of [n, c, h, w] and larger.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's own name of it
        """Normalise each row by itself."""
        first = -1 if input.dim() < 4 else 1
        return functional.layer_norm(input, input.shape[first:])


def place_norms(
    operation: Operation,
    behind: Callable[[Layer], nn.Module],
    instead: Callable[[NormSite], nn.Module],
    *,
    at_every_call: bool = False,
) -> None:
    """Where the prescription wants norms (`at`): behind each layer, or in the place of those that are there.

    Raises:
        SurgeryError: as norm_everywhere (which says what `at_every_call` is) and other_norms do.
    """
    if operation.settings.word("at") == "norms":
        other_norms(operation, instead)
    else:
        norm_everywhere(operation, behind, at_every_call=at_every_call)


def other_norms(operation: Operation, build: Callable[[NormSite], nn.Module]) -> None:
    """Replace every norm of the target by another one.

    Where there are some over one or two values, which leaves those nothing but a sign, only they are.

    Raises:
        SurgeryError: it has none, or they are of that kind already.
    """
    sites = [site for site in norm_sites(operation.root) if within(site.path, operation.target)]
    sites = [site for site in sites if site.last and site.features in FEW] or sites
    pairs = [(site, PlainNorm() if site.features is None else build(site)) for site in sites]
    changed = [(site, new) for site, new in pairs if not _same(site.module, new)]
    if not changed:
        there = "the norms of the model are of that kind already" if sites else "the model holds no norm"
        raise SurgeryError(there, "choose another treatment")
    for site, new in changed:
        operation.surgery.replace(site.module, new)


def _same(old: nn.Module, new: nn.Module) -> bool:
    """Whether it is of that kind, and its gain is one that has not been taken away."""
    gain = getattr(old, "weight", None)
    lost = isinstance(gain, torch.Tensor) and bool((gain.detach().abs() < LOST).all())
    return repr(new) == repr(old) and not lost


def norm_sites(root: nn.Module) -> list[NormSite]:
    """The norms of a model: torch's own, and what a script calls so."""
    found = []
    for path, module in root.named_modules():
        if isinstance(module, _LAST):
            shape = tuple(module.normalized_shape)
            found.append(
                NormSite(module=module, path=path, features=shape[0] if len(shape) == 1 else None, last=True)
            )
        elif isinstance(module, NORMS):
            count = (
                module.num_channels if isinstance(module, nn.GroupNorm) else cast(int, module.num_features)
            )
            found.append(NormSite(module=module, path=path, features=count, last=False))
        elif path and _is_own_norm(module):
            found.append(NormSite(module=module, path=path, features=None, last=True))
    return found


def _is_own_norm(module: nn.Module) -> bool:
    """By its name, since nothing else tells; what holds layers is a block, and what has matrices is a layer."""
    parts = [m for m in module.modules() if m is not module]
    named = "norm" in type(module).__name__.lower() and type(module).__module__.partition(".")[0] != "torch"
    plain = all(p.dim() <= 1 or p.numel() == max(p.shape) for p in module.parameters())
    return named and plain and not any(isinstance(m, (*WEIGHTED, *RECURRENT, *NORMS, *_LAST)) for m in parts)
