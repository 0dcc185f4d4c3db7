"""Peak memory with and without watching, in processes of their own; called by benchmarks/overhead.py.

python benchmarks/memory.py mlp [--watch]      prints the peak of one such process, in MiB
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tables import table
from workloads import Workload, mlp, resnet, transformer

import unvanish

STEPS = 40
NETS: dict[str, tuple[str, Callable[[], Workload]]] = {
    "mlp": ("MLP 20 x 256, batch 128", mlp),
    "resnet": ("ResNet-18 at a quarter of its width, 32 x 32, batch 64", lambda: resnet(width=16)),
    "transformer": ("transformer 6 x 256, T = 128, batch 8", transformer),
    "wide": ("MLP 12 x 2048, batch 8", lambda: mlp(12, 2048, 8)),
}


def peak_mib() -> float:
    """The largest resident size that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands getrusage's peak down from parent to child; this one starts anew
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource  # noqa: PLC0415 - not on Windows, where the memory half is left out

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def train(work: Workload, steps: int, *, watch: bool) -> None:
    """Some steps, watched at the defaults or not."""
    if not watch:
        for _ in range(steps):
            work.step()
        return
    with tempfile.TemporaryDirectory() as folder, unvanish.watch(work.model, work.optimizer, out=folder):
        train(work, steps, watch=False)


def measure_memory(names: Sequence[str], repeats: int) -> list[tuple[str, float, float, float]]:
    """Per net: its title, MiB of the parameters, median peak without watching, median growth of it with."""
    found = []
    for name in dict.fromkeys([*names, "wide"]):
        title, build = NETS[name]
        print(f"memory of {title} ...", file=sys.stderr, flush=True)
        peaks: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(repeats):
            for watch in (False, True):
                command = [sys.executable, __file__, name, *(["--watch"] if watch else [])]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                peaks[watch].append(float(said))
        alone, with_watch = statistics.median(peaks[False]), statistics.median(peaks[True])
        found.append((title, build().parameter_bytes / 2**20, alone, with_watch - alone))
    return found


def memory_page(found: Sequence[tuple[str, float, float, float]]) -> str:
    """The section of docs/performance.md."""
    head = ["net", "parameters, MiB", "peak alone, MiB", "growth, MiB", "growth / peak"]
    rows = [
        [title, f"{size:.1f}", f"{alone:.0f}", f"{growth:.1f}", f"{growth / alone:+.1%}"]
        for title, size, alone, growth in found
    ]
    reading = (
        f"Peak resident size of processes of their own, after the same imports, over {STEPS} steps; medians. "
        "The peak of a process that does nothing but import torch is part of it."
    )
    return "\n\n".join(["## Memory", table([head, *rows]), reading])


def main() -> None:
    """Train a few steps and print the peak, all imports being the same with and without watching."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("net", choices=NETS)
    parser.add_argument("--watch", action="store_true", help="watch at the defaults")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train(mlp(2, 8, 4), 3, watch=True)  # what unvanish imports and allocates once is in both peaks
    train(NETS[options.net][1](), STEPS, watch=options.watch)
    print(peak_mib())


if __name__ == "__main__":
    main()
