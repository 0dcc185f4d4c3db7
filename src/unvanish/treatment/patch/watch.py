"""One forward pass, seen call by call: which function or layer took whose output, and where that is written.

A symbolic trace ends at control flow on data; this sees what ran, whatever the model is written in.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unvanish.treatment.activations import FUNCTIONS, name_of
from unvanish.treatment.kinds import NORMS, TRANSPARENT, WEIGHTED
from unvanish.treatment.patch.facts import Site
from unvanish.treatment.patch.places import Places

CALLS_LIMIT = 200_000  # a script-level loop over a cell may make many
_PRODUCTS = frozenset({"mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", "multiply_"})
SHAPES = frozenset(
    {
        "view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "to", "float", "dropout", "type_as",
        "transpose", "permute", "clone", "feature_dropout", "alpha_dropout", "__get__",
    }
)  # fmt: skip
_MAPS = frozenset(
    {
        "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "addmv", "baddbmm", "einsum",
        "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
        "embedding", "embedding_bag", "tensordot", "multi_head_attention_forward",
    }
)  # fmt: skip
_TORCH = Path(torch.__file__).parent
_FUNCTIONAL = frozenset(  # torch's functions that are written in python; its modules are other files
    str(_TORCH / part)
    for part in ("nn/functional.py", "functional.py", "_tensor.py", "overrides.py", "utils/_contextlib.py")
)
_WRITES = frozenset({"__setitem__", "copy_"})


@dataclass(slots=True)
class Call:
    """A call in the pass. `sources` index the calls whose outputs it took; `behind` those that took its own."""

    name: str  # an activation's name, "norm", "transparent", or the function's
    module: nn.Module | None
    owner: nn.Module | None  # whose forward made it
    site: Site | None
    weighted: bool
    tensors: int
    axes: int  # of what it made
    sources: tuple[int, ...]
    behind: list[int] = field(default_factory=list)

    @property
    def activation(self) -> bool:
        """Whether it is an elementwise activation."""
        return self.name in FUNCTIONS


class Watch(TorchFunctionMode):
    """Notes calls while it is entered; `call` stands in for nn.Module.__call__ meanwhile."""

    def __init__(self, places: Places, original: Callable[..., Any]) -> None:
        """`original` is torch's nn.Module.__call__."""
        super().__init__()
        self.calls: list[Call] = []
        self.visits: list[tuple[nn.Module, Site | None]] = []
        self._places = places
        self._original = original
        self._owners: list[nn.Module] = []
        self._inside = False  # of a module that is not looked into
        self._makers: dict[int, int] = {}  # id of a tensor -> the call that made it
        self._weights: set[int] = set()  # ids of tensors that are made of parameters alone
        self._held: list[torch.Tensor] = []  # so that no id is given to another tensor

    @property
    def idle(self) -> bool:
        """Whether no forward pass is running."""
        return not self._owners

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function, and note it where it takes and makes tensors."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self._inside and len(self.calls) < CALLS_LIMIT:
            self._function(getattr(func, "__name__", ""), (args, kwargs), out)
        return out

    def _function(self, name: str, given: Any, out: Any) -> None:
        inputs = list(tensors_in(given))
        outputs = list(tensors_in(out))
        if name in _WRITES and inputs:
            outputs = [inputs[0]]
        if not inputs or not outputs:
            return
        plain = name.rstrip("_") if name in FUNCTIONS else name
        owner = self._owners[-1] if self._owners else None
        self._note(plain, None, owner, self._nearest(sys._getframe(2)), inputs, outputs)

    def call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType) -> Any:
        """Run a module's call, made in this frame, and note it."""
        if self._inside or len(self.calls) >= CALLS_LIMIT:
            return self._original(module, *args, **kwargs)
        site = self._places.site(frame)
        self.visits.append((module, site))
        if not _is_atomic(module):
            self._owners.append(module)
            try:
                return self._original(module, *args, **kwargs)
            finally:
                self._owners.pop()
        self._inside = True
        try:
            out = self._original(module, *args, **kwargs)
        finally:
            self._inside = False
        owner = self._owners[-1] if self._owners else None
        inputs = [*tensors_in((args, kwargs)), *module.parameters()]
        self._note(_kind(module), module, owner, site, inputs, list(tensors_in(out)))
        return out

    def _nearest(self, frame: FrameType | None) -> Site | None:
        """The user's call of a function of torch, which may be written in python; other libraries' have no site."""
        while frame is not None and frame.f_code.co_filename in _FUNCTIONAL:
            frame = frame.f_back
        return None if frame is None else self._places.site(frame)

    def _note(
        self,
        name: str,
        module: nn.Module | None,
        owner: nn.Module | None,
        site: Site | None,
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
    ) -> None:
        here = len(self.calls)
        sources = tuple(sorted({self._makers[id(t)] for t in inputs if id(t) in self._makers}))
        of_weights = [isinstance(t, nn.Parameter) or id(t) in self._weights for t in inputs]
        learns = any(of_weights) and (name in _MAPS if module is None else name not in ("norm", "prelu"))
        if all(of_weights) and module is None:  # a weight that is turned, masked or scaled first
            self._weights.update(id(t) for t in outputs)
            self._held += outputs
            return
        self.calls.append(
            Call(
                name=name,
                module=module,
                owner=owner,
                site=site,
                weighted=learns,
                tensors=len({id(t) for t in inputs}),
                axes=max((t.dim() for t in outputs), default=0),
                sources=sources,
            )
        )
        for source in sources:
            self.calls[source].behind.append(here)
        for tensor in outputs:
            self._makers[id(tensor)] = here
            self._held.append(tensor)

    # --- what was seen --------------------------------------------------------------------------------------

    def reaches(self) -> list[bool]:
        """For each call, whether its output led to weights, or it has some (calls are in order of time)."""
        reach = [c.weighted for c in self.calls]
        for index in range(len(reach) - 1, -1, -1):
            reach[index] = reach[index] or any(reach[b] for b in self.calls[index].behind if b > index)
        return reach

    def kept(self, index: int, reach: list[bool]) -> str:
        """Why an activation has to stay ("" = it is hidden and may be replaced)."""
        behind = [self.calls[b] for b in self.calls[index].behind]
        if any(c.name in _PRODUCTS and c.tensors > 1 for c in behind):
            return "it gates another signal"
        if not any(reach[b] for b in self.calls[index].behind):
            return "it makes the model's output, and the loss counts on its range"
        return ""

    def layer_before(self, index: int) -> nn.Module | None:
        """The weighted module whose output this call takes; only norms and shape changes lie between."""
        sources = self.calls[index].sources
        while len(sources) == 1:
            call = self.calls[sources[0]]
            if call.module is not None and isinstance(call.module, WEIGHTED):
                return call.module
            if call.name not in ("norm", "transparent") and call.name not in SHAPES:
                return None
            sources = call.sources
        return None


def tensors_in(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item, depth - 1)
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item, depth - 1)
    elif depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from tensors_in(getattr(value, entry.name, None), depth - 1)


def _is_atomic(module: nn.Module) -> bool:
    """Whether it is one of torch's own, which is one thing in the user's source; containers are looked into."""
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return False
    return type(module).__module__.startswith("torch.")


def _kind(module: nn.Module) -> str:
    if isinstance(module, NORMS):
        return "norm"
    if isinstance(module, TRANSPARENT):
        return "transparent"
    return name_of(module) or type(module).__name__
