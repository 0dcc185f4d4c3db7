"""All paths of a net added up, and the strongest of them one by one."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np

from unvanish.paths.net import Array, Link, Net

MOST_LOOKS = 20_000  # partial paths that are carried on
DIVES = 64  # of the best partial paths, carried to their ends when that many did not settle it


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Per place: sums over all paths from there to the loss.

    `signed` [S, n] is the gradient itself, `absolute` the sum of sizes, `most` the largest size, `paths` [n] their
    number.
    """

    signed: list[Array]
    absolute: list[Array]
    most: list[Array]
    paths: list[Array]


def totals_of(net: Net) -> Totals:
    """From the loss backwards, place by place."""
    size = len(net.places)
    out = Totals(
        signed=[np.zeros(0)] * size,
        absolute=[np.zeros(0)] * size,
        most=[np.zeros(0)] * size,
        paths=[np.zeros(0)] * size,
    )
    for at in range(size - 1, -1, -1):
        place = net.places[at]
        units = int(np.prod(place.shape)) // net.samples
        end = np.zeros((net.samples, units)) if place.end is None else place.end
        signed, absolute, most = end.copy(), np.abs(end), np.abs(end)
        paths = (end != 0).any(0).astype(np.float64)
        for link in place.onward:
            signed += link.back(out.signed[link.child])
            absolute += link.absolute().back(out.absolute[link.child])
            most = np.maximum(most, link.best(out.most[link.child]))
            paths += link.counts(out.paths[link.child])
        out.signed[at], out.absolute[at], out.most[at], out.paths[at] = signed, absolute, most, paths
    return out


@dataclass(frozen=True, slots=True)
class Partial:
    """A path from the weight up to a unit: `value` [S] is the product so far."""

    before: Partial | None
    link: Link | None
    place: int
    unit: int
    value: Array


@dataclass(frozen=True, slots=True)
class Complete:
    """A path from the weight to the loss."""

    last: Partial
    product: float  # summed over the samples


class _Best:
    """The strongest complete paths so far."""

    def __init__(self, net: Net, wanted: int) -> None:
        self.net = net
        self.wanted = wanted
        self.held: list[tuple[float, int, Complete]] = []  # the smallest first
        self.ties = count()

    @property
    def floor(self) -> float:
        """What a path has to be larger than."""
        return self.held[0][0] * (1 + 1e-12) if len(self.held) == self.wanted else 0.0

    def finish(self, partial: Partial) -> None:
        """Take a path that ends here, where the loss hands something to this place."""
        end = self.net.places[partial.place].end
        if end is None:
            return
        product = float((partial.value * end[:, partial.unit]).sum())
        if abs(product) > self.floor:
            entry = (abs(product), next(self.ties), Complete(partial, product))
            if len(self.held) == self.wanted:
                heapq.heapreplace(self.held, entry)
            else:
                heapq.heappush(self.held, entry)

    @property
    def ranked(self) -> list[Complete]:
        """The largest first."""
        return [complete for _, _, complete in sorted(self.held, key=lambda e: -e[0])]


def strongest(net: Net, totals: Totals, wanted: int) -> tuple[list[Complete], bool]:
    """The `wanted` paths with the largest product, and whether it is sure that there is no larger one.

    Best first, by the most that a partial path can still come to: of one sample that is exact, so that nothing is
    looked at in vain. Of several, whose products may cancel, it is an upper bound.
    """
    best = _Best(net, wanted)
    heap: list[tuple[float, int, Partial]] = []
    for place, values in net.starts.items():
        for unit in np.flatnonzero((values != 0).any(0)):
            value = values[:, unit]
            bound = float(np.abs(value) @ totals.most[place][:, unit])
            heapq.heappush(heap, (-bound, next(best.ties), Partial(None, None, place, int(unit), value)))
    looks = 0
    while heap and looks < MOST_LOOKS and -heap[0][0] > best.floor:
        _, _, partial = heapq.heappop(heap)
        looks += 1
        best.finish(partial)
        for child, most in _carried_on(net, totals, partial):
            if most > best.floor:
                heapq.heappush(heap, (-most, next(best.ties), child))
    for _, _, partial in heapq.nsmallest(DIVES, heap):
        _dive(net, totals, partial, best.finish)
    return best.ranked, not heap or -heap[0][0] <= best.floor


def _carried_on(net: Net, totals: Totals, partial: Partial) -> list[tuple[Partial, float]]:
    out: list[tuple[Partial, float]] = []
    for link in net.places[partial.place].onward:
        units, values = link.onward(partial.unit, partial.value)
        if not len(units):
            continue
        bounds = (np.abs(values) * totals.most[link.child][:, units]).sum(0)
        out += [
            (Partial(partial, link, link.child, int(units[i]), values[:, i]), float(bounds[i]))
            for i in np.flatnonzero(bounds > 0)
        ]
    return out


def _dive(net: Net, totals: Totals, partial: Partial, finish: Callable[[Partial], None]) -> None:
    while True:
        finish(partial)
        onward = _carried_on(net, totals, partial)
        if not onward:
            return
        partial = max(onward, key=lambda o: o[1])[0]
