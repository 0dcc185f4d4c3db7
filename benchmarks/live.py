"""What `unvanish run --live` adds to a step: the process beside the training is held and let go in turn, in one run.

A script trains under `run --live` on a terminal (so that it draws there as well), and a page is simulated that asks
for the view every two seconds. Every few seconds the process beside it is stopped (SIGSTOP) or goes on, so that
steps with and without it lie side by side, on the same model, in the same minute. The figure is the ratio of the
median step of a window with it to that of the window without it before: the median over all pairs, with the 95 %
interval of a sign test; by the clock, and by the processor time of the training's process, which other programs of
a busy machine disturb less. Linux only. `--pairs N` (30), `--window SECONDS` (3).
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from bisect import bisect_left
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

SCRIPT = """
import json, pathlib, time
import torch
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)
net = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(128, 128), nn.Sigmoid())])
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
x, y = torch.randn(256, 128), torch.rand(256, 128)
times, used = [], []
while not (times and len(times) % 50 == 0 and pathlib.Path("stop").exists()):
    optimizer.zero_grad()
    nn.functional.mse_loss(net(x), y).backward()
    optimizer.step()
    times.append(time.time())
    used.append(time.process_time())
pathlib.Path("times.json").write_text(json.dumps([times, used]))
"""
PAGE_SECONDS = 2.0
SETTLE_SECONDS = 5.0
EDGE_SECONDS = 0.1  # of each window that is left out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--window", type=float, default=3.0)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        windows, (times, used) = _measured(Path(name), told.pairs, told.window)
    for what, values in (("the clock", times), ("processor time", used)):
        medians = [_median_step(times, values, *window) for window in windows]
        ratios = sorted(on / off for off, on in zip(medians[::2], medians[1::2], strict=True))
        low, high = _interval(len(ratios))
        print(
            f"by {what}: {1e3 * statistics.median(medians[::2]):.3f} ms a step without,"
            f" ratio with --live {statistics.median(ratios):.4f} [{ratios[low]:.4f}, {ratios[high]:.4f}]"
        )


def _measured(folder: Path, pairs: int, window: float) -> tuple[list[tuple[float, float]], list[list[float]]]:
    """The windows (first without, then with, and so on); of every step when it ended and the processor time then."""
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "unvanish", "run", "--live", "train.py"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(command, cwd=folder, stderr=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        said = os.read(ours, 65536).decode()
        found = re.search(r"live at (http://\S+?)/run/(\S+)", said)
        assert found is not None, said
        ended = threading.Event()
        threading.Thread(target=_drain, args=(ours,), daemon=True).start()
        page = threading.Thread(target=_ask, args=(f"{found[1]}/api/runs/{found[2]}/view", ended))
        page.start()
        time.sleep(SETTLE_SECONDS)
        beside = _beside(found[2])
        windows = []
        try:
            for number in range(2 * pairs):
                os.kill(beside, signal.SIGCONT if number % 2 else signal.SIGSTOP)
                began = time.time()
                time.sleep(window)
                windows.append((began + EDGE_SECONDS, time.time()))
        finally:
            os.kill(beside, signal.SIGCONT)
            (folder / "stop").touch()
            ended.set()
        process.wait()
        page.join()
    return windows, json.loads((folder / "times.json").read_text(encoding="utf-8"))


def _beside(run: str) -> int:
    """The process that serves the run."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = place.read_bytes().decode("utf-8", "replace")
            if "unvanish.serving" in words and run in words:
                return int(place.parent.name)
    raise SystemExit("the process beside the training was not found")


def _drain(terminal: int) -> None:
    with suppress(OSError):
        while os.read(terminal, 65536):
            pass


def _ask(address: str, ended: threading.Event) -> None:
    etag = ""
    while not ended.wait(PAGE_SECONDS):
        request = urllib.request.Request(address, headers={"If-None-Match": etag})  # noqa: S310 - ours
        with suppress(OSError), urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310 - ours
            etag = reply.headers["ETag"]
            reply.read()


def _median_step(times: list[float], values: list[float], first: float, last: float) -> float:
    inside = values[bisect_left(times, first) : bisect_left(times, last)]
    assert len(inside) > 10, "too few steps in a window: make it longer"
    return statistics.median(b - a for a, b in pairwise(inside))


def _interval(count: int) -> tuple[int, int]:
    """Places of the order statistics that hold the median with 95 % (binomial, normal approximation)."""
    reach = 0.98 * count**0.5
    return max(0, int(count / 2 - reach)), min(count - 1, int(count / 2 + reach))


if __name__ == "__main__":
    main()
