"""Another forward for one module: its class gets a subclass of the same name, as torch's parametrizations do.

The object stays the same, with its parts, its state_dict and its isinstance relations. It can be copied and
pickled: what is written down is the plain class and the coats, which are small and hold no code.
"""

from __future__ import annotations

import copyreg
import weakref
from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.treatment.journal import Step
from unvanish.treatment.kinds import plain_type

# weak: a class holds the globals of the script that defines it, with all that they hold
_MADE: weakref.WeakValueDictionary[tuple[Any, tuple[Coat, ...]], type[nn.Module]] = (
    weakref.WeakValueDictionary()
)


class Coat(ABC):
    """One change of a class. Subclasses are frozen dataclasses: equal, hashable, and made of plain values.

    `rank` orders the coats of a module: 0 changes its own code, 1 stands around it (a boundary: what it does to
    the values that come in and go out is no part of the model's wiring, and a symbolic trace leaves it out).
    """

    rank: ClassVar[int]

    @abstractmethod
    def put_on(self, base: type[nn.Module]) -> dict[str, Any]:
        """The attributes that a subclass of `base` has to have.

        Raises:
            SurgeryError: `base` can't be changed so.
        """

    def replaces(self, worn: Coat) -> bool:
        """Whether a coat that is worn already is taken off for this one."""
        return type(worn) is type(self)


def dress(module: nn.Module, coat: Coat) -> Step:
    """Put a coat over what a module wears; returns the way back.

    Raises:
        SurgeryError: the class can't be extended, or the object has a forward of its own.
    """
    before, worn = type(module), coats_of(module)
    if "forward" in module.__dict__:
        raise SurgeryError(
            f"the forward of this {before.__name__} was replaced on the object",
            "treat the model before that is done, or change the class",
        )
    kept = tuple(c for c in worn if not coat.replaces(c))
    try:
        coats = tuple(sorted((*kept, coat), key=lambda c: c.rank))
        dressed = _dressed(plain_type(module), coats)
        object.__setattr__(module, "__class__", dressed)
    except SurgeryError:
        raise
    except Exception as error:  # a metaclass, a layout of its own
        raise SurgeryError(
            f"the class {before.__name__} can't be extended ({type(error).__name__}: {str(error)[:80]})",
            "make the change in the source",
        ) from error

    def undo() -> None:
        object.__setattr__(module, "__class__", before)

    return undo


def coats_of(module: nn.Module) -> tuple[Coat, ...]:
    """What a module wears, the first coat first."""
    worn: tuple[Coat, ...] = getattr(type(module), "unvanish_coats", ())
    return worn


def inner_type(module: nn.Module) -> type[nn.Module]:
    """The class of a module without its boundaries: the one whose forward is its wiring."""
    kept = tuple(c for c in coats_of(module) if c.rank == 0)
    return _dressed(plain_type(module), kept) if kept else plain_type(module)


def _dressed(base: Any, coats: tuple[Coat, ...]) -> type[nn.Module]:
    known = _MADE.get((base, coats))
    if known is not None:
        return known
    made = base
    for place, coat in enumerate(coats):
        own = {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
            "unvanish_base": base,
            "unvanish_coats": coats[: place + 1],
            "__reduce_ex__": _reduce,
            **coat.put_on(made),
        }
        made = type(base)(base.__name__, (made,), own)  # a second base would change the objects' layout
    _MADE[base, coats] = made
    return cast(type[nn.Module], made)


def _reduce(self: nn.Module, protocol: Any) -> Any:
    """Pickle and copy as without the coats, and rebuild with them."""
    reduced = plain_type(self).__reduce_ex__(self, protocol)
    if isinstance(reduced, str) or reduced[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
        return reduced  # the class says itself how it is pickled
    return (_rebuild, (plain_type(self), coats_of(self)), *reduced[2:])


def _rebuild(base: type[nn.Module], coats: tuple[Coat, ...]) -> nn.Module:
    made: nn.Module = nn.Module.__new__(_dressed(base, coats))
    return made
