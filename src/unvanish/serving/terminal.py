"""The run in the lower part of the terminal, while the script prints in the upper one.

The script's own streams stay as they are: no output of it passes through here. The terminal itself is told to scroll
the upper lines only (DECSTBM, as apt and tmux do), and what is drawn goes below. Each picture is one write.
"""

from __future__ import annotations

import contextlib
import os
import time

from rich.console import Console

from unvanish.present.live_text import live_lines
from unvanish.serving.runs import Runs

SHARE = 0.5  # of the terminal's height
MOST_LINES, LEAST_LINES, LEAST_COLUMNS = 18, 8, 40
EVERY_SECONDS = 1.0


class Painter:
    """Draws one run on the terminal behind a file descriptor, until `leave` gives the terminal back."""

    def __init__(self, descriptor: int, runs: Runs, name: str, url: str, steps: int | None) -> None:
        """Nothing is drawn yet. `steps`: how many there will be, if that is known."""
        self._fd, self._runs, self._name, self._url, self._steps = descriptor, runs, name, url, steps
        self._size: tuple[int, int] | None = None  # columns, lines as they were reserved
        self._lines = 0
        self._next = 0.0
        self._gone = False

    def paint(self) -> None:
        """Draw what is known now, at most once in a while. A terminal that is gone is left alone."""
        if self._gone or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        try:
            size = os.get_terminal_size(self._fd)
            if not self._reserve(size.columns, size.lines):
                return
            self._put(self._picture(size.columns))
        except OSError:
            self._gone = True
        except Exception:  # noqa: BLE001 - the record is not there yet, or is being written: the next time
            self._next = time.monotonic() + EVERY_SECONDS

    def leave(self) -> None:
        """Wipe what was drawn; the whole terminal scrolls again, the cursor stands where the script left it."""
        if self._size is None or self._gone:
            return
        top = self._size[1] - self._lines + 1
        wipe = "".join(f"\x1b[{top + i};1H\x1b[2K" for i in range(self._lines))
        with contextlib.suppress(OSError):
            self._put(f"\x1b7{wipe}\x1b[r\x1b8")
        self._size = None

    def _picture(self, columns: int) -> str:
        assert self._size is not None  # noqa: S101 - reserved before
        view = self._runs.view(self._name)
        lines = live_lines(view.extra.live, self._console(columns), self._lines, self._url, self._steps)
        top = self._size[1] - self._lines + 1
        drawn = "".join(f"\x1b[{top + i};1H\x1b[2K{line}" for i, line in enumerate(lines))
        return f"\x1b7\x1b[?7l{drawn}\x1b[?7h\x1b8"  # no wrapping meanwhile

    @staticmethod
    def _console(columns: int) -> Console:
        return Console(width=columns - 1, force_terminal=True, legacy_windows=False)

    def _reserve(self, columns: int, lines: int) -> bool:
        """Take the lower lines for the picture, anew where the window has another size."""
        if self._size == (columns, lines):
            return True
        self.leave()
        wanted = min(MOST_LINES, int(lines * SHARE))
        if wanted < LEAST_LINES or columns < LEAST_COLUMNS:
            return False
        self._lines, self._size = wanted, (columns, lines)
        # room below the cursor first (IND keeps its column); setting the region moves it, so it is brought back
        self._put("\x1bD" * wanted + f"\x1b[{wanted}A\x1b7\x1b[1;{lines - wanted}r\x1b8")
        return True

    def _put(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._fd, data) :]
