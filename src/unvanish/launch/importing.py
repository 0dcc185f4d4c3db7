"""At the moment of an import: to watch, or to seed, when the script itself imports torch, not before."""

from __future__ import annotations

import importlib.machinery
import os
import random
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class _ImportWatch:
    """A finder that finds nothing itself: it calls back right after a module's own code has run."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Callable[[], None]]] = {}
        self.owner = os.getpid()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The other finders' spec, its loader told to call back once."""
        if name not in self.waiting or os.getpid() != self.owner:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._tell(spec)
                return spec
        return None

    def _tell(self, spec: importlib.machinery.ModuleSpec) -> None:
        # on the one loader object, and gone before the module's code runs: no wrapper stays to be seen
        loader = spec.loader
        if loader is None or not hasattr(loader, "__dict__"):
            return

        def exec_module(module: types.ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            loader.exec_module(module)
            self.fire(spec.name)

        vars(loader)["exec_module"] = exec_module

    def fire(self, name: str) -> None:
        """Call back, and leave sys.meta_path when nobody waits any more."""
        callbacks = self.waiting.pop(name, [])
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
        if os.getpid() == self.owner:
            for callback in callbacks:
                callback()


def when_imported(name: str, callback: Callable[[], None]) -> None:
    """Call back once, right after module `name` was imported by anyone; at once if it is there already.

    In this process only, not in forked children. What the callback raises comes out of the import statement.
    """
    if name in sys.modules:
        callback()
        return
    watch = next((finder for finder in sys.meta_path if isinstance(finder, _ImportWatch)), None)
    if watch is None:
        watch = _ImportWatch()
        sys.meta_path.insert(0, watch)
    watch.waiting.setdefault(name, []).append(callback)


@contextmanager
def own_imports(folder: str) -> Iterator[None]:
    """While unvanish imports its own parts in the script's process: files of the script's `folder` come last.

    A user's html.py or report.py beside the script is meant for the script, not for us.
    """
    before = list(sys.path)
    sys.path[:] = [*(p for p in before if p != folder), *(p for p in before if p == folder)]
    try:
        yield
    finally:
        sys.path[:] = before


def seed_everything(seed: int) -> None:
    """Seed python's random now, numpy's global generator and torch when (and if) they are imported."""
    random.seed(seed)
    when_imported("numpy.random", lambda: sys.modules["numpy.random"].seed(seed))
    when_imported("torch", lambda: sys.modules["torch"].manual_seed(seed))
