"""Parquet files, by pyarrow (the extra `parquet`), in groups of rows."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from unvanish.export.files import check_folder, whole
from unvanish.export.tables import Table

ROWS_AT_ONCE = 65_536
_TYPES = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}


def write_parquet(tables: Iterable[Table], folder: Path) -> list[Path]:
    """NAME.parquet for every table. null was not measured; NaN and Inf were."""
    check_folder(folder)
    written = []
    for table in tables:
        path = folder / f"{table.name}.parquet"
        with whole(path) as part:
            _write(table, part)
        written.append(path)
    return written


def _write(table: Table, path: Path) -> None:
    schema = pa.schema([pa.field(name, _TYPES[kind]) for name, kind in table.columns])
    rows = table.rows()
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROWS_AT_ONCE)):
            columns = zip(*group, strict=True)
            arrays = [
                pa.array([_clean(v) for v in column], type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _clean(value: Any) -> Any:
    """Half a surrogate pair (of a file name that is no UTF-8) can't be in a Parquet text."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
