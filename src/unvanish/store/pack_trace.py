"""One traced backward pass as a few arrays, and back: the row of traces_packed, and those of through_time.

Arrays are little-endian, one after the other; n operations, in the order of the trace:
`integers` int64 [8 x n]: operation, count, zeros, nonfinite, output_count, units, closed_units, sampled (-1 = None)
`floats` float64 [6 x n]: norm, absmax, output_std, output_rms, total, output_mean; where it was measured (`unvanish
explain` does) a seventh row, bound; `unknown` uint8 of the same size: 1 = None
`lengths` int32 [3 x n]: how many edge norms, parameter norms and exponent counts the operation has
`edges` float64: the edge norms of all operations, then the parameter norms; `edges_unknown` uint8: 1 = None
`exponents`: int64 counts of all operations, packed by zlib (nearly all are zero)
`unit_bits`: those of all operations, with a blank between
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.columns import from_columns
from unvanish.schema.graph import OperationStats, ThroughTime, Trace
from unvanish.store.encode import Row, text, untext

_INTEGERS = ("operation", "count", "zeros", "nonfinite", "output_count", "units", "closed_units", "sampled")
_FLOATS = ("norm", "absmax", "output_std", "output_rms", "total", "output_mean", "bound")
_LISTS = ("edge_norms", "parameter_norms", "exponents")
_NAMES = (*_INTEGERS, *_FLOATS, *_LISTS, "unit_bits")
_NONE = -1  # no count is negative


def pack_trace(number: int, trace: Trace) -> tuple[Any, ...]:
    """The row of traces_packed, in the order of layout.TABLES."""
    stats = trace.stats
    integers = [_NONE if v is None else v for name in _INTEGERS for v in map(attrgetter(name), stats)]
    names = _FLOATS if any(s.bound is not None for s in stats) else _FLOATS[:-1]
    floats = [v for name in names for v in map(attrgetter(name), stats)]
    edges = [*chain.from_iterable(s.edge_norms for s in stats)]
    edges += chain.from_iterable(s.parameter_norms for s in stats)
    lengths = [len(part) for name in _LISTS for part in map(attrgetter(name), stats)]
    exponents = array("q", chain.from_iterable(s.exponents for s in stats))
    packed = zlib.compress(_little(exponents, "<i8").tobytes(), 1) if exponents else b""
    bits = " ".join(s.unit_bits for s in stats).encode()
    head = (number, len(stats), _little(array("q", integers), "<i8"), *_known(floats))
    return (*head, _little(array("i", lengths), "<i4"), *_known(edges), packed, bits)


def unpack_trace(row: Sequence[Any]) -> tuple[OperationStats, ...]:
    """The operations of a row of traces_packed."""
    n = row[1]
    if not n:
        return ()
    integers = [
        [None if v == _NONE else v for v in column] if _NONE in column else column
        for column in np.frombuffer(row[2], "<i8").reshape(-1, n).tolist()
    ]
    flat = _with_none(row[3], row[4])
    nothing: list[float | None] = [None] * n
    floats = [flat[i * n : (i + 1) * n] or nothing for i in range(len(_FLOATS))]
    lengths = np.frombuffer(row[5], "<i4").reshape(3, n)
    edges = _with_none(row[6], row[7])
    ahead = int(lengths[0].sum())
    counts = np.frombuffer(zlib.decompress(row[8]), "<i8") if row[8] else np.zeros(0, np.int64)
    lists = (_cut(edges[:ahead], lengths[0]), _cut(edges[ahead:], lengths[1]), _cut(counts, lengths[2]))
    bits = row[9].decode().split(" ")
    columns = dict(zip(_NAMES, (*integers, *floats, *lists, bits), strict=True))
    return from_columns(OperationStats, n, columns)


def pack_through_time(number: int, trace: Trace) -> list[Row]:
    """The rows of through_time, in the order of layout.TABLES."""
    return [
        (
            *(number, i, text(t.module), t.call, t.layer, int(t.reverse), t.samples),
            np.array(t.norms, "<f8").tobytes(),
        )
        for i, t in enumerate(trace.through_time)
    ]


def unpack_through_time(rows: Sequence[Row]) -> tuple[ThroughTime, ...]:
    """The inverse."""
    return tuple(
        ThroughTime(
            module=untext(module),
            layer=layer,
            reverse=bool(reverse),
            norms=tuple(np.frombuffer(norms, "<f8").tolist()),
            call=call,
            samples=samples,
        )
        for _, _, module, call, layer, reverse, samples, norms in rows
    )


class _Counts(Sequence[int]):
    """A histogram as a row of a table, equal to the tuple of its counts.

    Those of a trace are hundreds of thousands of numbers, which are seldom asked for.
    """

    __slots__ = ("_row", "_table")

    def __init__(self, table: NDArray[np.integer[Any]], row: int) -> None:
        self._table, self._row = table, row

    def _tuple(self) -> tuple[int, ...]:
        return tuple(self._table[self._row].tolist())

    def __len__(self) -> int:
        return int(self._table.shape[1])

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[int, ...]: ...

    def __getitem__(self, at: int | slice) -> int | tuple[int, ...]:
        return self._tuple()[at]

    def __iter__(self) -> Iterator[int]:
        return iter(self._tuple())

    def __eq__(self, other: object) -> bool:
        return self._tuple() == (other._tuple() if isinstance(other, _Counts) else other)

    def __hash__(self) -> int:
        return hash(self._tuple())

    def __repr__(self) -> str:
        return repr(self._tuple())


def _cut(values: Any, lengths: NDArray[np.int32]) -> Sequence[Sequence[Any]]:
    """A row of numbers in pieces of these lengths."""
    if isinstance(values, np.ndarray):
        width = len(values) // len(lengths)
        if (lengths == width).all():  # the usual case, a histogram each
            if not width:
                return [()] * len(lengths)
            # a quarter of the bytes, as a rule
            kind = np.min_scalar_type(int(values.max())) if values.min() >= 0 else values.dtype
            table = values.astype(kind).reshape(-1, width)
            return list(map(_Counts, repeat(table), range(len(lengths))))
        values = values.tolist()
    ends = np.cumsum(lengths).tolist()
    return [tuple(values[end - length : end]) for end, length in zip(ends, lengths.tolist(), strict=True)]


def norms_of(trace: Trace) -> NDArray[np.float64]:
    """The L2 norms of the operations, to compare one trace with the next."""
    return np.array([s.norm for s in trace.stats], np.float64)


def _little(values: array[Any], kind: str) -> NDArray[Any]:
    return np.frombuffer(values, values.typecode).astype(kind, copy=False)


def _known(values: list[float | None]) -> tuple[NDArray[Any], bytes]:
    """The numbers, NaN for None, and 1 for each None."""
    numbers = array("d", [math.nan if v is None else v for v in values])
    return _little(numbers, "<f8"), bytes([v is None for v in values])


def _with_none(numbers: bytes | None, unknown: bytes | None) -> list[float | None]:
    """The inverse of `_known`."""
    values: list[float | None] = np.frombuffer(numbers or b"", "<f8").tolist()
    if any(unknown or b""):
        return [None if gone else v for v, gone in zip(values, unknown or b"", strict=True)]
    return values
