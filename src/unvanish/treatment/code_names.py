"""Which names the methods of a class speak of, read from their code."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType

from torch import nn


def names_in_methods(kind: type, only: tuple[str, ...] = ()) -> Iterator[str]:
    """Global and attribute names in the methods (those in `only`, else all but __init__) of a class and its bases.

    Bases that are nn.Module or above are left out.
    """
    for base in kind.__mro__:
        if base is nn.Module or base is object:
            break
        for name, method in vars(base).items():
            wanted = name in only if only else name != "__init__"
            if wanted and isinstance(method, FunctionType):
                yield from _names(method.__code__)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)
