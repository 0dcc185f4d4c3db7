"""Scripts that train in several processes, and how the tests start them."""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from pathlib import Path

from unvanish.schema.run import PARAMETER_STATISTICS, ModelInfo, ModelRun, Run
from unvanish.session import load

TRAIN = """
import os, sys, time
def train(steps=25, width=4, pause=0.0):
    import torch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(width, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.2)
    for _ in range(steps):
        x = torch.randn(32, width)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()
        time.sleep(pause)
"""

DDP = """
import sys, torch, torch.distributed as dist
from torch import nn
def ddp(steps=25, **how):
    dist.init_process_group("gloo", **how)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    model = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    torch.manual_seed(dist.get_rank())
    for _ in range(steps):
        x = torch.randn(32, 4)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()
    dist.destroy_process_group()
"""

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(folder: Path, *words: str, timeout: float = 120, **extra: str) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in the folder, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), **extra}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        environment.pop(name, None) if name not in extra else None
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def watched(folder: Path, source: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """The same script under `unvanish run`, in the folder."""
    (folder / "s.py").write_text(source, encoding="utf-8")
    return start(folder, "-m", "unvanish", "run", *words, "s.py", **extra)


def the_run(folder: Path, out: str = "unvanish_runs") -> Run:
    """The only run that was kept; nothing else lies beside it."""
    (path,) = (folder / out).iterdir()
    return load(path)


def children(folder: Path, out: str = "unvanish_runs") -> list[str]:
    """The folders of its other processes."""
    return sorted(p.name for p in (folder / out).glob("*/children/*"))


def model_run(index: int, name: str) -> ModelRun:
    """A model of which nothing was recorded but its name and ten steps."""
    columns = {name: array("d") for name in PARAMETER_STATISTICS}
    return ModelRun(
        info=ModelInfo(index=index, name=name, class_name="Net", parameters=(), optimizers=()),
        steps=array("q", range(10)),
        seconds=array("d", range(10)),
        losses=array("d", [1.0] * 10),
        parameter_steps=array("q"),
        parameter_stats=columns,
        snapshots=(),
        graphs={},
        traces=(),
    )
