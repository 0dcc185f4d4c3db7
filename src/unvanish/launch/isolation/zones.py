"""Which parts of the file system are the user's, and which are anybody's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unvanish.launch.target import FACTORY

_ANYBODYS = ("/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/run")  # noqa: S108 - where temporary files are made


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """`rules`: (real path of a folder, whether it is protected); the deepest folder around a path decides.

    `own`: the folders that the script itself is likely to write in.
    """

    rules: tuple[tuple[str, bool], ...]
    own: tuple[str, ...] = ()

    def protects(self, path: str) -> bool:
        """Whether this absolute path, without links, is not to be written."""
        return next((rule for folder, rule in self.rules if is_below(path, folder)), True)


def zones_for(folders: Iterable[str | Path], scratch: Path) -> Zones:
    """All is protected, `folders` (the script's) wherever they are; else temporary folders and devices are not."""
    rules = {"/": True}
    own = tuple(os.path.realpath(folder) for folder in folders)
    rules.update(dict.fromkeys((*own, os.path.realpath(Path.home())), True))
    free = (*_ANYBODYS, tempfile.gettempdir(), scratch)
    rules.update({os.path.realpath(folder): False for folder in free})
    deepest_first = sorted(rules.items(), key=lambda rule: -len(rule[0].rstrip("/")))
    return Zones(rules=tuple(deepest_first), own=own)


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or inside of it."""
    return path == folder or path.startswith(folder if folder.endswith("/") else folder + "/")


def folders_of(
    program: str, directory: str, *, is_module: bool = False, arguments: Iterable[str] = ()
) -> tuple[str, ...]:
    """The folders that a script may take for its own: the working directory, its own, its repository's.

    `program` is a path, or a module's name; FILE.py:FACTORY, too, may stand there or among the arguments. What the
    arguments name that is there belongs to the user as well.
    """
    found = [os.path.realpath(directory)]
    for name in (*(() if is_module else (program,)), *arguments):
        factory = FACTORY.match(name)
        path = os.path.realpath(os.path.join(directory, factory["file"] if factory else name))
        if os.path.exists(path) or name == program:
            found.append(path if os.path.isdir(path) and name != program else os.path.dirname(path))
    for folder in list(found):
        own = Path(folder)
        found += [str(p) for p in (own, *own.parents) if (p / ".git").exists()][:1]
    return tuple(dict.fromkeys(found))
