"""What watching costs: step time with and without, interleaved, and peak memory in processes of their own.

For each net, blocks of steps without and with `unvanish.watch` at its defaults follow each other (A B, B A,
A B ...) in one process, always on the same model. Reported are medians over the pairs of blocks, with the
10-90 % interval of a bootstrap:

- light step: only the loss is kept. This is what nearly all steps cost in a long run.
- measured step: all parameters, gradients and updates are looked at too.
- traced step: every operation of the backward pass as well. Which steps are which is read off the record.
- over 1,000 steps: the three put together, by the shares that the default schedules give them among the first 1,000.
  Computed, as a net of 300 ms a step is not run for so long; blocks are shorter, and hold mostly early steps.

    python benchmarks/overhead.py [--quick] [--write docs/performance.md] [--only mlp,resnet] [--threads 1,2]
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from workloads import Workload, mlp, resnet, transformer

import unvanish
from unvanish.probe.schedule import SNAPSHOT_DENSE, SNAPSHOT_RATIO, TRACE_RATIO, Schedule, measure_every

PAIRS = 9  # of blocks, unless told otherwise
HORIZON = 1000  # steps that the third column speaks of


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One net: how it is built, and how many steps make a block."""

    title: str
    build: Callable[[], Workload]
    steps: int
    quick_steps: int


CASES = {
    "mlp": Case(title="MLP 20 x 256, batch 128", build=mlp, steps=300, quick_steps=120),
    "resnet": Case(
        title="ResNet-18 at a quarter of its width, 32 x 32, batch 64",
        build=lambda: resnet(width=16),
        steps=64,
        quick_steps=48,
    ),
    "transformer": Case(
        title="transformer 6 x 256, T = 128, batch 8", build=transformer, steps=60, quick_steps=48
    ),
}
# for memory alone: a model that is large beside the allocator's noise
WIDE = Case(title="MLP 12 x 2048, batch 8", build=lambda: mlp(12, 2048, 8), steps=12, quick_steps=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A median over pairs of blocks with its 10-90 % bootstrap interval; 1 = as without watching."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """1.012 [1.004, 1.021]."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What one net on so many threads came to."""

    title: str
    threads: int
    pairs: int
    step_ms: float
    light: Ratio
    measured: Ratio
    traced: Ratio
    horizon: Ratio


def timed(work: Workload, steps: int) -> list[float]:
    """Seconds of each of `steps` steps."""
    seconds = []
    before = time.perf_counter()
    for _ in range(steps):
        work.step()
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
    return seconds


def watched(work: Workload, steps: int, out: Path) -> dict[str, list[float]]:
    """The same while watched: seconds of light, measured and traced steps (see the module's text)."""
    with unvanish.watch(work.model, work.optimizer, out=out) as w:
        seconds = timed(work, steps)
        model = w.run().models[0]
    traced = {trace.step for trace in model.traces}
    measured = set(model.parameter_steps) - traced
    assert traced, "nothing was traced, so there is nothing to compare"
    return {
        "light": [s for i, s in enumerate(seconds) if i not in traced | measured],
        "measured": [s for i, s in enumerate(seconds) if i in measured],
        "traced": [s for i, s in enumerate(seconds) if i in traced],
    }


def shares(steps: int) -> dict[str, float]:
    """Which share of the first `steps` steps the default schedules make light, measured and traced."""
    traces, snapshots = Schedule(ratio=TRACE_RATIO), Schedule(ratio=SNAPSHOT_RATIO, dense=SNAPSHOT_DENSE)
    counts = {"light": 0, "measured": 0, "traced": 0}
    for step in range(steps):
        traced, shot = traces.due(step), snapshots.due(step)
        if traced:
            traces.done(step)
        if shot or traced:
            snapshots.done(step)
        kind = "traced" if traced else "measured" if shot or step % measure_every(step) == 0 else "light"
        counts[kind] += 1
    return {kind: count / steps for kind, count in counts.items()}


def ratio(values: Sequence[float]) -> Ratio:
    """The median of the values with its bootstrap interval."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(2000))
    return Ratio(value=statistics.median(values), low=medians[199], high=medians[1799])


def step_cost(case: Case, threads: int, pairs: int, *, quick: bool) -> StepCost:
    """Interleaved blocks of one net."""
    torch.set_num_threads(threads)
    work = case.build()
    steps = case.quick_steps if quick else case.steps
    share = shares(HORIZON)
    alone_ms: list[float] = []
    found: dict[str, list[float]] = {"light": [], "measured": [], "traced": [], "horizon": []}
    with tempfile.TemporaryDirectory() as folder:
        timed(work, max(3, steps // 10))  # warm: allocator, threads, caches
        watched(work, 3 + steps // 10, Path(folder))
        for pair in range(pairs):
            if pair % 2:
                seen = watched(work, steps, Path(folder))
                without = timed(work, steps)
            else:
                without = timed(work, steps)
                seen = watched(work, steps, Path(folder))
            base = statistics.fmean(without)
            alone_ms.append(1e3 * base)
            for kind, seconds in seen.items():
                found[kind].append(statistics.fmean(seconds) / base)
            found["horizon"].append(sum(share[kind] * found[kind][-1] for kind in share))
    return StepCost(
        title=case.title,
        threads=threads,
        pairs=pairs,
        step_ms=statistics.median(alone_ms),
        light=ratio(found["light"]),
        measured=ratio(found["measured"]),
        traced=ratio(found["traced"]),
        horizon=ratio(found["horizon"]),
    )


def peak_mib() -> float:
    """The largest resident size that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands getrusage's peak down from parent to child; this one starts anew
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource  # noqa: PLC0415 - not on Windows, where the memory half is left out

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def memory_child(name: str, *, watch: bool) -> None:
    """Runs in a process of its own: train a few steps and print the peak, all imports being the same."""
    torch.set_num_threads(1)
    tiny = mlp(2, 8, 4)
    with tempfile.TemporaryDirectory() as folder:
        watched(tiny, 3, Path(folder))  # what unvanish imports and allocates once is in both peaks
        case = WIDE if name == "wide" else CASES[name]
        work = case.build()
        if watch:
            watched(work, 12, Path(folder))
        else:
            timed(work, 12)
    print(peak_mib())


def memory_growth(name: str, repeats: int) -> tuple[float, float, float]:
    """MiB of the parameters, median peak without watching, median growth of the peak with it."""
    case = WIDE if name == "wide" else CASES[name]
    peaks: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for watch in (False, True):
            command = [sys.executable, __file__, "--memory-child", name, *(["--watch"] if watch else [])]
            peaks[watch].append(
                float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            )
    alone, with_watch = statistics.median(peaks[False]), statistics.median(peaks[True])
    return case.build().parameter_bytes / 2**20, alone, with_watch - alone


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns padded so that it also reads well in a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def page(costs: Sequence[StepCost], memory: Sequence[Sequence[str]], *, quick: bool) -> str:
    """docs/performance.md."""
    kinds = shares(HORIZON)
    head = [
        [
            "net",
            "threads",
            "step alone, ms",
            "light step",
            "measured step",
            "traced step",
            f"over {HORIZON:,} steps",
        ]
    ]
    rows = [
        [
            c.title,
            str(c.threads),
            f"{c.step_ms:.1f}",
            str(c.light),
            str(c.measured),
            str(c.traced),
            str(c.horizon),
        ]
        for c in costs
    ]
    given = "" if costs[0].pairs == PAIRS else f' ARGS="--pairs {costs[0].pairs}"'
    warning = " --quick: a first impression, not a figure to quote" if quick else ""
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()}, no GPU used)"
    versions = (
        f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}, "
        f"unvanish {unvanish.__version__} at its defaults"
    )
    reading = (
        f"Medians over {costs[0].pairs} pairs of interleaved blocks in one process, with the 10-90 % range "
        "of a bootstrap; 1.000 is a step without watching. At a light step the loss alone is kept, at a "
        "measured one all parameters, gradients and updates too, at a traced one every operation of the "
        f"backward pass as well. The default schedules make {kinds['light']:.0%} of the first {HORIZON:,} steps "
        f"light, {kinds['measured']:.0%} measured and {kinds['traced']:.1%} traced, fewer later; the last column "
        "puts the three together: it is computed from them. The ResNet has 16, 32, 64 and 128 "
        "channels instead of 64 to 512, so that the benchmark ends in minutes on two cores."
    )
    date = datetime.now(timezone.utc).date().isoformat()
    parts = [
        "# Performance",
        f"Measured on {date} by `make bench{given}`{warning}, on {machine}, {versions}.",
    ]
    parts += ["## Step time, watched over unwatched", table(head + rows), reading]
    if memory:
        head = [["net", "parameters, MiB", "peak alone, MiB", "growth, MiB", "growth / parameters"]]
        reading = (
            "Peak resident size of processes of their own, after the same imports, over 12 steps, most of "
            "them traced; medians of repeats. Beside a small model, fixed buffers are a large share."
        )
        parts += ["## Memory", table(head + [list(row) for row in memory]), reading]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter blocks: under a minute or two"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page")
    parser.add_argument("--only", default=",".join(CASES), help="nets, separated by commas")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas")
    parser.add_argument("--pairs", type=int, help="pairs of blocks (default 9, quick 3)")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory half out")
    parser.add_argument("--memory-child", help=argparse.SUPPRESS)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_child:
        memory_child(options.memory_child, watch=options.watch)
        return
    names = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"no net called {unknown[0]!r}; there are {', '.join(CASES)}")
    pairs = options.pairs or (3 if options.quick else PAIRS)
    costs = []
    for threads in (int(n) for n in options.threads.split(",")):
        for name in names:
            print(f"{CASES[name].title}, {threads} thread(s) ...", file=sys.stderr, flush=True)
            costs.append(step_cost(CASES[name], threads, pairs, quick=options.quick))
            print(
                f"  light {costs[-1].light}, over {HORIZON} {costs[-1].horizon}", file=sys.stderr, flush=True
            )
    memory = []
    if not options.no_memory and sys.platform != "win32":
        for name in [*names, "wide"]:
            title = WIDE.title if name == "wide" else CASES[name].title
            print(f"memory of {title} ...", file=sys.stderr, flush=True)
            size, alone, growth = memory_growth(name, 1 if options.quick else 3)
            memory.append([title, f"{size:.1f}", f"{alone:.0f}", f"{growth:.1f}", f"{growth / size:+.1%}"])
    text = page(costs, memory, quick=options.quick)
    print(text)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
