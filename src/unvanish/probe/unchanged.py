"""A forward pass that leaves no trace in the module: its buffers and attributes are as before afterwards."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_CONTAINERS = (list, dict, set, deque)
_NONE_KNOWN: Mapping[int, tuple[Tensor, Tensor]] = {}


@contextlib.contextmanager
def attributes_kept(
    root: nn.Module, known_buffers: Mapping[int, tuple[Tensor, Tensor]] = _NONE_KNOWN
) -> Iterator[None]:
    """Copies stand in for the buffers; attributes, and the lists and dicts in them, are put back afterwards.

    `known_buffers`: by id of a buffer, itself and what the copy is to hold instead of what it holds now.
    """
    spaces = [m.__dict__ for m in root.modules()]
    before = [dict(space) for space in spaces]
    inside = {id(v): (v, v.copy()) for s in before for v in s.values() if isinstance(v, _CONTAINERS)}
    copies: dict[int, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            _, known = known_buffers.get(id(tensor), (tensor, tensor.detach()))
            copies[id(tensor)] = known.clone()
        return copies[id(tensor)]

    try:
        for space in spaces:
            for name, value in [*space["_buffers"].items()]:
                if isinstance(value, Tensor) and not value.requires_grad:
                    space["_buffers"][name] = copied(value)
            for name, value in [*space.items()]:
                if isinstance(value, Tensor) and not value.requires_grad:
                    space[name] = copied(value)
        yield
    finally:
        for container, content in inside.values():
            _put_back(container, content)
        for space, was in zip(spaces, before, strict=True):
            _put_back(space, was)


def _put_back(container: Any, content: Any) -> None:
    if isinstance(container, dict):
        if list(container) != list(content):  # keys came or went: their order counts, too
            container.clear()
            container.update(content)
        for key, value in content.items():
            if container[key] is not value:
                container[key] = value
    elif isinstance(container, set):
        if container != content:
            container.clear()
            container.update(content)
    elif len(container) != len(content) or any(a is not b for a, b in zip(container, content, strict=True)):
        container.clear()
        container.extend(content)
