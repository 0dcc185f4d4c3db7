"""The training's side of `--live`: starts the process beside it, says its address, ends it.

Nothing here may keep the training waiting or fail it: what goes wrong is one line for the user.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

ADDRESS_SECONDS = 30.0
FAREWELL_SECONDS = 2.0
_ROOT = str(Path(__file__).parents[2])
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Beside:
    """The process that shows the run while it trains."""

    def __init__(
        self,
        run: Path,
        environment: Mapping[str, str],
        *,
        port: int,
        terminal: TextIO | None,
        steps: int | None,
        say: Callable[[str], None],
    ) -> None:
        """Start it. `environment`: without what makes python's children join the run. `terminal`: to be drawn on."""
        self._pid = os.getpid()
        self._terminal = _descriptor(terminal)
        self._process: subprocess.Popen[bytes] | None = None
        command = [sys.executable, "-m", "unvanish.serving", str(run.absolute()), "--port", str(port)]
        command += ["--parent", str(self._pid)]
        if self._terminal is not None:
            command += ["--terminal", str(self._terminal)]
        if steps is not None:
            command += ["--steps", str(steps)]
        others = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
        told = {
            **environment,
            **dict.fromkeys(_ONE_THREAD, "1"),
            "PYTHONPATH": os.pathsep.join([*others, _ROOT]),
        }
        try:
            self._process = subprocess.Popen(
                command,
                cwd=run,  # python -m puts it on the path: nothing of the user's lies there
                env=told,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=() if self._terminal is None else (self._terminal,),
            )
        except OSError as error:
            say(f"--live could not begin: {str(error.strerror or error).lower()}")
            return
        if hasattr(os, "fork"):
            self._process.wait()  # it leaves a grandchild at once, so that no os.wait() of the script meets it
        threading.Thread(target=self._say_address, args=(say,), daemon=True).start()

    def end(self) -> None:
        """Let it go; waits a moment until the terminal is free again."""
        process = self._process
        if process is None or os.getpid() != self._pid or process.stdin is None or process.stdout is None:
            return
        self._process = None
        with suppress(OSError, ValueError):
            os.write(
                process.stdin.fileno(), b"end\n"
            )  # closing is not enough: a forked worker may hold it too
            process.stdin.close()
        if self._terminal is not None and not _left(process.stdout.fileno()):
            with suppress(OSError):
                os.write(self._terminal, b"\x1b7\x1b[r\x1b8")  # it was killed: let the whole terminal scroll

    def _say_address(self, say: Callable[[str], None]) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        with suppress(OSError, ValueError):
            line = _line(process.stdout.fileno(), ADDRESS_SECONDS)
            if line.startswith("http"):
                say(f"live at {line}")
            else:
                say(
                    f"--live could not begin: {line.removeprefix('! ') or 'the process beside it gave no answer'}"
                )


def _descriptor(terminal: TextIO | None) -> int | None:
    """The stream's number, where it is a terminal that can be drawn on."""
    if terminal is None or os.name != "posix" or os.environ.get("TERM", "dumb") == "dumb":
        return None
    try:
        return os.dup(terminal.fileno()) if terminal.isatty() else None  # the child's own stderr is another
    except (OSError, ValueError, AttributeError):
        return None


def _line(descriptor: int, seconds: float) -> str:
    """One line, read a byte at a time: what follows is for `end`."""
    until, read = time.monotonic() + seconds, bytearray()
    while select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
        byte = os.read(descriptor, 1)
        if byte in (b"", b"\n"):
            break
        read += byte
    return read.decode("utf-8", "replace")


def _left(descriptor: int) -> bool:
    with suppress(OSError, ValueError):
        for _ in range(2):  # the address may not have been read yet
            if _line(descriptor, FAREWELL_SECONDS) == "left":
                return True
    return False
