"""Watching a script until its first optimizer step: what it builds, calls and steps, and where that is written.

One that updates its weights by hand is watched until its first backward pass after a training forward.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from unvanish.schema.call import Batch
from unvanish.treatment.patch.facts import Birth, Site
from unvanish.treatment.patch.passes import backward_passes
from unvanish.treatment.patch.places import Places, names_of_modules, outside_of
from unvanish.treatment.patch.walks import Walks
from unvanish.treatment.patch.watch import Watch
from unvanish.treatment.recipe import has_fingerprint

_STEP_SITES = 8  # after so many different ones, the rest is not waited for


class Recorded(BaseException):
    """All that is wanted was seen: it ends the script. No Exception, so that the script does not catch it."""


@dataclass(slots=True)
class Root:
    """A module that the script itself called in training, with what it was called with."""

    model: nn.Module
    batch: Batch


@dataclass(slots=True)
class Built:
    """An optimizer at its birth: its site, and the frames around with their names for modules."""

    optimizer: Optimizer
    site: Site | None
    frames: list[tuple[Site, dict[str, nn.Module]]]
    rates: tuple[float, ...]


@dataclass(slots=True)
class Step:
    """A place where an optimizer steps."""

    optimizer: Optimizer
    site: Site | None
    names: dict[str, nn.Module]
    scaled: bool
    closure: bool


class Recorder:
    """`with recorder.at_work():` run the script; it ends with Recorded at its second step of any one place.

    For a process of its own: nn.Module and Optimizer are wrapped meanwhile.
    """

    def __init__(self, root: str | Path, *, by_hand: str | None = None) -> None:
        """`root` is the folder whose files are the user's.

        `by_hand`: the fingerprint of the model that the script trains without an optimizer.
        """
        self._by_hand = by_hand
        self.places = Places(root)
        self.births: dict[int, tuple[weakref.ref[nn.Module], Birth]] = {}
        self.roots: list[Root] = []
        self.built: list[Built] = []
        self.steps: list[Step] = []
        self.began: list[
            tuple[Site, dict[str, nn.Module]]
        ] = []  # the first training call, by hand, as in Built
        self._original: Callable[..., Any] = nn.Module.__call__
        self.watch = Watch(self.places, self._original)
        self.walks = Walks(self.places)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts, everything is noted."""
        module_init, optimizer_init = nn.Module.__init__, Optimizer.__init__

        def born(module: nn.Module, *args: Any, **kwargs: Any) -> None:
            module_init(module, *args, **kwargs)
            self._birth(module, sys._getframe(1))

        def built(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            optimizer_init(optimizer, *args, **kwargs)
            self._optimizer(optimizer, sys._getframe(1))

        def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._call(module, args, kwargs, sys._getframe(1))

        handle = register_optimizer_step_pre_hook(self._step)
        nn.Module.__init__ = born  # type: ignore[method-assign, assignment]
        nn.Module.__call__ = called  # type: ignore[method-assign]
        Optimizer.__init__ = built  # type: ignore[method-assign, assignment]
        try:
            by_hand = (
                contextlib.nullcontext() if self._by_hand is None else backward_passes(self._backward, True)
            )
            with self.walks.at_work(), by_hand:
                yield
        finally:
            nn.Module.__init__ = module_init  # type: ignore[method-assign]
            nn.Module.__call__ = self._original  # type: ignore[method-assign]
            Optimizer.__init__ = optimizer_init  # type: ignore[method-assign]
            handle.remove()

    def birth_of(self, module: nn.Module) -> Birth | None:
        """Where this very module was built; None for a copy, or one that was there before."""
        reference, birth = self.births.get(id(module), (None, None))
        return birth if reference is not None and reference() is module else None

    def alive(self) -> Iterator[tuple[nn.Module, Birth]]:
        """All modules that were built and still exist."""
        for reference, birth in list(self.births.values()):
            module = reference()
            if module is not None:
                yield module, birth

    def again(self, model: nn.Module, batch: Batch) -> Watch:
        """Watch one more forward pass of this model. What forward raises comes out."""
        watch = Watch(self.places, self._original)
        original = nn.Module.__call__

        def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return watch.call(module, args, kwargs, sys._getframe(1))

        nn.Module.__call__ = called  # type: ignore[method-assign]
        try:
            with watch, torch.enable_grad():
                model(*batch.args, **batch.kwargs)
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]
        return watch

    # --- what happens ---------------------------------------------------------------------------------------

    def _birth(self, module: nn.Module, frame: FrameType | None) -> None:
        outside = outside_of(module, frame)
        sites = [site for _, site in self.places.outward(outside) if site is not None]
        if not sites or outside is None:
            return
        direct = self.places.relative(outside.f_code.co_filename) is not None
        birth = Birth(site=sites[0], direct=direct, outer=tuple(sites[1:]))
        self.births[id(module)] = (weakref.ref(module), birth)

    def _optimizer(self, optimizer: Optimizer, frame: FrameType | None) -> None:
        outside = outside_of(optimizer, frame)
        frames = [(site, names_of_modules(f)) for f, site in self.places.outward(outside) if site is not None]
        direct = outside is not None and self.places.relative(outside.f_code.co_filename) is not None
        self.walks.optimizers += 1
        rates = tuple(float(g.get("lr", float("nan"))) for g in optimizer.param_groups)
        site = frames[0][0] if frames and direct else None
        self.built.append(Built(optimizer=optimizer, site=site, frames=frames, rates=rates))

    def _call(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType
    ) -> Any:
        traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
        if traced or not torch.is_grad_enabled():
            return self._original(module, *args, **kwargs)
        if not self.watch.idle:
            return self.watch.call(module, args, kwargs, frame)
        if self.steps and self.roots:  # a closure runs its forward after the step has begun
            return self._original(module, *args, **kwargs)
        if self._is_trained(module) and all(root.model is not module for root in self.roots):
            self.roots.append(Root(model=module, batch=Batch(args=args, kwargs=dict(kwargs))))
            if self._by_hand is not None:  # what goes through the model from now on is the training
                self.walks.optimizers += 1
                frames = self.places.outward(frame)
                self.began = [(site, names_of_modules(f)) for f, site in frames if site is not None]
        if (
            type(module).__name__ == "OptimizedModule"
        ):  # a mode inside of a compiled graph would be compiled, too
            return self._original(module, *args, **kwargs)
        with self.watch:
            return self.watch.call(module, args, kwargs, frame)

    def _is_trained(self, module: nn.Module) -> bool:
        if self._by_hand is not None:
            return has_fingerprint(module, self._by_hand)
        own = {id(p) for p in module.parameters()}
        groups = (g for b in self.built for g in b.optimizer.param_groups)
        return any(id(p) in own for g in groups for p in g["params"])

    def _backward(self, _: torch.Tensor) -> None:
        if self.roots:
            raise Recorded

    def _step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        scaled, here, site = False, None, None
        for frame, found in self.places.outward(sys._getframe(1)):
            scaled = scaled or frame.f_code.co_filename.endswith("grad_scaler.py")
            if found is not None:
                here, site = frame, found
                break
        if any(step.site == site and step.optimizer is optimizer for step in self.steps):
            raise Recorded
        names = names_of_modules(here) if here is not None else {}
        closure = any(callable(a) for a in (*args[1:], *kwargs.values()))
        self.steps.append(Step(optimizer=optimizer, site=site, names=names, scaled=scaled, closure=closure))
        if len(self.steps) > _STEP_SITES:
            raise Recorded
