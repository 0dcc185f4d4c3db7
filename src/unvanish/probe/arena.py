"""Memory for samples: a few large pieces that are used again, in the place of hundreds of small ones.

A small block that is taken between a training's large ones and outlives them splits the hole that they leave behind,
so that the next large tensor does not fit in any more: a traced step made the process grow by 200 MB that way, for
5 MB of samples (a transformer on glibc's allocator).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2**18  # elements
MOST_KEPT = 32  # chunks that are kept to be used again
_users = getattr(torch._C, "_storage_Use_Count", None)


@dataclass(slots=True)
class _Chunk:
    whole: Tensor
    used: int = 0
    alone: int = 0  # how many hold its storage while no sample does

    def free(self) -> bool:
        """Whether nobody looks at what was written into it any more."""
        return _users is not None and _users(self.whole.untyped_storage()._cdata) <= self.alone


class Arena:
    """Gives places on the CPU; a place is free again when no tensor looks at it any more. For one thread."""

    def __init__(self, dtype: torch.dtype) -> None:
        """Nothing is allocated yet."""
        self._dtype = dtype
        self._chunks: list[_Chunk] = []
        self._now: _Chunk | None = None

    def place(self, count: int) -> Tensor:
        """A flat tensor of so many elements, whatever is in it."""
        if count > CHUNK:
            return torch.empty(count, dtype=self._dtype)
        chunk = self._now
        if chunk is None or chunk.used + count > CHUNK:
            chunk = self._now = self._another()
        start, chunk.used = chunk.used, chunk.used + count
        return chunk.whole[start : chunk.used]

    def _another(self) -> _Chunk:
        for chunk in self._chunks:
            if chunk is not self._now and chunk.free():
                chunk.used = 0
                return chunk
        chunk = _Chunk(torch.empty(CHUNK, dtype=self._dtype))
        if _users is not None:
            chunk.alone = _users(chunk.whole.untyped_storage()._cdata)
        if len(self._chunks) < MOST_KEPT:
            self._chunks.append(chunk)
        return chunk


class _Arenas(threading.local):
    """One for each thread and kind of number."""

    def __init__(self) -> None:
        self.by_dtype: dict[torch.dtype, Arena] = {}


_arenas = _Arenas()


def place(dtype: torch.dtype, count: int) -> Tensor:
    """A place in this thread's arena for such numbers."""
    arena = _arenas.by_dtype.get(dtype)
    if arena is None:
        arena = _arenas.by_dtype[dtype] = Arena(dtype)
    return arena.place(count)
