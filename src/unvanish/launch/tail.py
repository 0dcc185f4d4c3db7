"""Where the output of a trial goes: its end is kept, for the line that says why it failed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

_KEPT = 4096  # bytes
_LINE = 200  # characters of it that are said


class _End(io.RawIOBase):
    def __init__(self) -> None:
        self.kept = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.kept += data
        del self.kept[:-_KEPT]
        return len(data)


class Tail(io.TextIOWrapper):
    """A text stream, with a buffer of bytes below it as sys.stdout has one, of which the last few kilobytes stay."""

    def __init__(self) -> None:
        """Nothing was written yet."""
        self._end = _End()
        super().__init__(
            io.BufferedWriter(self._end), encoding="utf-8", errors="backslashreplace", write_through=True
        )

    @property
    def last_line(self) -> str:
        """The last line that is not empty, cut ("" = none)."""
        with contextlib.suppress(ValueError):  # closed by the script
            self.flush()
        lines = self._end.kept.decode("utf-8", "replace").splitlines()
        return next((line.strip()[:_LINE] for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def quiet() -> Iterator[Tail]:
    """While this lasts, what is printed to either stream goes there."""
    tail = Tail()
    with contextlib.redirect_stdout(tail), contextlib.redirect_stderr(tail):
        yield tail
