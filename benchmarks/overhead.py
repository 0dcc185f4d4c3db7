"""What watching costs: step time with and without, interleaved, beside other tools; and peak memory.

For each net, a session is watched by `unvanish.watch`, and after each second or so of it comes as much of the same
training unwatched, in the same process, on the same model, with all hooks and stand-ins taken away: what the machine
does meanwhile hits both. A watched step counts as its time over the mean time of the unwatched steps just before and
just after it. Reported are medians over sessions, with the 10-90 % interval of a bootstrap:

- defaults: the mean over the first 1,000 steps. A net of 300 ms a step is not run for so long in every session: it
  is put together from the first 16 steps, the later ones and the traced ones, by the shares that the default schedule
  of traces gives them. Which steps were traced is read off the record.
- untraced step: a step behind the first 16, where the always-on tier alone is at work, at the pace that it has found.
- traced step: one that the default schedule traces, at its full sampling.
- every step traced: the mean over a session with `every=1`.

Other tools are run in the same process, in blocks that follow each other, with and without (A B, B A, A B ...), at
their defaults and at every step (benchmarks/others.py).

    python benchmarks/overhead.py [--quick] [--write docs/performance.md] [--only mlp,resnet] [--threads 1,2]
    python benchmarks/overhead.py --device cuda --write docs/performance.md      the section on a GPU alone
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diagnosis import MARKS
from memory import measure_memory, memory_page
from others import WAYS, After, Use, Way, nothing
from startup import startup_page
from tables import between, table
from workloads import Workload, mlp, resnet, transformer

import unvanish
from unvanish.probe.engine import Probe
from unvanish.probe.schedule import FIRST_LOOKS, TRACE_RATIO, Schedule

SESSIONS = 3  # unless told otherwise
GROUP_SECONDS = 1.0  # of watched steps, then of unwatched ones: longer than the writer's thread rests
OTHER_PAIRS = 3  # of the other tools, which cost more than the noise
HORIZON = 1000  # steps that "defaults" speaks of
ON_A_GPU = "<!-- on a GPU: written by overhead.py --device cuda -->"  # what comes behind it is that section
FIRST = 2 * FIRST_LOOKS  # steps after which the always-on tier has found its pace
OTHER_SHARE = 4  # blocks of the other tools are this many times shorter: their cost is the same at every step


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One net: how it is built, and how many steps make a block."""

    title: str
    build: Callable[[], Workload]
    steps: int
    quick_steps: int


CASES = {
    "mlp": Case(title="MLP 20 x 256, batch 128", build=mlp, steps=400, quick_steps=200),
    "resnet": Case(
        title="ResNet-18 at a quarter of its width, 32 x 32, batch 64",
        build=lambda: resnet(width=16),
        steps=100,
        quick_steps=56,
    ),
    "transformer": Case(
        title="transformer 6 x 256, T = 128, batch 8", build=transformer, steps=72, quick_steps=48
    ),
}


GPU_CASES = {  # steps take a few milliseconds: longer blocks; and nets of the size that GPUs are used for
    "mlp": Case(title="MLP 20 x 256, batch 128", build=mlp, steps=800, quick_steps=200),
    "resnet": Case(title="ResNet-18, 32 x 32, batch 64", build=resnet, steps=400, quick_steps=100),
    "transformer": Case(
        title="transformer 6 x 256, T = 128, batch 8", build=transformer, steps=400, quick_steps=100
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A median over sessions with its 10-90 % bootstrap interval; 1 = as without watching."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """1.012 [1.004, 1.021]."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What one net on so many threads came to. `others` by name: (at defaults, at every step)."""

    title: str
    threads: int
    sessions: int
    step_ms: float
    defaults: Ratio
    untraced: Ratio
    traced: Ratio
    every: Ratio
    others: dict[str, tuple[float | None, float]]


# --- the clock --------------------------------------------------------------------------------------------------


def timed(work: Workload, steps: int, after: After = nothing) -> list[float]:
    """Seconds of each of `steps` steps."""
    seconds = []
    on_gpu = next(work.model.parameters()).is_cuda
    before = time.perf_counter()
    for _ in range(steps):
        after(work.step())
        if on_gpu:  # a step is over when the device has done it
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
    return seconds


def watched(work: Workload, steps: int, out: Path, every: int | None = None) -> dict[str, float]:
    """Mean cost of a watched step, 1 = as unwatched: first ones, later ones, traced ones (see the module's text)."""
    before = timed(work, 2)
    group = max(1, round(GROUP_SECONDS / statistics.fmean(before)))
    before = timed(work, group)
    costs: list[float] = []
    with watching(work, out, every) as (w, probe):
        while len(costs) < steps:
            seconds = timed(work, min(group, steps - len(costs)))
            with unwatched(probe):
                after = timed(work, group)
            base = statistics.fmean([*before, *after])
            costs += [taken / base for taken in seconds]
            before = after
    traced = {trace.step for trace in w.run().models[0].traces}
    assert traced, "nothing was traced, so there is nothing to compare"
    kinds: dict[str, list[float]] = {"first": [], "later": [], "traced": []}
    for i, cost in enumerate(costs):
        kinds["traced" if i in traced else "first" if i < FIRST else "later"].append(cost)
    return {kind: statistics.fmean(values or costs) for kind, values in kinds.items()}


@contextmanager
def watching(work: Workload, out: Path, every: int | None) -> Iterator[tuple[unvanish.Watch, Probe]]:
    """A watch, and the probe in it."""
    made: list[Probe] = []

    def probe(*args: Any, **kwargs: Any) -> Probe:
        made.append(Probe(*args, **kwargs))
        return made[-1]

    with (
        mock.patch("unvanish.probe.engine.Probe", probe),
        unvanish.watch(work.model, work.optimizer, out=out, every=every) as w,
    ):
        yield w, made[0]


@contextmanager
def unwatched(probe: Probe) -> Iterator[None]:
    """Meanwhile nothing of the probe's is in place, and its clock stands still."""
    began, armed = time.perf_counter(), probe._forward.armed
    probe._active = False
    for handle in probe._handles:
        handle.remove()
    probe._handles = []
    probe._forward.disarm()
    probe._seams.take_back()
    yield
    start = probe._start
    probe._place(None)
    if not armed:
        probe._forward.disarm()
    away = time.perf_counter() - began
    probe._start = start + away
    for model in probe._models._all:
        if model.pace._since is not None:
            model.pace._since += away


def shares(steps: int) -> dict[str, float]:
    """Which share of the first `steps` steps is traced by default; of the others, which are the first ones."""
    traces = Schedule(ratio=TRACE_RATIO)
    counts = {"first": 0, "later": 0, "traced": 0}
    for step in range(steps):
        if traces.due(step):
            traces.done(step)
            counts["traced"] += 1
        else:
            counts["first" if step < FIRST else "later"] += 1
    return {kind: count / steps for kind, count in counts.items()}


def ratio(values: Sequence[float]) -> Ratio:
    """The median of the values with its bootstrap interval."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(2000))
    return Ratio(value=statistics.median(values), low=medians[199], high=medians[1799])


def paired(work: Workload, steps: int, pairs: int, use: Use) -> list[float]:
    """Ratios of mean step times, with a way to watch over without it, per pair of blocks."""

    def block() -> float:
        # wandb's service may still write when all is over
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            use(work, Path(folder)) as after,
        ):
            return statistics.fmean(timed(work, steps, after))

    found = []
    for pair in range(pairs):
        if pair % 2:
            seen, without = block(), statistics.fmean(timed(work, steps))
        else:
            without, seen = statistics.fmean(timed(work, steps)), block()
        found.append(seen / without)
    return found


def step_cost(
    case: Case, threads: int, sessions: int, *, quick: bool, others: bool, device: str = "cpu"
) -> StepCost:
    """Sessions with one net."""
    torch.set_num_threads(threads)
    with torch.device(device):  # and not as the default: that sends every operation of torch's through python
        work = case.build()
    steps = case.quick_steps if quick else case.steps
    share = shares(HORIZON)
    found: dict[str, list[float]] = {"first": [], "later": [], "traced": [], "defaults": [], "every": []}
    with tempfile.TemporaryDirectory() as folder:
        alone = timed(work, max(6, steps // 10))[3:]  # the first ones: allocator, threads, caches
        watched(work, FIRST + 8, Path(folder))
        for _ in range(sessions):
            alone += timed(work, 3)
            seen = watched(work, steps, Path(folder))
            for kind, cost in seen.items():
                found[kind].append(cost)
            found["defaults"].append(sum(share[kind] * seen[kind] for kind in share))
            found["every"].append(
                watched(work, max(12, steps // OTHER_SHARE), Path(folder), every=1)["traced"]
            )
    return StepCost(
        title=case.title,
        threads=threads,
        sessions=sessions,
        step_ms=1e3 * statistics.median(alone),
        defaults=ratio(found["defaults"]),
        untraced=ratio(found["later"]),
        traced=ratio(found["traced"]),
        every=ratio(found["every"]),
        others={way.name: other_cost(way, work, steps) for way in WAYS if others and way.there},
    )


def other_cost(way: Way, work: Workload, steps: int) -> tuple[float | None, float]:
    """(at its defaults, at every step) of another tool: medians of ratios."""
    print(f"  {way.name} ...", file=sys.stderr, flush=True)
    steps, pairs = max(8, steps // OTHER_SHARE), OTHER_PAIRS
    every = statistics.median(paired(work, steps, pairs, way.every))
    if way.default is not None:
        return statistics.median(paired(work, steps, pairs, way.default)), every
    if way.rare is not None:
        between = statistics.median(paired(work, steps, pairs, way.rare))
        return between + (every - between) / way.period, every
    return None, every


# --- the page ----------------------------------------------------------------------------------------------------


def own_table(costs: Sequence[StepCost]) -> str:
    """What unvanish costs."""
    head = [
        "net",
        "threads",
        "step alone, ms",
        "defaults",
        "untraced step",
        "traced step",
        "every step traced",
    ]
    rows = [
        [c.title, str(c.threads), f"{c.step_ms:.1f}", *map(str, (c.defaults, c.untraced, c.traced, c.every))]
        for c in costs
    ]
    return table([head, *rows])


def other_table(costs: Sequence[StepCost]) -> str:
    """What others cost, in the same run: at defaults / at every step."""
    head = ["", *(f"{c.title.partition(',')[0]}, {c.threads} thread{'s' * (c.threads > 1)}" for c in costs)]
    rows = [["**unvanish**", *(f"**{c.defaults.value:.2f} / {c.every.value:.2f}**" for c in costs)]]
    for way in WAYS:
        if way.name in costs[0].others:
            cells = []
            for cost in costs:
                default, every = cost.others[way.name]
                cells.append(f"{'—' if default is None else f'{default:.2f}'} / {every:.2f}")
            rows.append([f"{way.name}{_version(way)}", *cells])
    return table([head, *rows])


def _version(way: Way) -> str:
    return "" if way.package is None else f" {importlib.metadata.version(way.package)}"


def page(costs: Sequence[StepCost], memory: str, *, quick: bool) -> str:
    """docs/performance.md, up to what benchmarks/gpu.py and benchmarks/startup.py add to it."""
    kinds = shares(HORIZON)
    given = "" if costs[0].sessions == SESSIONS else f' ARGS="--sessions {costs[0].sessions}"'
    warning = " --quick: a first impression, not a figure to quote" if quick else ""
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()}, no GPU used)"
    versions = (
        f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}, "
        f"unvanish {unvanish.__version__}"
    )
    date = datetime.now(timezone.utc).date().isoformat()
    reading = (
        f"Medians over {costs[0].sessions} sessions, with the 10-90 % range of a bootstrap. In each, a second of "
        "watched steps and one of unwatched steps of the same training alternate in one process; 1.000 is the "
        "unwatched ones just before and after. *Untraced*: the always-on tier alone, at the pace that it "
        "has found. *Traced*: every operation of the backward pass as well, with an exponent histogram; the default "
        f"schedule traces {kinds['traced']:.1%} of the first {HORIZON:,} steps, fewer later. *Defaults*: the mean "
        f"over these {HORIZON:,} steps, put together from the others by their shares. The ResNet has 16, 32, "
        "64 and 128 channels instead of 64 to 512, so that the benchmark ends in minutes on two cores."
    )
    parts = [
        "# Performance",
        f"Measured on {date} by `make bench{given}`{warning}, on {machine}, {versions}.",
        "## Step time, watched over unwatched",
        own_table(costs),
        reading,
    ]
    if any(c.others for c in costs):
        notes = "\n".join(f"- {way.name}: {way.note}" for way in WAYS if way.name in costs[0].others)
        parts += [
            "## Beside other tools",
            other_table(costs),
            f"In the same run: step time over unwatched, at the tool's defaults / at every step.\n\n{notes}",
        ]
    return "\n\n".join([*parts, *([memory] if memory else [])]) + "\n"


def gpu_page(costs: Sequence[StepCost]) -> str:
    """The section of docs/performance.md on a GPU."""
    date = datetime.now(timezone.utc).date().isoformat()
    where = (
        f"one {torch.cuda.get_device_name()}, torch {torch.__version__}, Python {platform.python_version()}"
    )
    reading = (
        "Each step ends with a wait for the device, in both. What is counted is the training thread's time for "
        "launching our copies: nothing waits for the device, and the writer's thread reads the samples. The tables "
        "above say what the columns are; the ResNet is at its full width here."
    )
    lead = f"Measured on {date} by `python benchmarks/overhead.py --device cuda`, on {where}."
    return "\n\n".join(["## On a GPU", lead, own_table(costs), reading]) + "\n"


def save(path: Path, text: str, *, gpu: bool) -> None:
    """Write one part of the page and leave the other as it is."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    own, _, other = before.partition(ON_A_GPU)
    diagnosis = between(own, MARKS)  # which another benchmark writes
    own, other = (own, text) if gpu else (f"{text}\n{diagnosis or ''}", other)
    path.parent.mkdir(parents=True, exist_ok=True)
    tail = f"\n{ON_A_GPU}\n\n{other.lstrip()}" if other.strip() else ""
    path.write_text(own.rstrip() + "\n" + tail, encoding="utf-8")


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks: a minute or two")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page")
    parser.add_argument("--only", default=",".join(CASES), help="nets, separated by commas")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas")
    parser.add_argument("--sessions", type=int, help=f"watched sessions a net (default {SESSIONS}, quick 2)")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory half out")
    parser.add_argument("--no-others", action="store_true", help="leave the other tools out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the nets are")
    options = parser.parse_args()
    gpu = options.device == "cuda"
    if gpu:
        options.threads, options.no_others = "1", True
        CASES.update(GPU_CASES)
    names = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"no net called {unknown[0]!r}; there are {', '.join(CASES)}")
    sessions = options.sessions or (2 if options.quick else SESSIONS)
    costs = []
    for threads in (int(n) for n in options.threads.split(",")):
        for name in names:
            case = CASES[name]
            print(f"{case.title}, {threads} thread(s) ...", file=sys.stderr, flush=True)
            costs.append(
                step_cost(
                    case,
                    threads,
                    sessions,
                    quick=options.quick,
                    others=not options.no_others,
                    device=options.device,
                )
            )
            print(own_table(costs[-1:]), file=sys.stderr, flush=True)
    if gpu:
        print(text := gpu_page(costs))
        if options.write:
            save(options.write, text, gpu=True)
        return
    memory = startup_page()
    if not options.no_memory and sys.platform != "win32":
        memory = f"{memory_page(measure_memory(names, 1 if options.quick else 3))}\n\n{memory}"
    text = page(costs, memory, quick=options.quick)
    print(text)
    if options.write:
        save(options.write, text, gpu=False)


if __name__ == "__main__":
    main()
