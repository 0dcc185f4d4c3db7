"""Another seed for a script that seeds itself: the same change for every trial of one paired seed.

What seeds weights, shuffles and dropout should differ from one paired seed to the next; what splits or makes the data
should be the same in all. A seed does not say what it is for, so this goes by who takes it. Shifted: what the script
gives to torch, numpy and python's random, global or as an object of its own. Not shifted: `random_state` of
scikit-learn, pandas, scipy and datasets, and the generator of `random_split`: these split, sample or make data. A
script that splits by hand, from a generator that it seeds, trains on another split with each seed. Both sides of a
pair see the same numbers in any case.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import data as torch_data
from torch.utils.data import dataset as torch_dataset

_OF_DATA = frozenset(("sklearn", "imblearn", "pandas", "scipy", "skimage", "datasets"))
_APART = 10**6  # between the generators of two shifts that are seeded by nobody
_GLOBAL = (
    (torch, "manual_seed"), (torch.random, "manual_seed"), (torch.cuda, "manual_seed"),
    (torch.cuda, "manual_seed_all"), (torch.cuda.random, "manual_seed"), (torch.cuda.random, "manual_seed_all"),
    (torch.mps, "manual_seed"), (torch.xpu, "manual_seed"), (torch.xpu, "manual_seed_all"),
    (np.random, "seed"), (random, "seed"),
)  # fmt: skip


@contextlib.contextmanager
def shifted_seeds(shift: int) -> Iterator[None]:
    """While this lasts, `shift` is added to the seeds that a script sets; the unseeded start is shifted as well.

    A shift of 0 changes no seed; it seeds those of numpy's generators that else start from the system's noise.
    """
    for original in (torch.manual_seed, np.random.seed, random.seed):
        original(shift)
    shifter = _Shifter(shift)
    new: list[tuple[Any, str, Any]] = [
        (owner, name, shifter.function(getattr(owner, name)))
        for owner, name in _GLOBAL
        if hasattr(owner, name)
    ]
    generator = shifter.torch_generator()
    split = shifter.random_split(torch_data.random_split, generator)
    new += [
        (np.random, "default_rng", shifter.default_rng(np.random.default_rng)),
        (np.random, "RandomState", shifter.random_state()),
        (random, "Random", shifter.python_random()),
        (torch, "Generator", generator),
        (torch_data, "random_split", split),
        (torch_dataset, "random_split", split),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in new]
    for one in new:
        setattr(*one)
    try:
        yield
    finally:
        for one in before:
            setattr(*one)


class _Shifter:
    """Makes what stands in for the functions and classes that take seeds."""

    def __init__(self, shift: int) -> None:
        self._shift = shift
        self._unseeded = itertools.count(shift * _APART)
        self._thread = threading.local()

    def moved(self, seed: Any) -> Any:
        """The seed that is used in its place; what is no whole number stays."""
        if self._shift == 0 or isinstance(seed, bool):
            return seed
        try:
            return (operator.index(seed) + self._shift) % 2**32
        except TypeError:
            return seed

    def numpy_seed(self, seed: Any) -> Any:
        """As `moved`, save what a library of data asks for; without a seed, one that both sides of a pair share."""
        if sys._getframe(2).f_globals.get("__name__", "").partition(".")[0] in _OF_DATA:
            return seed
        return next(self._unseeded) if seed is None else self.moved(seed)

    def python_seed(self, seed: Any) -> Any:
        """As `moved`; without a seed, one that both sides of a pair share.

        Python's own library wants noise where it asks for no seed (for names of temporary files, say), and gets it.
        """
        if seed is not None:
            return self.moved(seed)
        asking = sys._getframe(2)
        while asking.f_back is not None and asking.f_globals.get("__name__") == random.__name__:
            asking = asking.f_back
        asks = asking.f_globals.get("__name__", "").partition(".")[0]
        return None if asks in sys.stdlib_module_names - {"__main__"} else next(self._unseeded)

    def function(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Of one argument, the seed; torch's own calls those for the devices."""

        def seeded(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._thread, "inside", False):
                return original(*args, **kwargs)
            self._thread.inside = True
            try:
                args = tuple(self.moved(a) if i == 0 else a for i, a in enumerate(args))
                return original(*args, **{k: self.moved(v) if k in _NAMES else v for k, v in kwargs.items()})
            finally:
                self._thread.inside = False

        seeded.__name__ = original.__name__
        return seeded

    def default_rng(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """numpy's."""

        def default_rng(seed: Any = None) -> Any:
            return original(self.numpy_seed(seed))

        return default_rng

    def random_state(self) -> type:
        """numpy's class of old."""
        original, shifter = np.random.RandomState, self

        class RandomState(original, metaclass=_like(original)):  # type: ignore[misc, valid-type, metaclass]
            def __init__(self, seed: Any = None) -> None:
                super().__init__(shifter.numpy_seed(seed))

            def seed(self, seed: Any = None) -> None:
                super().seed(shifter.numpy_seed(seed))

        return _named_as(RandomState, original)

    def python_random(self) -> type:
        """Python's class."""
        original, shifter = random.Random, self

        class Random(original, metaclass=_like(original)):  # type: ignore[misc, valid-type, metaclass]
            def seed(self, a: Any = None, version: int = 2) -> None:
                super().seed(shifter.python_seed(a), version)

        return _named_as(Random, original)

    def torch_generator(self) -> type:
        """torch's class."""
        original, shifter = torch.Generator, self

        class Generator(original, metaclass=_like(original)):  # type: ignore[misc, valid-type, metaclass]
            given: int | None = None  # the seed that the script has set last

            def manual_seed(self, seed: int) -> Any:
                self.given = seed
                super().manual_seed(shifter.moved(seed))
                return self

            def seed_as_given(self) -> None:
                if self.given is not None:
                    super().manual_seed(self.given)

        return _named_as(Generator, original)

    def random_split(self, original: Callable[..., Any], kind: type) -> Callable[..., Any]:
        """A split of the data is the same for all seeds, where the generator was seeded for it."""

        def random_split(dataset: Any, lengths: Any, *args: Any, **kwargs: Any) -> Any:
            generator = args[0] if args else kwargs.get("generator")
            if type(generator) is not kind:
                return original(dataset, lengths, *args, **kwargs)
            state: Any = generator.get_state()  # type: ignore[attr-defined]
            generator.seed_as_given()  # type: ignore[attr-defined]
            try:
                return original(dataset, lengths, *args, **kwargs)
            finally:
                generator.set_state(state)  # type: ignore[attr-defined]

        return random_split


_NAMES = ("seed", "a")


def _named_as(kind: type, original: type) -> type:
    """So that a script's generators can be pickled: under this name, a class is found."""
    kind.__qualname__, kind.__name__ = original.__qualname__, original.__name__
    kind.__module__ = "numpy.random" if original is np.random.RandomState else original.__module__
    return kind


def _like(original: type) -> type:
    """A metaclass for a class that stands in for another: instances of that are its own."""

    class Like(type(original)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, original)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, original)

    return Like
