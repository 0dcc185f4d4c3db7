"""The first sign that a process trains: it makes an optimizer, or takes a step with one that it was given.

A process that only serves (a DataLoader's worker, a launcher's agent) does neither, and pays nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim import optimizer as optim_module

_SIGNS = ("__init__", "__setstate__")  # __setstate__: an optimizer that came through a pipe
StepHook = Callable[[Any, Any, Any], None]


class Trigger:
    """Calls `begin` once, at the first sign.

    Hooks can't be registered while a step goes through its hooks, so a probe that begins `in_step` takes these.
    """

    def __init__(self, begin: Callable[[Trigger], None]) -> None:
        """Set at once. What `begin` raises is kept from the training that triggered it."""
        self._begin: Callable[[Trigger], None] | None = begin
        self.before: StepHook | None = None
        self.after: StepHook | None = None
        self.in_step = False
        self._handles = [
            optim_module.register_optimizer_step_pre_hook(self._before_step),
            optim_module.register_optimizer_step_post_hook(self._after_step),
        ]
        self._signs = [_Sign(self, name, vars(Optimizer)[name]) for name in _SIGNS]
        for sign in self._signs:
            setattr(Optimizer, sign.name, sign)

    def fire(self) -> None:
        """There is a sign."""
        self._put_back()
        begin, self._begin = self._begin, None
        if begin is not None:
            with contextlib.suppress(Exception):
                begin(self)

    def remove(self) -> None:
        """Take all away."""
        self._put_back()
        self._begin = self.before = self.after = None
        if not self.in_step:  # else torch is just going through its hooks; they do nothing any more
            for handle in self._handles:
                handle.remove()

    def _put_back(self) -> None:
        for sign in self._signs:
            if vars(Optimizer).get(sign.name) is sign:
                setattr(Optimizer, sign.name, sign.original)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._begin is not None:
            self.in_step = True
            self.fire()
            self.in_step = False
        if self.before is not None:
            self.before(optimizer, args, kwargs)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.after is not None:
            self.after(optimizer, args, kwargs)


class _Sign:
    """Stands in for a method until it is looked up. So no frame of ours is ever in a traceback."""

    def __init__(self, trigger: Trigger, name: str, original: Any) -> None:
        self.name, self.original = name, original
        self._trigger = trigger
        self._pid = os.getpid()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None:  # not one who only looks at the class
            self._trigger.fire()
        return self.original.__get__(instance, owner)
