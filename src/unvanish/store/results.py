"""What was found out about a run, kept beside its record as JSON files: diagnosis.json, treatment.json."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from unvanish.errors import RecordError


def save_result(folder: str | Path, name: str, json_text: str) -> Path:
    """Write a text as a file of the run's folder, whole or not at all; gives its path.

    Raises RecordError when it can't be written. ValueError when `name` is not a plain file name.
    """
    path = _result_path(folder, name)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(json_text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it private, the record beside it is not
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise RecordError(
            f"{path} can't be written ({error.strerror})", "check the folder's rights and the disk's space"
        ) from error
    return path


def load_result(folder: str | Path, name: str) -> str | None:
    """The text of such a file, or None where there is none. `folder` may be a file inside, too.

    Raises RecordError when it is there and can't be read.
    """
    path = _result_path(folder, name)
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} can't be read ({error})", "delete it and make it again") from error


def _result_path(folder: str | Path, name: str) -> Path:
    if not name or name in (".", "..") or Path(name).name != name:
        raise ValueError(f"{name!r} is not a plain file name")
    base = Path(folder)
    return (base.parent if base.is_file() else base) / name
