"""Which of how many processes this one is, as torch.distributed knows it. Nothing here talks to another process."""

from __future__ import annotations

import torch


def rank_of_process() -> tuple[int, int] | None:
    """(rank, number of ranks); None: it trains alone."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() < 2:
        return None
    return distributed.get_rank(), distributed.get_world_size()
