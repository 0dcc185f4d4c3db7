"""The process beside a training: it serves the run, and draws it in the terminal, from the record alone.

The training process is not touched: it starts this one, reads one line from it (the address), and at its end says
so through the pipe that is this one's standard input. Nothing else passes between them: neither waits for the other.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from unvanish.errors import UnvanishError
from unvanish.serving.guard import guard_for
from unvanish.serving.runs import Runs
from unvanish.serving.server import Server
from unvanish.serving.terminal import Painter
from unvanish.store.alive import process_started

LINGER_SECONDS = 30.0  # after the end of the training, for a page that is open to fetch how it ended
SEEN_SECONDS = 8.0  # a page that has asked so recently is open: it does every 2 s
_POLL_SECONDS = 0.25


def main(arguments: Sequence[str]) -> int:
    """Serve one run until its training ends. The address goes to standard output, as does why there is none."""
    parser = argparse.ArgumentParser(prog="python -m unvanish.serving")
    parser.add_argument("run")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--terminal", type=int, default=None, metavar="FD")
    parser.add_argument("--steps", type=int, default=None)
    told = parser.parse_args(arguments)
    try:
        server = _server(Path(told.run), told.port)
    except UnvanishError as error:
        print(f"! {error}", flush=True)  # noqa: T201 - the parent reads it
        return 1
    print(server.url, flush=True)  # noqa: T201 - the parent reads it
    painter = None
    if told.terminal is not None:
        painter = Painter(told.terminal, server.runs, server.runs.places.only or "", server.url, told.steps)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    parent = _Parent(told.parent)
    try:
        while not parent.has_ended(_POLL_SECONDS):
            if painter is not None:
                painter.paint()
    finally:
        if painter is not None:
            painter.leave()
        with contextlib.suppress(OSError):
            print("left", flush=True)  # noqa: T201 - the terminal is the parent's again
    _linger(server)
    server.close()
    return 0


def _server(run: Path, port: int) -> Server:
    """On the wanted port, else on a free one: a second run beside the first is no mistake."""
    runs, guard = Runs(run), guard_for("127.0.0.1", None)
    try:
        return Server(runs, guard, port)
    except UnvanishError:
        if not port:
            raise
        return Server(runs, guard, 0)


class _Parent:
    """The training process, as far as this one is concerned."""

    def __init__(self, pid: int) -> None:
        self._pid, self._started = pid, process_started(pid)
        self._said = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def has_ended(self, seconds: float) -> bool:
        """Whether it has said so, has closed its end of the pipe, or is gone; waits so long for it."""
        # its forked workers may hold the pipe open when it is killed
        return self._said.wait(seconds) or (
            self._started is not None and process_started(self._pid) != self._started
        )

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            os.read(sys.stdin.fileno(), 1)  # a word, or the end of all: both mean the same
        self._said.set()


def _linger(server: Server) -> None:
    """As long as a page may still be waiting for the end of the story."""
    until = time.monotonic() + LINGER_SECONDS
    while time.monotonic() < min(until, server.asked + SEEN_SECONDS):
        time.sleep(_POLL_SECONDS)
