"""Raise an error of the tests' own in any function of the probe, at any of its calls."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import unvanish.probe

ROOT = str(Path(unvanish.probe.__file__).parent)
Place = tuple[str, str]  # file, function

_UNKNOWN: Any = object()
_PLACES: dict[CodeType, Place | None] = {}  # looked up at every call of every function


def _place(code: CodeType) -> Place | None:
    if not code.co_filename.startswith(ROOT):
        return None
    return Path(code.co_filename).name, getattr(code, "co_qualname", code.co_name)


class Injection:
    """Counts the calls of every function of the probe in this thread, and raises in one of them."""

    def __init__(self, place: Place | None = None, nth: int = 0, error: BaseException | None = None) -> None:
        """`nth`: in which of the calls. Python takes the profiler away once it has raised."""
        self.calls: Counter[Place] = Counter()
        self.raised = False
        self._place, self._nth, self._error = place, nth, error

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != "call":
            return
        place = _PLACES.get(frame.f_code, _UNKNOWN)
        if place is _UNKNOWN:
            place = _PLACES[frame.f_code] = _place(frame.f_code)
        if place is None:
            return
        count = self.calls[place]
        self.calls[place] = count + 1
        if place == self._place and count == self._nth:
            self.raised = True
            assert self._error is not None
            raise self._error  # as if the function had raised it at once

    @contextmanager
    def inside(self) -> Iterator[None]:
        """While this lasts, in this thread."""
        before = sys.getprofile()
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(before)
