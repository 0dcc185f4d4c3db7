"""Coats around a whole model: what comes in and what goes out is changed, its own forward is not."""

from __future__ import annotations

import contextlib
import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import nn

from unvanish.treatment.dressing import Coat
from unvanish.treatment.structures import floating, map_tensors


class Boundary(Coat):
    """Changes the arguments of the model's forward, and what it returns."""

    rank: ClassVar[int] = 1

    @abstractmethod
    def enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """The arguments that the model's own forward gets."""

    @abstractmethod
    def leave(self, model: nn.Module, result: Any) -> Any:
        """What the caller gets."""

    @final
    def put_on(self, base: type[nn.Module]) -> dict[str, Any]:
        """A forward around that of `base`."""
        plain = base.forward
        enter, leave = self.enter, self.leave

        @functools.wraps(plain)
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = enter(self, args, kwargs)
            return leave(self, plain(self, *args, **kwargs))

        return {"forward": forward}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Standardised(Boundary):
    """One argument, at this place or of this name, goes through the model's part `part` first."""

    part: str
    place: int
    name: str

    def enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Standardise the data."""
        part = model._modules.get(self.part)
        if part is None:
            return args, kwargs
        if self.name in kwargs:
            return args, {**kwargs, self.name: part(kwargs[self.name])}
        if len(args) <= self.place:
            return args, kwargs
        return (*args[: self.place], part(args[self.place]), *args[self.place + 1 :]), kwargs

    def leave(self, model: nn.Module, result: Any) -> Any:  # noqa: ARG002  # the others look at the model
        """As it is."""
        return result


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cast(Boundary):
    """Tensors of dtype `outside` come in as `inside`; results go out as `outside`, or (None) as they are."""

    outside: torch.dtype
    inside: torch.dtype
    back: bool

    def enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:  # noqa: ARG002
        """Cast the data."""
        inward = _caster(self.outside, self.inside)
        return map_tensors(args, inward), map_tensors(kwargs, inward)

    def leave(self, model: nn.Module, result: Any) -> Any:  # noqa: ARG002
        """Cast the results back."""
        return map_tensors(result, _caster(self.inside, self.outside)) if self.back else result


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Autocasts(Coat):
    """A float16 autocast around the forward becomes one of another dtype; of float32: none."""

    rank: ClassVar[int] = 1
    dtype: torch.dtype

    def put_on(self, base: type[nn.Module]) -> dict[str, Any]:
        """A forward inside of an autocast of its own, where one of float16 is on."""
        plain, wanted = base.forward, self.dtype

        @functools.wraps(plain)
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            kinds = {p.device.type for p in self.parameters()}
            on = [
                k
                for k in kinds
                if torch.is_autocast_enabled(k) and torch.get_autocast_dtype(k) == torch.float16
            ]
            if not on:
                return plain(self, *args, **kwargs)
            off = wanted == torch.float32
            with contextlib.ExitStack() as stack:
                for kind in on:
                    stack.enter_context(torch.autocast(kind, enabled=not off, dtype=None if off else wanted))
                if off:  # what an autocast layer in front has made
                    widen = _caster(torch.float16, wanted)
                    args, kwargs = map_tensors(args, widen), map_tensors(kwargs, widen)
                return plain(self, *args, **kwargs)

        return {"forward": forward}


def _caster(old: torch.dtype, new: torch.dtype) -> Any:
    return floating(lambda x: x.to(new) if x.dtype == old else x)
