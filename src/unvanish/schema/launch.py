"""How a process was started: what a launcher (torchrun, srun ...) told it, and the name that its run gets."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a launcher told this process."""

    rank: int
    ranks: int
    key: str  # the same in all ranks of one launch (and in those of a later one, if it is told the same)
    attempt: int = 0  # how often an elastic launcher has started all ranks anew
    one_node: bool = False  # it is known that all ranks are on this machine


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """Read torchrun's, the env:// and SLURM's variables. None: this process is not one of several ranks."""
    step = "SLURM_STEP_ID" in environment  # a batch script has SLURM's numbers too, but is one process
    names = [("RANK", "WORLD_SIZE"), *([("SLURM_PROCID", "SLURM_NTASKS")] if step else [])]
    found = next((pair for pair in names if all(name in environment for name in pair)), None)
    if found is None:
        return None
    rank, ranks = (_number(environment, name) for name in found)
    if rank is None or ranks is None or not 0 <= rank < ranks or ranks == 1:
        return None
    attempt = attempt_of(environment)
    parts = [
        environment.get(name, "")
        for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")
    ]
    if not any(parts):
        parts = [platform.node(), str(os.getppid())]
    digest = hashlib.sha256("\0".join([*parts, str(ranks), str(attempt)]).encode()).hexdigest()[:16]
    local = _number(environment, "LOCAL_WORLD_SIZE") or _number(environment, "SLURM_NTASKS_PER_NODE")
    return Launch(rank=rank, ranks=ranks, key=digest, attempt=attempt, one_node=local == ranks)


def attempt_of(environment: Mapping[str, str]) -> int:
    """How often an elastic launcher has started the ranks anew."""
    return _number(environment, "TORCHELASTIC_RESTART_COUNT") or 0


def _number(environment: Mapping[str, str], name: str) -> int | None:
    try:
        return int(environment[name])
    except (KeyError, ValueError):
        return None


def new_run_id(script: str | None, now: datetime | None = None) -> str:
    """A name for a run's folder: when, what, and four characters that make it this one's."""
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(script or "run").stem)[:40]
    return f"{now or datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{stem}-{secrets.token_hex(2)}"
