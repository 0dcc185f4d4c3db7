"""A Ray cluster: connected to, or started, and how much room it has."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import ray

from unvanish.errors import UsageError
from unvanish.verify.engines.ray import CORRECT, ClusterJob

_STARTS = 3  # on a busy machine Ray's own processes lose patience with each other (ray-project/ray#65983)
_STORE_BYTES = 80 * 2**20  # next to nothing is kept in it; Ray takes a third of the memory by itself
_GPU_SHARES = 10_000  # Ray knows as many


def connect(job: ClusterJob) -> None:
    """Let this process speak to the cluster at the job's address; "local" starts one.

    Raises:
        UsageError: there is none, or none can be started.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if job.address == "local":
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        quiet |= {
            "num_cpus": job.threads * job.workers if job.workers else max(cores, job.threads),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    text = ""
    for _ in range(_STARTS if job.address == "local" else 1):
        try:
            ray.init(address=job.address, **quiet)
        except Exception as error:  # noqa: BLE001  # of all kinds, depending on what Ray tried
            text = " ".join(str(error).split())[:200]
            ray.shutdown()
        else:
            return
    if job.address == "local":
        raise UsageError(
            f"no Ray cluster can be started here: {text}", "use the local engine, which needs none"
        )
    raise UsageError(f"there is no Ray cluster at {job.address}: {text}", CORRECT)


def room(threads: int) -> tuple[list[int], float]:
    """How many trials each machine has room for, and each trial's share of a GPU.

    Where some machines have GPUs, trials run on these alone: Ray hides GPUs from those who ask for none, and the same
    script on a CPU gives other numbers.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    if gpus:
        nodes = [node for node in nodes if node.get("GPU")]
    rooms = [int(node.get("CPU", 0.0) // threads) for node in nodes]
    share = min(1.0, gpus / sum(rooms)) if sum(rooms) else 0.0
    return [room for room in rooms if room], int(share * _GPU_SHARES) / _GPU_SHARES
