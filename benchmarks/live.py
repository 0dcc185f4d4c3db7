"""What `unvanish run --live` adds to a step: the same script watched with and without it, side by side.

Runs come in pairs, in turn with and without, and a page is simulated that asks for the view every two seconds. The
time per step of a run is the median over its steps after the first tenth, from its own record; the figure is the
ratio of each pair, its median over the pairs and the spread of it. `--pairs N` (5), `--steps N` (3000).
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from unvanish.store import list_runs, read_run

SCRIPT = """
import torch
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)
net = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(256, 256), nn.Sigmoid())])
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
x, y = torch.randn(256, 256), torch.rand(256, 256)
while True:
    optimizer.zero_grad()
    nn.functional.mse_loss(net(x), y).backward()
    optimizer.step()
"""
PAGE_SECONDS = 2.0


def step_seconds(folder: Path, steps: int, *, live: bool) -> float:
    """The median time of a step of one run."""
    script = folder / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    out = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "unvanish", "run", "--out", str(out), "--steps", str(steps)]
    with subprocess.Popen(
        [*command, *(["--live"] if live else []), str(script)], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        ended = threading.Event()
        if live:
            found = re.search(r"live at (http://\S+?)/run/(\S+)", process.stderr.readline())
            assert found is not None, "no address was printed"
            page = threading.Thread(target=_ask, args=(f"{found[1]}/api/runs/{found[2]}/view", ended))
            page.start()
        process.stderr.read()
        ended.set()
    ((place, _, _),) = list_runs(out)
    seconds = read_run(place, detail=False).models[0].seconds
    return statistics.median(b - a for a, b in pairwise(seconds[len(seconds) // 10 :]))


def _ask(address: str, ended: threading.Event) -> None:
    etag = ""
    while not ended.wait(PAGE_SECONDS):
        request = urllib.request.Request(address, headers={"If-None-Match": etag})  # noqa: S310 - ours
        with suppress(OSError), urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - ours
            etag = reply.headers["ETag"]
            reply.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    told = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        for pair in range(told.pairs):
            times = {}
            for live in (False, True) if pair % 2 else (True, False):
                times[live] = step_seconds(Path(name), told.steps, live=live)
                time.sleep(1.0)
            ratios.append(times[True] / times[False])
            print(
                f"{1e3 * times[False]:7.3f} ms a step, {1e3 * times[True]:7.3f} ms with --live: {ratios[-1]:.4f}",
                flush=True,
            )
    print(
        f"ratio {statistics.median(ratios):.4f} (of {told.pairs} pairs: {min(ratios):.4f} to {max(ratios):.4f})"
    )


if __name__ == "__main__":
    main()
