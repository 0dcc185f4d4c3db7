"""Blocks of one kind that stand behind one another: what one of them gives the next one takes."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from unvanish.treatment.anatomy import Anatomy, within
from unvanish.treatment.kinds import CONVOLUTIONS, WEIGHTED, is_sequential
from unvanish.treatment.spans import keeps_room
from unvanish.treatment.surgery import Surgery
from unvanish.treatment.wired import SUMS


def twin_blocks(surgery: Surgery, anatomy: Anatomy, target: str) -> list[nn.Module]:
    """Blocks of several layers in an nn.Sequential that have a neighbour of the same class and the same sizes.

    Of two such neighbours the second one takes what the first one gives, so that both keep the shape, whatever they
    do inside. Left out: what has a sum in it, most likely a skip of its own, and what is no block (a single layer).
    """
    if not anatomy.wired:
        return []
    paths = {id(module): path for path, module in surgery.root.named_modules()}
    summed = {
        s.site.owner
        for s in anatomy.flow.stages
        if s.site is not None and s.module is None and s.name in SUMS
    }
    found: dict[int, nn.Module] = {}
    for container in surgery.root.modules():
        if not is_sequential(container) or len(surgery.aliases(container)) > 1:
            continue
        for one, other in pairwise(container.children()):
            if _signature(one) != _signature(other) or one is other:
                continue
            for block in (one, other):
                path = paths[id(block)]
                alone = len(surgery.aliases(block)) == 1 and within(path, target)
                if alone and _is_block(block) and not any(within(owner, path) for owner in summed):
                    found[id(block)] = block
    return list(found.values())


def _signature(block: nn.Module) -> tuple[object, ...]:
    """Its class, and the classes and sizes of all that is in it."""
    parts = tuple((name, type(m), m.extra_repr()) for name, m in block.named_modules())
    return (*parts, *((name, tuple(p.shape)) for name, p in block.named_parameters()))


def _is_block(block: nn.Module) -> bool:
    layers = [m for m in block.modules() if isinstance(m, WEIGHTED)]
    spatial = [m for m in layers if isinstance(m, CONVOLUTIONS)]
    return len(layers) > 1 and all(keeps_room(m) for m in spatial)
