"""What may be started: a script, a folder or zip file, a module; refused with a mend where it can't be."""

# ruff: noqa: PTH109, PTH117, PTH118, PTH120 - python joins these paths without cleaning them, and so do we
from __future__ import annotations

import difflib
import importlib.machinery
import importlib.util
import os
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path

from unvanish.errors import ScriptError

FACTORY = re.compile(r"^(?P<file>.+\.py):(?P<name>[A-Za-z_][\w.]*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be run: a script, a folder or zip file with a ``__main__.py``, or a module (python's -m)."""

    name: str  # as it was typed: it becomes sys.argv[0]
    arguments: tuple[str, ...] = ()
    is_module: bool = False

    @property
    def title(self) -> str:
        """How to speak of it to the user."""
        return f"-m {self.name}" if self.is_module else self.name

    @property
    def path(self) -> str:
        """The script's path, absolute as python makes it: joined to the working directory, unresolved."""
        return self.name if os.path.isabs(self.name) else os.path.join(os.getcwd(), self.name)

    @property
    def is_container(self) -> bool:
        """Whether it is a folder or a zip file, whose ``__main__`` is run."""
        return not self.is_module and pkgutil.get_importer(self.path) is not None

    @property
    def folder(self) -> str:
        """What python puts into sys.path[0] for it."""
        if self.is_module:
            return os.getcwd()
        return self.path if self.is_container else os.path.dirname(os.path.realpath(self.path))

    def check(self) -> None:
        """Refuse what can't be started at all. Raises ScriptError with the mend."""
        if self.is_module:
            _check_module(self.name)
        else:
            _check_script(self.name)


def _check_script(name: str) -> None:
    path = Path(name)
    if name == "-":
        raise ScriptError(
            "a script on standard input can't be watched", "save it to a file and name that file"
        )
    if not path.exists():
        near = difflib.get_close_matches(path.name, _scripts_beside(path), n=1)
        mend = (
            f"did you mean {path.with_name(near[0])}?"
            if near
            else f"looked for {path.absolute()}; check the path"
        )
        raise ScriptError(f"there is no script {name}", mend)
    if path.is_dir() and not any((path / main).exists() for main in ("__main__.py", "__main__.pyc")):
        raise ScriptError(f"{name} is a folder without a __main__.py", "name the script in it that trains")
    if not os.access(path, os.R_OK):
        raise ScriptError(f"{name} can't be read", "check its permissions")


def _scripts_beside(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.parent.iterdir() if entry.suffix == ".py")
    except OSError:
        return []


def _check_module(name: str) -> None:
    """Only the first part of the name is looked up: finding the rest would import the package too early."""
    if name.endswith(".py"):
        raise ScriptError(f"-m takes the name of a module, and {name} is a file", "leave the -m out")
    top = name.partition(".")[0]
    if not top or not (importlib.machinery.PathFinder.find_spec(top, [os.getcwd()]) or _is_installed(top)):
        raise ScriptError(
            f"there is no module {name!r}",
            "start from the folder that holds it, as for python -m, or install it",
        )


def _is_installed(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def is_factory(spec: str) -> bool:
    """Whether it reads like FILE.py:FACTORY."""
    return FACTORY.match(spec) is not None
