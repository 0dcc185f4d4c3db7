"""What the command line writes: checked before the work starts, written whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from unvanish.errors import RecordError

STDOUT = "-"


def writable_folder(name: str) -> Path:
    """The folder, made if it is not there, as an absolute path; RecordError when it can't be written in.

    Absolute, because the script may change the working directory before the folder is used.
    """
    folder = Path(name).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_to_write(folder)
    except OSError as error:
        raise RecordError(
            f"runs can't be kept in {name}: {_why(error)}", "name a folder you may write to with --out DIR"
        ) from None
    return folder


def writable_json(name: str | None) -> Path | None:
    """Where --json goes, as an absolute path (None: nowhere, or standard output). RecordError if it can't."""
    if name is None or name == STDOUT:
        return None
    path = Path(name).absolute()
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        if not path.exists():
            _try_to_write(path.parent)
        elif not os.access(path, os.W_OK):
            raise PermissionError(0, "no permission to write it")
    except OSError as error:
        raise RecordError(
            f"the JSON can't be written to {name}: {_why(error)}",
            "name a file in a folder that is there, or - ",
        ) from None
    return path


def readable(name: str, what: str) -> None:
    """RecordError where a file that the work needs can't be read: said before the work starts."""
    try:
        with Path(name).open("rb"):
            pass
    except OSError as error:
        raise RecordError(f"{what} {name} can't be read: {_why(error)}", "check the path") from None


def write_json(result: dict[str, Any], name: str | None, path: Path | None, stdout: TextIO) -> None:
    """Write to `path`, or to `stdout` where `name` is "-". A file is there whole or not at all."""
    if name is None:
        return
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    data = text.encode(
        "utf-8", "backslashreplace"
    )  # a lone surrogate in a module's name becomes JSON's own \udXXX
    if name == STDOUT:
        stdout.write(data.decode("utf-8"))
        stdout.flush()
    elif path is not None:
        try:
            _write_whole(data, path.resolve())
        except OSError as error:
            raise RecordError(
                f"the JSON could not be written to {name}: {_why(error)}",
                "make room there, or name another file",
            ) from None


def _write_whole(data: bytes, path: Path) -> None:
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(data)  # a pipe or a device: replacing it would destroy it
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def _try_to_write(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"unvanish")
        file.flush()


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def flush(stream: TextIO) -> None:
    """Bring out what the script printed, so that it stands before what we say."""
    with suppress(OSError, ValueError):  # closed by the script, or its reader is gone: python says so at exit
        stream.flush()


def say(text: str, stream: TextIO) -> None:
    """One line for the user."""
    with suppress(OSError, ValueError):
        stream.write(f"unvanish: {text}\n")
        stream.flush()
