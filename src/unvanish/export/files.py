"""CSV files and one JSON file, row by row: a run of any length takes no more memory than its record."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unvanish.errors import RecordError, UsageError
from unvanish.export.tables import Row, Table, Value
from unvanish.schema.run import Run

SCHEMA_VERSION = 1
# spreadsheets read a cell that begins so as a formula (OWASP, CSV injection), with their wide twins
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def write_csv(tables: Iterable[Table], folder: Path) -> list[Path]:
    """NAME.csv for every table. Text that a spreadsheet would run as a formula gets a ' before it.

    An empty cell was not measured; nan, inf and -inf were.
    """
    return [_into(folder, f"{table.name}.csv", lambda path, t=table: _csv(t, path)) for table in tables]  # type: ignore[misc]


def write_json(run: Run, tables: Iterable[Table], path: Path) -> Path:
    """One object: where the run came from, and a list of records for every table.

    null was not measured; what JSON has no number for are the texts "nan", "inf" and "-inf".
    """
    head = {
        "schema": SCHEMA_VERSION,
        "run": {
            "id": run.info.id,
            "created": run.info.created,
            "status": run.status,
            "script": run.info.script,
            "seed": run.info.seed,
            "device": run.info.device,
            "versions": run.info.versions,
        },
    }
    return _into(path.parent, path.name, lambda part: _json(head, tables, part))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write to that becomes `path` when all went well, and is gone when it did not. RecordError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise RecordError(
            f"{path} can't be written ({str(error.strerror or error).lower()})",
            "name another place with -o, or make room there",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def check_folder(folder: Path) -> None:
    """UsageError where a file is in the way."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and a folder is needed", "name a folder with -o")


def _into(folder: Path, name: str, write: Callable[[Path], None]) -> Path:
    check_folder(folder)
    with whole(folder / name) as part:
        write(part)
    return folder / name


def _csv(table: Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.names)
        writer.writerows(_cells(row) for row in table.rows())


def _cells(row: Row) -> list[Value]:
    return [harmless(value) if isinstance(value, str) else value for value in row]


def harmless(text: str) -> str:
    """The text, such that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) or text.startswith("'") else text


def _json(head: dict[str, Any], tables: Iterable[Table], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(head, allow_nan=False)[:-1])
        for table in tables:
            file.write(f",\n{json.dumps(table.name)}: [")
            for number, row in enumerate(table.rows()):
                record = {name: _number(value) for name, value in zip(table.names, row, strict=True)}
                file.write(f"{',' if number else ''}\n{json.dumps(record, allow_nan=False)}")
            file.write("]")
        file.write("}\n")


def _number(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
