"""Which of how many processes this one is, and which parameters it trains together with others as copies.

All of it is known to this process: nothing here talks to another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from unvanish.probe.discover import living_modules
from unvanish.schema.ranks import ranks_text
from unvanish.schema.run import PlaceEvent, Shard


def own_place() -> PlaceEvent | None:
    """This process's rank, as torch.distributed knows it, else as a launcher has said; None: it is alone.

    To be asked where the process makes its first step: a launcher's helpers have its variables too.
    """
    if _distributed():
        return PlaceEvent(rank=torch.distributed.get_rank(), ranks=torch.distributed.get_world_size())
    try:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return None
    return PlaceEvent(rank=rank, ranks=ranks) if 0 <= rank < ranks else None


def data_parallel_copies(parameters: Mapping[int, Tensor]) -> dict[int, Shard]:
    """Of these parameters (by id), those that DistributedDataParallel keeps as copies on several processes."""
    found: dict[int, Shard] = {}
    if not _distributed():
        return found
    for wrapper in living_modules():
        if not isinstance(wrapper, DistributedDataParallel):
            continue
        alone = wrapper.parameters_to_ignore
        ours = {
            id(p): p
            for name, p in wrapper.module.named_parameters()
            if id(p) in parameters and name not in alone
        }
        if ours:  # what others hold may be left over from a group that is no more
            found |= _copies(ours, wrapper.process_group)
    return found


def _copies(parameters: Mapping[int, Tensor], group: Any) -> dict[int, Shard]:
    """One piece, held by all processes of the group."""
    ranks = ranks_text(torch.distributed.get_process_group_ranks(group))
    replica, replicas = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    return {
        key: Shard(
            part=0,
            parts=1,
            replica=replica,
            replicas=replicas,
            numel=p.numel(),
            samples=True,
            ranks=ranks,
        )
        for key, p in parameters.items()
    }


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
