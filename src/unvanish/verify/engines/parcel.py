"""The script's files, for a machine that does not have them.

A trial on another machine runs the script at the same path, where the same script lies there (a shared disk, a
container image). Where it does not, or another version of it does, the folders that the script stands in are sent,
and the trial runs in a copy. Data that lies elsewhere is not looked for: the script says itself what it misses.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from unvanish.errors import UsageError
from unvanish.verify.trial import Target

LIMIT_BYTES = 64 * 2**20
_SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "env", "unvanish_runs", "wandb", "mlruns"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder and all that lies below it: paths (relative, with /) and contents."""

    path: str
    files: tuple[tuple[str, bytes], ...]


def fingerprint(target: Target) -> str | None:
    """A hash of the script and of the modules and packages beside it; None where there is no such script."""
    program = _program(target)
    if program is None:
        return None
    digest = hashlib.sha256()
    for path in (program, *_sources(program.parent)):
        digest.update(f"{path.relative_to(program.parent)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def pack(target: Target) -> tuple[Folder, ...]:
    """The folder of the script, and the directory that it is run in.

    Hidden folders, virtual environments, caches and records of runs stay.

    Raises:
        UsageError: they are too large to be sent, or can't be read.
    """
    program = _program(target)
    places = {Path(target.directory).absolute()}
    if program is not None:
        places.add(program.parent)
    tops = sorted(p for p in places if not any(q in p.parents for q in places))
    left = LIMIT_BYTES
    folders = []
    for top in tops:
        files = []
        try:
            for path in _below(top):
                left -= path.stat().st_size
                if left < 0:
                    raise UsageError(
                        f"{top}, the script's folder, holds more than {LIMIT_BYTES // 2**20} MiB: too much to send",
                        "put it on a disk that all machines of the cluster share, at the same path",
                    )
                files.append((path.relative_to(top).as_posix(), path.read_bytes()))
        except OSError as error:
            raise UsageError(f"the script's folder can't be read: {error}", "make it readable") from None
        folders.append(Folder(path=str(top), files=tuple(files)))
    return tuple(folders)


def unpack(folders: tuple[Folder, ...], under: Path) -> dict[str, str]:
    """Write them below the folder `under`; gives where each of them lies now."""
    moved = {}
    for i, folder in enumerate(folders):
        top = under / str(i) / Path(folder.path).name
        top.mkdir(parents=True, exist_ok=True)
        for name, content in folder.files:
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        moved[folder.path] = str(top)
    return moved


def relocate(target: Target, moved: Mapping[str, str]) -> Target:
    """The same script where its folders lie now; arguments that begin with such a folder follow."""
    program = target.program if target.is_module else str(Path(target.directory, target.program).absolute())
    return replace(
        target,
        program=program if target.is_module else _moved(program, moved),
        directory=_moved(str(Path(target.directory).absolute()), moved),
        arguments=tuple(_moved(argument, moved) for argument in target.arguments),
    )


def _moved(text: str, moved: Mapping[str, str]) -> str:
    """A path, or an option with one: /a/b, --data=/a/b."""
    option, equals, path = text.partition("=") if text.startswith("-") else ("", "", text)
    for old, new in moved.items():
        if path == old or path.startswith(old.rstrip("/") + "/"):
            return f"{option}{equals}{new}{path[len(old.rstrip('/')) :]}"
    return text


def _program(target: Target) -> Path | None:
    """The file that is run; None: there is none, or it is an installed module's."""
    top = Path(target.directory).absolute()
    if not target.is_module:
        path = Path(os.path.normpath(top / target.program))
        return path if path.is_file() else None
    stem = top.joinpath(*target.program.split("."))
    return next((p for p in (stem.with_suffix(".py"), stem / "__main__.py") if p.is_file()), None)


def _sources(folder: Path) -> Iterator[Path]:
    """Modules in the folder, and those of packages in it."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py" and path.is_file():
            yield path
        elif (path / "__init__.py").is_file():
            yield from _sources(path)


def _below(top: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(top):
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _SKIPPED)
        names[:] = [n for n in names if not Path(folder, n, "pyvenv.cfg").exists()]
        yield from (path for name in sorted(files) if (path := Path(folder, name)).is_file())
