"""Prove the clinic's labels by training alone, without unvanish: each script on three seeds, sick ones cured as well.

    python benchmarks/clinic/prove.py [NAME ...] [--family flow] [--write] [--jobs 2]

A sick case must fail to learn on every seed and learn on every seed when started with --cured; a healthy one must
learn. --write keeps the final losses in the labels. Exits with 1 where a label does not hold.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labels import FAMILIES, Case, all_cases, read, write

SEEDS = (0, 1, 2)
TIMEOUT = 300  # seconds
# the same as `unvanish run --seed`
SEEDED = """
import random, runpy, sys
seed, script = int(sys.argv[1]), sys.argv[2]
random.seed(seed)
import numpy, torch
numpy.random.seed(seed); torch.manual_seed(seed)
sys.argv = sys.argv[2:]
sys.path[0] = __import__("os").path.dirname(script)
runpy.run_path(script, run_name="__main__")
"""
FINAL = re.compile(r"^final loss: (\S+)", re.MULTILINE)


def final_loss(script: Path, seed: int, *, cured: bool) -> tuple[float | None, float]:
    """(what the script printed at its end, None where that is not finite or it never came there; seconds)."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", SEEDED, str(seed), str(script), *(["--cured"] if cured else [])],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    found = FINAL.search(done.stdout)
    if found is None:
        raise RuntimeError(f"{script.name} (seed {seed}) printed no final loss:\n{done.stderr[-2000:]}")
    value = float(found[1])
    return (value if math.isfinite(value) else None), time.perf_counter() - began


def prove(case: Case, pool: ThreadPoolExecutor) -> tuple[dict[str, list[float | None]], list[str], float]:
    """(final losses as it is and cured, what does not hold, seconds of the longest run)."""
    ways = ["plain"] if case.verdict == "healthy" else ["plain", "cured"]
    jobs = {
        way: [pool.submit(final_loss, case.script, s, cured=way == "cured") for s in SEEDS] for way in ways
    }
    results = {way: [job.result() for job in some] for way, some in jobs.items()}
    finals = {way: [value for value, _ in some] for way, some in results.items()}
    wrong = []
    should_learn = finals["cured"] if "cured" in finals else finals["plain"]
    if not all(v is not None and v < case.learned_below for v in should_learn):
        wrong.append(f"does not learn everywhere: {should_learn} against {case.learned_below}")
    if "cured" in finals:
        limit = case.stuck_above if case.stuck_above is not None else math.inf
        if not all(v is None or v > limit for v in finals["plain"]):
            wrong.append(f"is not stuck everywhere: {finals['plain']} against {limit}")
    return finals, wrong, max(seconds for some in results.values() for _, seconds in some)


def main() -> int:
    """Read the command line, prove, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [
        c
        for c in all_cases()
        if (not options.names or c.name in options.names) and options.family in (None, c.family)
    ]
    failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for case in chosen:
            try:
                finals, wrong, seconds = prove(case, pool)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                finals, wrong, seconds = {}, [str(error)], math.nan
            failed += bool(wrong)
            print(
                f"{'WRONG' if wrong else 'holds'}  {case.name}  {case.verdict}  {seconds:.1f} s  {finals}",
                flush=True,
            )
            for what in wrong:
                print(f"       {what}", flush=True)
            if options.write and finals:
                labels = read(case.family)
                short = {
                    way: [None if v is None else float(f"{v:.4g}") for v in some]
                    for way, some in finals.items()
                }
                labels[case.name]["proof"] = short
                write(case.family, labels)
    print(f"{len(chosen) - failed} of {len(chosen)} labels hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
