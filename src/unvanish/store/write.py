"""The writing side of the record. Each write is one transaction: what it returned from survives kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from unvanish.errors import RecordError
from unvanish.schema.run import Event, RunInfo, RunStatus
from unvanish.store.alive import process_started, this_host
from unvanish.store.encode import Batch, Row, encode, place_rows, text
from unvanish.store.ladder import Limits
from unvanish.store.layout import FILE_NAME, TABLES, create_statements
from unvanish.store.packed import Packed

# Rows go in by statements of many rows: sqlite3 lets go of the interpreter's lock once a statement, and a
# thread that asks for it back from a busy training loop may wait 5 ms each time (sys.getswitchinterval).
_ROWS_PER_STATEMENT = (64, 8, 1)
# Blocks of 256 kB are chains of pages: at 4 kB a page, and checkpoints at 4 MB, writing them took twice as long.
_PAGE_BYTES = 8192
_WAL_BYTES = 16 * 1024**2
_MOST_VARIABLES = 999  # of one statement, in the oldest SQLite that Python 3.10 builds against


class RunWriter:
    """Writes one run into its folder. Safe to call from any thread; does nothing in a forked child."""

    def __init__(self, folder: str | Path, info: RunInfo, *, limits: Limits | None = None) -> None:
        """Make the folder and the empty record. `limits`: how much is kept whole before old steps are thinned.

        Raises RecordError when the folder can't be made or written, or holds a run already.
        """
        self.folder = Path(folder)
        self.path = self.folder / FILE_NAME
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._next_trace = 0
        self._packed = Packed(limits or Limits())
        self._closed = False
        _make_folder(self.folder)
        if self.path.exists():
            raise RecordError(f"{self.folder} already holds a run", "choose another folder for this one")
        with _explained(self.path):
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                self._begin_record(info)
            except BaseException:
                self._connection.close()
                raise

    def _begin_record(self, info: RunInfo) -> None:
        # WAL: readers never wait for us nor we for them. NORMAL: a commit waits for no disk; a killed
        # process loses nothing, a power cut at most what was not yet checkpointed. Where the file system
        # has no shared memory (some network disks), SQLite keeps its older journal and all still works.
        self._connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        with contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_BYTES // _PAGE_BYTES}")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA busy_timeout = 5000")
        with self._transaction():
            for statement in create_statements():
                self._connection.execute(statement)
            self._insert("run", [_run_row(info)])
            if info.rank is not None:
                self._insert("extra", place_rows(info.rank, info.ranks))

    def write(self, events: Iterable[Event], *, dropped: int = 0) -> None:
        """Add events in their order, all or none. `dropped` counts events that were given up before this.

        Raises RecordError when the disk is full or fails; nothing of this call is in the record then, and
        the same events may be offered again.
        """
        if os.getpid() != self._pid:
            return
        with self._lock, _explained(self.path):
            if self._closed:
                raise RecordError(f"the record {self.path} is closed", "write before close")
            batch = encode(events, self._next_trace)
            packed = self._packed.copy()
            with self._transaction():
                packed.write(self._connection, batch)
                self._write_batch(batch)
                packed.thin(self._connection)
                if dropped:
                    self._connection.execute("UPDATE run SET events_dropped = events_dropped + ?", (dropped,))
            self._next_trace = batch.next_trace
            self._packed = packed

    def note(self, key: str, value: str) -> None:
        """Keep a short text with the run (Run.extra); the last one with a key counts."""
        if os.getpid() != self._pid:
            return
        with self._lock, _explained(self.path), self._transaction():
            self._insert("extra", [(text(key), text(value))])

    def close(self, status: RunStatus, message: str | None = None) -> None:
        """Write the end and leave one single file. A second close does nothing.

        Raises RecordError when the end can't be written; the file is closed and readable all the same.
        """
        if os.getpid() != self._pid:
            return
        with self._lock, _explained(self.path):
            if self._closed:
                return
            self._closed = True
            try:
                with self._transaction():
                    self._connection.execute(
                        "UPDATE run SET status = ?, ended = ?, message = ?",
                        (status, datetime.now(timezone.utc).isoformat(timespec="seconds"), text(message)),
                    )
                self._leave_one_file()
            finally:
                self._connection.close()

    def _leave_one_file(self) -> None:
        # Both need a moment without readers. With one there, the -wal file stays and is read along with ours.
        self._connection.execute("PRAGMA busy_timeout = 500")
        with contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("PRAGMA journal_mode = DELETE")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk may have rolled back by itself
                self._connection.execute("ROLLBACK")
            raise

    def _write_batch(self, batch: Batch) -> None:
        for model in batch.models:
            for table in ("parameters", "optimizers"):
                self._connection.execute(f"DELETE FROM {table} WHERE model = ?", (model,))  # noqa: S608 - ours
        for model in batch.architectures:
            self._connection.execute("DELETE FROM layers WHERE model = ?", (model,))
        for model, key in batch.graphs:
            self._connection.execute(
                "DELETE FROM operations WHERE model = ? AND graph = ?", (model, text(key))
            )
        for table, rows in batch.rows.items():
            self._insert(table, rows)

    def _insert(self, table: str, rows: list[Row]) -> None:
        width = len(TABLES[table])
        one = f"({', '.join('?' * width)})"
        start = 0
        for most in _ROWS_PER_STATEMENT:
            size = min(most, _MOST_VARIABLES // width)
            statement = f"INSERT OR REPLACE INTO {table} VALUES {', '.join([one] * size)}"  # noqa: S608 - ours
            while len(rows) - start >= size:
                values = [value for row in rows[start : start + size] for value in row]
                self._connection.execute(statement, values)
                start += size


def _run_row(info: RunInfo) -> Row:
    return (
        *(text(info.id), text(info.created), json.dumps(info.command), text(info.script)),
        *(None if info.seed is None else str(info.seed), json.dumps(info.versions), text(info.device)),
        *(info.pid, this_host(), process_started(info.pid), None, None, None, 0),
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RecordError(
            f"{folder} can't be made: a file is in the way", "name a folder that can be made"
        ) from None
    except OSError as error:
        raise RecordError(
            f"the folder {folder} can't be made ({error.strerror})",
            "name one that you may write to, with --out",
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RecordError(f"the folder {folder} is not writable", "name one that you may write to with --out")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into a mistake and a mend."""
    try:
        yield
    except sqlite3.Error as error:
        said = str(error)
        if "full" in said:
            raise RecordError(f"the disk is full: {path} can't be written", "free some space") from error
        if "I/O" in said:
            raise RecordError(
                f"the disk refused a write to {path} ({said})", "check its space, quota and health"
            ) from error
        if "readonly" in said or "unable to open" in said:
            raise RecordError(f"{path} is not writable ({said})", "name another folder with --out") from error
        raise RecordError(f"{path} can't be written ({said})", "name another folder with --out") from error
