"""Columns as the nouns hold them: the stdlib's arrays, made of numpy's."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Statistics:
    """What ModelRun has of the parameters, and the steps at which pieces of them were missing (merged ranks)."""

    steps: array[int]
    until: array[int]
    means: Mapping[str, array[float]]
    extremes: Mapping[str, tuple[array[float], array[float]]]
    estimated: array[int] = field(default_factory=lambda: array("q"))


def as_array(kind: str, values: NDArray[Any]) -> array[Any]:
    """A copy as an array of this type code."""
    made: array[Any] = array(kind)
    made.frombytes(np.ascontiguousarray(values, kind).tobytes())
    return made
