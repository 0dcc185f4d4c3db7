"""Opening a record to read: finds the file, says what is wrong with it, never blocks or changes it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from unvanish.errors import RecordError
from unvanish.store.layout import APPLICATION_ID, FILE_NAME, SCHEMA_VERSION

_MAGIC = b"SQLite format 3\x00"
_WAIT_SECONDS = 5.0  # only where the file system forced the older journal, or while the writer closes


def record_file(path: str | Path) -> Path:
    """The record's file for a run's folder, or for any file inside of it. Raises RecordError."""
    given = Path(path)
    if not given.exists():
        raise RecordError(f"there is no run at {given}", "give the folder that 'unvanish run' printed")
    if given.is_file() and given.suffix == ".json" and (given.parent / FILE_NAME).is_file():
        given = given.parent  # diagnosis.json and the like mean the run beside them
    file = given / FILE_NAME if given.is_dir() else given
    if not file.is_file():
        inside = sorted(p.parent.name for p in given.glob(f"*/{FILE_NAME}"))
        mend = f"it holds runs, give one of them: {given / inside[-1]}" if inside else "give a run's folder"
        raise RecordError(f"the folder {given} holds no run", mend)
    return file


def wal_file(file: Path) -> Path:
    """Where SQLite keeps what is not yet in the file itself."""
    return file.with_name(file.name + "-wal")


@contextlib.contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """One consistent view of the record, even while it is written. SQLite's errors become RecordErrors."""
    try:
        _check_header(file)
        with contextlib.ExitStack() as stack:
            connection = _connect(file, stack)
            _check_ours(connection, file)
            yield connection
    except sqlite3.Error as error:
        raise _explained(error, file) from error
    except OSError as error:
        raise RecordError(f"{file} can't be read ({error.strerror})", "check that you may read it") from error


def _connect(file: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    try:
        return _begin(file, stack)
    except sqlite3.OperationalError as error:
        said = str(error)
        if "unable to open" not in said and "readonly" not in said:
            raise
    # A run that was cut off, in a place where we may not write: SQLite needs to, to read what is in the -wal.
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unvanish-")))
    for part in (file, wal_file(file)):
        if part.exists():
            shutil.copyfile(part, folder / part.name)
    return _begin(folder / file.name, stack)


def _begin(file: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{file.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=_WAIT_SECONDS
    )
    stack.callback(connection.close)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the view
    return connection


def _check_header(file: Path) -> None:
    """Tell a foreign and a cut file by its first hundred bytes, before SQLite speaks of malformed images."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        header = opened.read(100)
    if size == 0:
        raise RecordError(f"{file} is empty", "nothing was recorded; run the script again")
    if header[:16] != _MAGIC[: len(header[:16])]:
        raise RecordError(f"{file} is not a run of unvanish", "give the folder that 'unvanish run' printed")
    page = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    if len(header) < 100 or (size < pages * (65536 if page == 1 else page) and not wal_file(file).exists()):
        raise _truncated(file)


def _check_ours(connection: sqlite3.Connection, file: Path) -> None:
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if identity == 0 and tables == 0:
        raise RecordError(f"{file} holds nothing yet", "wait until the run has begun, or start it again")
    if identity != APPLICATION_ID:
        raise RecordError(
            f"{file} is an SQLite file, but not a run of unvanish",
            "give the folder that 'unvanish run' printed",
        )
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{file} was written by a newer unvanish (format {version}, this one reads {SCHEMA_VERSION})",
            "upgrade unvanish",
        )


def _truncated(file: Path) -> RecordError:
    return RecordError(
        f"{file} is damaged: a part of it is missing",
        "copy it again with its -wal file beside it; 'sqlite3 FILE .recover' may save a part",
    )


def _explained(error: sqlite3.Error, file: Path) -> RecordError:
    said = str(error)
    if "malformed" in said or "not a database" in said:
        return _truncated(file)
    if "locked" in said:
        return RecordError(f"{file} is locked by another program", "close that program and try again")
    return RecordError(f"{file} can't be read ({said})", "check that it is whole and that you may read it")
