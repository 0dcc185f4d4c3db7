"""The tensors in what a forward takes and returns."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from unvanish.errors import SurgeryError
from unvanish.treatment.structures import floating, map_tensors


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass
class Record:
    x: Any
    n: int = 3


leaves = st.one_of(
    st.integers(),
    st.none(),
    st.text(max_size=3),
    st.just(torch.ones(2)),
    st.just(torch.arange(2)),
    st.booleans(),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Pair, inner, inner),
        st.builds(Record, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, Record):
        return same(a.x, b.x) and a.n == b.n
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@settings(max_examples=80, deadline=None)
@given(value=values)
def test_structure_and_types_stay_and_what_has_no_change_is_the_same_object(value: Any) -> None:
    assert map_tensors(value, lambda t: t, strict=True) is value
    there = map_tensors(value, floating(lambda t: t + 1), strict=True)
    assert type(there) is type(value)
    back = map_tensors(there, floating(lambda t: t - 1))
    assert same(back, value)


def test_packed_sequences_and_classes_of_the_users_own_keep_what_they_are() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    doubled = map_tensors((packed,), lambda t: 2 * t)[0]
    assert type(doubled) is type(packed)
    assert torch.equal(doubled.batch_sizes, packed.batch_sizes)
    assert torch.equal(doubled.data, 2 * packed.data)

    class Output(OrderedDict[str, Any]):
        """As in a well-known library: entries are attributes, too."""

        def __setitem__(self, key: str, item: Any) -> None:
            super().__setitem__(key, item)
            super().__setattr__(key, item)

    out = Output(loss=torch.ones(1), logits=torch.ones(2))
    changed = map_tensors(out, lambda t: t * 3)
    assert isinstance(changed, Output)
    assert float(changed.loss) == float(changed["loss"]) == 3.0  # type: ignore[attr-defined]
    assert float(out["loss"]) == 1.0


def test_an_unknown_object_is_handed_on_or_refused() -> None:
    thing = object()
    assert map_tensors([thing], lambda t: t)[0] is thing
    with pytest.raises(SurgeryError, match="returns a object"):
        map_tensors([thing], lambda t: t, strict=True)
