"""The one place that puts something in the place of nn.Module.__call__, for all watches of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from torch import nn


class Layer(Protocol):
    """Who wants to see module calls."""

    asides: int  # how many want torch's own nn.Module.__call__ just now

    def over(self, original: Callable[..., Any], live: Callable[[], bool]) -> Callable[..., Any]:
        """A stand-in around `original`; once `live()` is no more, it must do nothing but call that."""
        ...


class Layers:
    """Stand-ins, one over the other, built anew whenever one comes or goes: so the order does not matter.

    What someone else has put over ours stays where it is; what is left below it then does nothing.
    """

    def __init__(self) -> None:
        """None at first: torch's own is in its place."""
        self._layers: list[Layer] = []
        self._below: Callable[..., Any] | None = None  # what was there before ours
        self._ours: Callable[..., Any] | None = None
        self._generation = 0
        self._lock = threading.RLock()

    def add(self, layer: Layer) -> None:
        """Put it over those that are there."""
        with self._lock:
            self._layers.append(layer)
            self.refresh()

    def remove(self, layer: Layer) -> None:
        """Take it away, wherever it is."""
        with self._lock:
            if any(one is layer for one in self._layers):
                self._layers = [one for one in self._layers if one is not layer]
                self.refresh()

    def forked(self) -> None:
        """In a child process: another thread of the parent's may have held the lock."""
        self._lock = threading.RLock()

    def refresh(self) -> None:
        """Make nn.Module.__call__ what it has to be now."""
        with self._lock:
            below: Callable[..., Any] = nn.Module.__call__
            if self._ours is not None and self._below is not None and below is self._ours:
                below = self._below
            self._generation += 1
            mine, made = self._generation, below
            if not any(layer.asides for layer in self._layers):
                for layer in self._layers:
                    made = layer.over(made, lambda: self._generation == mine)
            self._below, self._ours = (below, made) if made is not below else (None, None)
            if nn.Module.__call__ is not made:
                nn.Module.__call__ = made  # type: ignore[method-assign]


LAYERS = Layers()
