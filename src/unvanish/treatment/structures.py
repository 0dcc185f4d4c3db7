"""The tensors in what a forward takes and returns: alone, in tuples, lists, dicts, dataclasses, packed sequences."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from unvanish.errors import SurgeryError

_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.Size,
    range,
    slice,
)

Change = Callable[[torch.Tensor], torch.Tensor]


def map_tensors(value: Any, change: Change, *, strict: bool = False) -> Any:
    """The same structure with `change` applied to each tensor; what has nothing to change stays the same object.

    Raises:
        SurgeryError: `strict`, and there is an object that can't be looked into.
    """
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, PackedSequence):
        data = change(value.data)
        return value if data is value.data else value._replace(data=data)
    if isinstance(value, (list, tuple)):
        items = [map_tensors(item, change, strict=strict) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return _in_place_of(value, list(value.items()), change, strict, _set_item)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [
            (f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if hasattr(value, f.name)
        ]
        return _in_place_of(value, fields, change, strict, object.__setattr__)
    if strict and not isinstance(value, (*_PLAIN, type)):
        raise SurgeryError(
            f"the model returns a {type(value).__name__}, whose tensors can't be reached",
            "return tensors, tuples or dicts",
        )
    return value


def floating(change: Change) -> Change:
    """`change` for floating-point tensors alone."""
    return lambda x: change(x) if x.is_floating_point() else x


def _in_place_of(
    value: Any,
    entries: list[tuple[Any, Any]],
    change: Change,
    strict: bool,
    put: Callable[[Any, Any, Any], None],
) -> Any:
    """A shallow copy of a mapping or dataclass with its entries changed: its class may do more than to hold them."""
    changed = [(key, map_tensors(item, change, strict=strict)) for key, item in entries]
    if all(new is old for (_, new), (_, old) in zip(changed, entries, strict=True)):
        return value
    twin = copy.copy(value)
    for key, item in changed:
        put(twin, key, item)
    return twin


def _set_item(mapping: Any, key: Any, item: Any) -> None:
    mapping[key] = item
