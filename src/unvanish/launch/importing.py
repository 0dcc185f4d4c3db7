"""At the moment of an import: to watch, or to seed, when the script itself imports torch, not before.

The start-up hook of children runs this file by itself, in every python process that a watched script starts: what it
imports at once is what python has loaded anyway.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec


class _ImportWatch:
    """A finder that finds nothing itself: it calls back right after a module's own code has run."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[tuple[Callable[[], None], bool]]] = {}
        self.owner = os.getpid()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """The other finders' spec, its loader told to call back once."""
        if not self._due(name):
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._tell(spec)
                return spec
        return None

    def _due(self, name: str) -> list[Callable[[], None]]:
        mine = os.getpid() == self.owner
        return [callback for callback, in_forks in self.waiting.get(name, ()) if mine or in_forks]

    def _tell(self, spec: ModuleSpec) -> None:
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
        callbacks = self._due(name)
        self.waiting.pop(name, None)
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
        for callback in callbacks:
            callback()


def when_imported(name: str, callback: Callable[[], None], *, in_forks: bool = False) -> None:
    """Call back once, right after module `name` was imported by anyone; at once if it is there already.

    In this process only, and, with `in_forks`, in each process that is forked from it before the import. What the
    callback raises comes out of the import statement.
    """
    if name in sys.modules:
        callback()
        return
    watch = next((finder for finder in sys.meta_path if isinstance(finder, _ImportWatch)), None)
    if watch is None:
        watch = _ImportWatch()
        sys.meta_path.insert(0, watch)
    watch.waiting.setdefault(name, []).append((callback, in_forks))


class own_imports:  # noqa: N801 - it is used as the function that contextlib would make of it
    """While unvanish imports its own parts in the script's process: files of the script's `folder` come last.

    A user's html.py or report.py beside the script is meant for the script, not for us. `last`: where unvanish itself
    is to be found, if nowhere else.
    """

    def __init__(self, folder: str, last: str | None = None) -> None:
        """Nothing is changed yet."""
        self._folder, self._last = folder, last
        self._before: list[str] = []

    def __enter__(self) -> None:
        """Ours first."""
        before = self._before = list(sys.path)
        mine = [] if self._last is None or self._last in before else [self._last]
        sys.path[:] = [
            *(p for p in before if p != self._folder),
            *(p for p in before if p == self._folder),
            *mine,
        ]

    def __exit__(self, *_: object) -> None:
        """As it was."""
        sys.path[:] = self._before


def seed_everything(seed: int) -> None:
    """Seed python's random now, numpy's global generator and torch when (and if) they are imported."""
    import random

    random.seed(seed)
    when_imported("numpy.random", lambda: sys.modules["numpy.random"].seed(seed))
    when_imported("torch", lambda: sys.modules["torch"].manual_seed(seed))
