"""Where the script itself goes through a model's parts before it trains: to initialise them, to load, to pick one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from unvanish.treatment.patch.facts import Site
from unvanish.treatment.patch.places import Places

_METHODS = (
    "parameters", "named_parameters", "children", "named_children", "modules", "named_modules", "apply",
    "load_state_dict",
)  # fmt: skip
_CONTAINERS = (nn.Sequential, nn.ModuleList)
_LIMIT = 10_000


class Walks:
    """Notes these calls where the user's own code makes them."""

    def __init__(self, places: Places) -> None:
        """Nothing is wrapped before `at_work`."""
        self._places = places
        self.found: list[tuple[nn.Module, str, Site, int]] = []
        self.optimizers = 0  # that were built so far

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts, the methods of torch.nn note who calls them."""
        originals: list[tuple[type[nn.Module], str, Any]] = []
        for owner, names in ((nn.Module, _METHODS), *((c, ("__iter__", "__getitem__")) for c in _CONTAINERS)):
            for name in names:
                originals.append((owner, name, owner.__dict__[name]))
                setattr(owner, name, self._noting(owner.__dict__[name], name))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def _noting(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def walk(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            site = self._places.site(sys._getframe(1)) if len(self.found) < _LIMIT else None
            if site is not None:
                self.found.append((module, name, site, self.optimizers))
            return original(module, *args, **kwargs)

        return walk
