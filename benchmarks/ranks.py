"""What many ranks cost: bytes of their records, measured with real processes, and the time to merge them.

- records: 2 and 4 processes (gloo, CPU) train under watch with the defaults; the growth of their files between two
  lengths, per step and rank.
- many: what records may grow to, from these figures, the schedule and the store's limits. Computed.
- merging: merge_ranks on made-up records of 64, 256 and 1,024 ranks, and what follows for 4,096. And reading one.

    python benchmarks/ranks.py [--quick] [--write docs/distributed.md]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import re
import statistics
import tempfile
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

import unvanish
from unvanish.probe.schedule import COPIES_IN_FULL, COPY_PACE, FIRST_PAUSE, TRACING_RANKS
from unvanish.schema.graph import Graph, Operation, OperationStats, Trace
from unvanish.schema.run import PARAMETER_STATISTICS, ModelInfo, ModelRun, ParameterInfo, Run, RunInfo, Shard
from unvanish.store import merge_ranks, read_run
from unvanish.store.ladder import Limits

MARKS = ("<!-- figures: begin (written by benchmarks/ranks.py) -->", "<!-- figures: end -->")
MOST = 4096
WIDTH, LAYERS = 128, 8
STATISTIC_BYTES = 4 * len(PARAMETER_STATISTICS)  # of one parameter at one measured step
OPERATIONS, OPERATION_BYTES = 3, 200  # per parameter tensor and of each in a trace, about
STEP_BYTES = 41 + 49 / 8  # step, time, loss, clip, rate, and whether there was a loss; about


# --- records -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """What one rank's run came to."""

    folder: Path
    size: int  # bytes
    measured: int  # steps at which the parameters were looked at
    traces: int


def train(rank: int, kind: str, ranks: int, steps: int, out: Path) -> None:
    """One rank's training, in a process of its own."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=(out / "meet").as_uri(), rank=rank, world_size=ranks)
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Tanh()]
    net: nn.Module = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    if kind == "DDP":
        net = DistributedDataParallel(net)
    else:
        fully_shard(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with unvanish.watch(net, optimizer, out=out / str(rank)):
        for _ in range(steps):
            x, y = torch.randn(16, WIDTH), torch.randint(10, (16,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    distributed.destroy_process_group()


def train_all(rank: int, plan: Sequence[tuple[str, int, int]], base: Path) -> None:
    """All trainings that this rank takes part in, one after the other."""
    for kind, ranks, steps in plan:
        if rank < ranks:
            train(rank, kind, ranks, steps, base / f"{kind}-{ranks}-{steps}")


def recorded(folder: Path, ranks: int) -> list[Recorded]:
    """All ranks' runs of one training."""
    found = []
    for rank in range(ranks):
        (one,) = (folder / str(rank)).iterdir()
        (model,) = read_run(one).models
        size = (one / "run.sqlite").stat().st_size
        found.append(Recorded(one, size, len(model.parameter_steps), len(model.traces)))
    return found


def records(lengths: tuple[int, int], base: Path) -> tuple[list[str], float]:
    """The table of measured records, and the seconds that reading one took."""
    head = (
        "training",
        "ranks",
        "parameters",
        "bytes a step and rank",
        "of them statistics",
        "steps measured",
        "traces",
        f"a file after {lengths[1]} steps, kB",
    )
    lines = [row(head), row(["---"] * len(head))]
    plan = [(kind, ranks, steps) for kind in ("DDP", "FSDP2") for ranks in (2, 4) for steps in lengths]
    for kind, ranks, steps in plan:
        (base / f"{kind}-{ranks}-{steps}").mkdir()
    start_processes(train_all, (plan, base), nprocs=4, start_method="spawn")
    reading = math.nan
    for kind, ranks, steps in plan[1::2]:
        short, long = (recorded(base / f"{kind}-{ranks}-{n}", ranks) for n in lengths)
        new = lengths[1] - lengths[0]
        growth = statistics.mean(b.size - a.size for a, b in zip(short, long, strict=True)) / new
        looked = statistics.mean(b.measured - a.measured for a, b in zip(short, long, strict=True)) / new
        began = time.perf_counter()
        merged = merge_ranks([read_run(one.folder) for one in long])
        reading = (time.perf_counter() - began) / ranks
        parameters = len(merged.models[0].info.parameters)
        whole = statistics.mean(b.size for b in long) / 1e3
        cells = (
            f"{growth:.0f}",
            f"{STATISTIC_BYTES * parameters * looked:.0f}",
            f"{looked:.0%}",
            long[0].traces,
            f"{whole:.0f}",
        )
        lines.append(row((kind, ranks, parameters, *cells)))
        assert steps == lengths[1]
    return lines, reading


def row(cells: Sequence[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


# --- many ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How many ranks, and how many of them hold copies of one piece."""

    name: str
    ranks: int
    copies: int


def grown(limits: Limits, parameters: int, steps: int, measured: int, traces: int) -> float:
    """Bytes of one record, about: rows whole up to `recent_bytes`, then a rung for each doubling."""
    out = 0.0
    for size in (STEP_BYTES * steps, STATISTIC_BYTES * parameters * measured):
        over = size / limits.recent_bytes
        out += min(size, limits.recent_bytes) + (
            math.ceil(math.log2(over)) * limits.level_bytes if over > 1 else 0
        )
    return out + min(traces * parameters * OPERATIONS * OPERATION_BYTES, limits.trace_bytes)


def many(parameters: int, steps: int) -> list[str]:
    """What all ranks' records take together."""
    head = (
        f"{MOST:,} ranks, {parameters:,} tensors, {steps:,} steps",
        "in full",
        "now and then",
        "tracing",
        "a full record, MB",
        "another, MB",
        "all, GB",
        "all as one rank alone, GB",
    )
    lines = [row(head), row(["---"] * len(head))]
    limits = Limits().among(MOST)
    layouts = [
        Layout("DDP", MOST, MOST),
        Layout("HSDP, 8 pieces", MOST, MOST // 8),
        Layout("HSDP, 64 pieces", MOST, MOST // 64),
        Layout("FSDP, all pieces", MOST, 1),
    ]
    late = max(0, steps - FIRST_PAUSE)
    traces = 60
    for layout in layouts:
        full = min(layout.copies, COPIES_IN_FULL) * layout.ranks // layout.copies
        one = grown(limits, parameters, steps, steps, traces)
        other = grown(limits, parameters, steps, min(steps, FIRST_PAUSE) + late // COPY_PACE, 1)
        alone = grown(Limits(), parameters, steps, steps, traces)
        total = full * one + (layout.ranks - full) * other
        sizes = (
            f"{one / 1e6:.0f}",
            f"{other / 1e6:.1f}",
            f"{total / 1e9:.0f}",
            f"{layout.ranks * alone / 1e9:.0f}",
        )
        lines.append(row((layout.name, f"{full:,}", f"{layout.ranks - full:,}", TRACING_RANKS, *sizes)))
    return lines


# --- merging -------------------------------------------------------------------------------------------------


def made_up(rank: int, ranks: int, copies: int, graph: Graph, shared: Sequence[Trace]) -> Run:
    """A small record: 40 parameters, 1,000 steps, 500 of them measured, traces where the rank is one that traces."""
    replica, part = divmod(rank, ranks // copies)
    generator = np.random.default_rng(part)
    parameters, rows = 40, 500 if replica < COPIES_IN_FULL else 500 // COPY_PACE
    steps = array("q", range(1000))
    measured = steps[: rows * 2 : 2] if replica < COPIES_IN_FULL else steps[::128][:rows]
    table = generator.random((len(PARAMETER_STATISTICS), rows * parameters))
    shard = Shard(
        part=part,
        parts=ranks // copies,
        replica=replica,
        replicas=copies,
        numel=1000,
        samples=True,
        ranks=f"0-{ranks - 1}",
    )
    infos = tuple(
        ParameterInfo(
            index=i,
            name=f"layers.{i}.weight",
            shape=(1000 * ranks // copies,),
            dtype="float32",
            requires_grad=True,
            optimizer=0,
            sampled=256,
            shard=shard,
        )
        for i in range(parameters)
    )
    info = ModelInfo(index=0, name="net", class_name="Net", parameters=infos, optimizers=())
    model = ModelRun(
        info=info,
        steps=steps,
        seconds=array("d", steps),
        losses=array("d", generator.random(1000)),
        parameter_steps=measured,
        parameter_stats={n: array("d", t) for n, t in zip(PARAMETER_STATISTICS, table, strict=True)},
        snapshots=(),
        graphs={graph.key: graph},
        traces=tuple(shared) if rank < TRACING_RANKS else tuple(shared[:1]),
    )
    about = RunInfo(
        id=str(rank),
        created="",
        command=(),
        script=None,
        seed=None,
        versions={},
        device="",
        pid=rank,
        rank=rank,
        ranks=ranks,
    )
    return Run(info=about, path="", status="finished", ended=None, message=None, models=(model,))


def backward(operations: int, passes: int) -> tuple[Graph, list[Trace]]:
    """A graph and traces of it."""
    graph = Graph(
        key="k",
        operations=tuple(
            Operation(
                index=i,
                name="Addmm",
                kind="weight",
                module="net",
                module_class="Net",
                call=i,
                parents=(i - 1,) if i else (),
                parameters=(f"layers.{i}.weight",) if i < 40 else (),
            )
            for i in range(operations)
        ),
    )
    stats = tuple(
        OperationStats(
            operation=i,
            count=4096,
            norm=1.0 + i,
            absmax=1.0,
            zeros=3,
            nonfinite=0,
            edge_norms=(1.0,) if i else (),
            parameter_norms=(1.0,) if i < 40 else (),
            output_count=4096,
            output_std=1.0,
            output_rms=1.0,
            output_mean=0.1,
            units=64,
            closed_units=1,
            unit_bits="ff" * 16,
            total=1.0,
            exponents=(64,) * 64,
        )
        for i in range(operations)
    )
    steps = [round(1.4**k) for k in range(3, 3 + passes)]
    return graph, [
        Trace(model=0, step=s, backward=0, graph="k", loss=1.0, stats=stats, output=operations - 1)
        for s in dict.fromkeys(steps)
    ]


def merging(sizes: Sequence[int]) -> list[str]:
    """Seconds of merge_ranks, and the line through them."""
    lines = [
        f"| seconds to merge | {' | '.join(f'{n:,} ranks' for n in sizes)} | {MOST:,} ranks, extrapolated |",
        "|---|" + "---|" * (len(sizes) + 1),
    ]
    graph, traces = backward(120, 12)
    for name, copies in (("DDP", lambda n: n), ("HSDP, 8 pieces", lambda n: n // 8), ("FSDP", lambda _: 1)):
        taken = []
        for ranks in sizes:
            runs = [made_up(r, ranks, copies(ranks), graph, traces) for r in range(ranks)]
            began = time.perf_counter()
            merge_ranks(runs)
            taken.append(time.perf_counter() - began)
        slope, base = np.polyfit(sizes, taken, 1)
        lines.append(f"| {name} | {' | '.join(f'{t:.2f}' for t in taken)} | {base + slope * MOST:.1f} |")
    return lines


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter trainings, fewer ranks")
    parser.add_argument("--write", type=Path, help="put the tables between the marks of this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        measured, reading = records((100, 200) if arguments.quick else (300, 900), Path(base))
    where = (
        f"Measured {datetime.now(timezone.utc):%Y-%m-%d} on {os.cpu_count()} cores that other work shared, torch "
        f"{torch.__version__}, Python {platform.python_version()}."
    )
    tables = [
        [where],
        measured,
        many(1_000, 100_000),
        merging((16, 64) if arguments.quick else (64, 256, 1024)),
        [
            f"Reading the records of the last training above and merging them took {1000 * reading:.0f} ms a rank."
        ],
    ]
    text = "\n\n".join("\n".join(lines) for lines in tables)
    print(text)
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        between = re.compile(re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1]), re.DOTALL)
        assert between.search(page), f"{arguments.write} has no marks"
        arguments.write.write_text(
            between.sub(lambda _: f"{MARKS[0]}\n\n{text}\n\n{MARKS[1]}", page), encoding="utf-8"
        )


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
