"""Places for samples: none is given twice while someone looks at it, and what is free is used again."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unvanish.probe.arena import CHUNK, Arena


@given(st.lists(st.tuples(st.integers(1, CHUNK // 3), st.booleans()), max_size=40))
def test_places_that_are_looked_at_keep_their_numbers(asked: list[tuple[int, bool]]) -> None:
    arena = Arena(torch.float32)
    kept: list[tuple[float, Tensor]] = []
    for number, (count, keep) in enumerate(asked):
        place = arena.place(count)
        assert place.shape == (count,)
        place.fill_(number)
        if keep:
            kept.append((number, place[:: max(1, count // 7)]))  # a view is enough to hold it
        del place
    assert all((view == number).all() for number, view in kept)


def test_what_is_free_is_used_again() -> None:
    arena = Arena(torch.float32)
    where = set()
    for _ in range(100):
        held = [arena.place(CHUNK // 4) for _ in range(8)]
        where |= {h.untyped_storage().data_ptr() for h in held}
        del held
    assert len(where) <= 4


def test_a_place_larger_than_a_chunk() -> None:
    assert Arena(torch.float64).place(CHUNK + 1).shape == (CHUNK + 1,)
