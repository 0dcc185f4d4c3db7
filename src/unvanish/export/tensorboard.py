"""TensorBoard's event files, written by hand: a record is a length, a checksum, an Event message, a checksum.

Format: tensorflow/core/lib/io/record_writer.h and the messages of tensorflow/core/util/event.proto. A few fields of
three messages are all that is needed, and the package that writes them brings a dozen others along.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from unvanish.export.files import check_folder, whole
from unvanish.export.tables import Row, Table
from unvanish.schema.run import Run

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types of protocol buffers
_TEXT = 7  # DT_STRING
_MASK = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected

Scalar = tuple[int, str, float]  # step, tag, value


def write_events(run: Run, tables: tuple[Table, ...], folder: Path) -> Path:
    """One event file in `folder`, the same name for the same run: exported again, it is replaced and not doubled.

    Scalars by step: MODEL/loss, MODEL/learning_rate, MODEL/signal/LAYER (log10; an exact zero is left out, as there
    is no number for it), MODEL/STATISTIC/PARAMETER. Findings as text.
    """
    check_folder(folder)
    began = _seconds(run.info.created)
    path = folder / f"events.out.tfevents.{int(began):010d}.unvanish"
    clock = {(m.info.name, s): began + t for m in run.models for s, t in zip(m.steps, m.seconds, strict=True)}
    with whole(path) as part, part.open("wb") as file:
        _record(file, _double(1, began) + _text(3, "brain.Event:2"))
        for table in tables:
            if table.name == "findings":
                _findings(file, table, began)
                continue
            for (model, step), values in groupby(_scalars(table), key=lambda s: (s[0], s[1][0])):
                when = clock.get((model, step), began)
                summary = b"".join(_value(tag, value) for _, (_, tag, value) in values)
                _record(file, _double(1, when) + _integer(2, step) + _bytes(5, summary))
    return path


def _scalars(table: Table) -> Iterator[tuple[str, Scalar]]:
    """(model, scalar) of a table's rows; rows of one step stand together."""
    for row in table.rows():
        for tag, value in _tagged(table.name, row):
            if isinstance(value, int | float) and value != -math.inf:
                yield str(row[0]), (int(row[1] or 0), f"{row[0]}/{tag}", float(value))


def _tagged(table: str, row: Row) -> tuple[tuple[str, object], ...]:
    if table == "steps":
        return ("loss", row[3]), ("learning_rate", row[4])
    if table == "parameters":
        return ((f"{row[4]}/{row[3]}", row[5]),)
    if table == "signal" and row[2] == 0:  # of several backward passes of a step, the first
        return ((f"signal/{row[3]}", row[5]),)
    return ()


def _findings(file: BinaryIO, table: Table, began: float) -> None:
    for row in table.rows():
        told = dict(zip(table.names, row, strict=True))
        text = f"{told['severity']}: {told['kind']} ({told['cause']}). {told['summary']}"
        tensor = _integer(1, _TEXT) + _bytes(8, text.encode("utf-8", "backslashreplace"))
        plugin = _bytes(1, _bytes(1, b"text"))
        tag = _text(1, f"{told['model']}/findings/{told['kind']}")
        value = tag + _bytes(8, tensor) + _bytes(9, plugin)
        step = int(told["first_step"] or 0)
        _record(file, _double(1, began) + _integer(2, step) + _bytes(5, _bytes(1, value)))


def _value(tag: str, value: float) -> bytes:
    """A Summary.Value, as a field of its Summary. What float32 can't hold becomes infinite there."""
    return _bytes(1, _text(1, tag) + _key(2, _FLOAT) + _float(value))


def _float(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, value))


def _seconds(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0


# --- protocol buffers -----------------------------------------------------------------------------------------


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _integer(field: int, number: int) -> bytes:
    return _key(field, _VARINT) + _varint(number)


def _double(field: int, number: float) -> bytes:
    return _key(field, _DOUBLE) + struct.pack("<d", number)


def _bytes(field: int, data: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode("utf-8", "backslashreplace"))


# --- records --------------------------------------------------------------------------------------------------


def _record(file: BinaryIO, data: bytes) -> None:
    length = struct.pack("<Q", len(data))
    file.write(length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data)))


def _masked(data: bytes) -> int:
    """The checksum as the format keeps it: turned, and a constant added, so that it may be checked again itself."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, appendix B.4)."""
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)  # noqa: PLW2901 - shifted on
        table.append(crc)
    return tuple(table)


_TABLE = _table()
