"""A net as units and the derivatives between them: what paths run through, in plain numpy.

A *place* is one output of one operation. Its values are held as [S, n]: S samples that do not touch one another, n
units of each. A *link* leads from a place towards the loss, to the place of an operation that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LinkKind = Literal["each", "chosen", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The derivatives of the units of place `child` by those of place `parent`.

    kind `each`: unit by unit, [S, n]. `chosen`: parent's unit u is child's unit `units[u]` as it is (-1: nowhere).
    `full`: [S, m, n], or [1, m, n] where they are the same for all samples.
    """

    parent: int
    child: int
    kind: LinkKind
    values: Array
    units: NDArray[np.int64] | None = None

    def back(self, signal: Array) -> Array:
        """What a signal [S, m] at the child is at the parent."""
        if self.units is not None:
            return taken(signal, self.units)
        if self.kind == "each":
            return np.asarray(signal * self.values)
        if len(self.values) == 1:
            return np.asarray(signal @ self.values[0])
        return np.asarray(np.einsum("sk,skn->sn", signal, self.values))

    def absolute(self) -> Link:
        """The same with the sizes of the derivatives."""
        return Link(
            parent=self.parent, child=self.child, kind=self.kind, values=np.abs(self.values), units=self.units
        )

    def best(self, most: Array) -> Array:
        """Per parent's unit and sample, the largest size of derivative x `most` [S, m]."""
        if self.kind != "full":
            return self.absolute().back(most)
        out = np.empty((len(most), self.values.shape[2]))
        for s in range(len(most)):
            sizes = np.abs(self.values[s if len(self.values) > 1 else 0])
            out[s] = (sizes * most[s][:, None]).max(0)
        return out

    def counts(self, paths: Array) -> Array:
        """How many paths there are from each of the parent's units, given those from each of the child's."""
        if self.units is not None:
            return np.asarray(taken(paths[None], self.units)[0])
        if self.kind == "each":
            return np.asarray(np.where((self.values != 0).any(0), paths, 0.0))
        return np.asarray(paths @ (self.values != 0).any(0))

    def onward(self, unit: int, at: Array) -> tuple[NDArray[np.int64], Array]:
        """(the child's units that `unit` leads to, `at` [S] times the derivatives: [S, as many])."""
        if self.units is not None:
            to = self.units[unit : unit + 1]
            return to[to >= 0], at[:, None] * np.ones((1, int((to >= 0).sum())))
        if self.kind == "each":
            return np.array([unit]), (at * self.values[:, unit])[:, None]
        return np.arange(self.values.shape[1]), at[:, None] * self.values[:, :, unit]

    def derivative(self, parent_unit: int, child_unit: int) -> Array:
        """By sample, or one number for all."""
        if self.units is not None:
            return np.ones(1)
        if self.kind == "each":
            return np.asarray(self.values[:, parent_unit])
        return np.asarray(self.values[:, child_unit, parent_unit])


@dataclass(slots=True, kw_only=True)
class Place:
    """One output of one operation. `end`: what the loss hands to it directly, [S, n] (None: nothing)."""

    operation: int
    shape: tuple[int, ...]
    end: Array | None = None
    onward: list[Link] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Net:
    """Places in execution order, and where the weight enters: `starts` has dz/dw at places, [S, n] each."""

    samples: int
    places: list[Place]
    starts: dict[int, Array]


def taken(signal: Array, units: NDArray[np.int64]) -> Array:
    """Columns of a signal; 0 for unit -1."""
    out: Any = np.where(units >= 0, signal[:, np.maximum(units, 0)], 0.0)
    return np.asarray(out)
