"""Which call in the user's source a running frame is at."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

from torch import nn

from unvanish.treatment.patch.facts import Site

_LIBRARIES = ("site-packages", "dist-packages")
_DEPTH = 60  # frames that are looked at
_HERE = str(Path(__file__).resolve().parent)


class Places:
    """The user's own files: those below `root` that belong to no installed library."""

    def __init__(self, root: str | Path) -> None:
        """Nothing is read before a frame comes."""
        self.root = os.path.realpath(root)
        self._names: dict[str, str | None] = {}
        self._positions: dict[CodeType, list[tuple[int | None, ...]]] = {}
        self.digests: dict[str, str] = {}

    def relative(self, filename: str) -> str | None:
        """The file's path relative to the root, with slashes; None for what is not the user's."""
        if filename not in self._names:
            self._names[filename] = self._look_up(filename)
        return self._names[filename]

    def _look_up(self, filename: str) -> str | None:
        path = Path(os.path.realpath(filename))
        if not path.is_relative_to(self.root) or path.is_relative_to(_HERE) or not path.is_file():
            return None
        relative = path.relative_to(self.root)
        if any(part in _LIBRARIES for part in relative.parts):
            return None
        name = relative.as_posix()
        self.digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return name

    def site(self, frame: FrameType) -> Site | None:
        """The call that this frame is in the middle of; None where the file is not the user's."""
        code = frame.f_code
        file = self.relative(code.co_filename)
        if file is None:
            return None
        line, end = frame.f_lineno, None
        if sys.version_info >= (3, 11):
            if code not in self._positions:
                self._positions[code] = list(code.co_positions())
            first, last, _, column = self._positions[code][frame.f_lasti // 2]
            line = first or line
            end = None if last is None or column is None else (last, column)
        return Site(file=file, line=line, end=end, function=code.co_name)

    def outward(self, frame: FrameType | None) -> Iterator[tuple[FrameType, Site | None]]:
        """This frame and those around it, each with its call where it is the user's."""
        for _ in range(_DEPTH):
            if frame is None:
                return
            yield frame, self.site(frame)
            frame = frame.f_back


def outside_of(owner: object, frame: FrameType | None) -> FrameType | None:
    """The first frame that is not one of the `__init__`s (its own or a base's) that are building `owner`."""
    while frame is not None and frame.f_code.co_name in ("__init__", "_patch_init", "__call__"):
        first = frame.f_code.co_varnames[:1]
        if not first or frame.f_locals.get(first[0]) is not owner:
            return frame
        frame = frame.f_back
    return frame


def names_of_modules(frame: FrameType) -> dict[str, nn.Module]:
    """Expressions that stand for a module in this frame: its own names, attributes of self, names of the file."""
    owner = frame.f_locals.get("self")
    held = dict(getattr(owner, "__dict__", {}))
    if isinstance(owner, nn.Module):
        held.update(held.get("_modules", {}))
    attributes = {f"self.{name}": value for name, value in held.items() if str(name).isidentifier()}
    found: dict[str, nn.Module] = {}
    for space in (dict(frame.f_locals), attributes, dict(frame.f_globals)):
        for name, value in space.items():
            if isinstance(value, nn.Module) and name.removeprefix("self.").isidentifier():
                found.setdefault(name, value)
    return found
