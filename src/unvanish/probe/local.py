"""What this process itself holds of a tensor that is spread over many: read without any communication.

A DTensor answers almost every question with a collective, and a collective that only some ranks call hangs all of
them. So nothing here calls an operation on one: its attributes are read, and its local part is a plain tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.schema.ranks import ranks_text
from unvanish.schema.run import Shard

_PLAIN = (Tensor, nn.Parameter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """This process's part of a tensor.

    `tensor` is plain, perhaps empty, and shares its storage with the whole. `shape` is that of the whole.
    `placements` has one word per dimension of the mesh ("S(0)", "R", "P(sum)"), `mesh_shape` and `coordinate` the
    mesh's size and this process's place in it; all three are empty for a tensor that is not spread at all.
    `shard_dims` are the mesh dimensions along which pieces differ, `replicate_dims` those along which they are
    copies. `summed` is false where the parts of several processes have yet to be added up (a partial
    placement): then this part alone says nothing about the whole.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    placements: tuple[str, ...] = ()
    mesh_shape: tuple[int, ...] = ()
    coordinate: tuple[int, ...] = ()
    shard_dims: tuple[int, ...] = ()
    replicate_dims: tuple[int, ...] = ()
    summed: bool = True
    ranks: tuple[int, ...] = ()  # the processes of the mesh

    @property
    def numel(self) -> int:
        """Elements of the whole."""
        return math.prod(self.shape)

    def shard(self, *, samples: bool) -> Shard | None:
        """This piece's place among all of them, for the record. None: all of the tensor is here.

        `samples`: the holders of the other pieces work on other samples.
        """
        if not self.placements:
            return None
        part, parts = self._place(self.shard_dims)
        replica, replicas = self._place(self.replicate_dims)
        return Shard(
            part=part,
            parts=parts,
            replica=replica,
            replicas=replicas,
            numel=self.tensor.numel(),
            samples=samples,
            ranks=ranks_text(self.ranks),
        )

    def _place(self, dims: tuple[int, ...]) -> tuple[int, int]:
        """(index, size) over some dimensions of the mesh, the first one slowest."""
        index, size = 0, 1
        for dim in dims:
            index = index * self.mesh_shape[dim] + self.coordinate[dim]
            size *= self.mesh_shape[dim]
        return index, size


def localize(tensor: Tensor) -> Local:
    """What this process holds of `tensor`: a DTensor's local shard, a plain tensor itself. No communication."""
    spec = None if type(tensor) in _PLAIN else getattr(tensor, "_spec", None)
    if spec is None:
        return Local(tensor=tensor, shape=tuple(tensor.shape))
    coordinate = spec.mesh.get_coordinate()  # None on a process that is outside of the mesh: it holds nothing
    kinds = [_kind(p) for p in spec.placements]
    return Local(
        tensor=local_tensor(tensor),
        shape=tuple(spec.shape),
        placements=tuple(str(p) for p in spec.placements),
        mesh_shape=tuple(spec.mesh.shape),
        coordinate=tuple(coordinate) if coordinate is not None else (0,) * len(kinds),
        shard_dims=tuple(i for i, kind in enumerate(kinds) if kind == "shard"),
        replicate_dims=tuple(i for i, kind in enumerate(kinds) if kind == "replicate"),
        summed="partial" not in kinds,
        ranks=tuple(spec.mesh.mesh.flatten().tolist()),
    )


def local_tensor(tensor: Tensor) -> Tensor:
    """The plain tensor inside of a DTensor, a plain tensor itself. Fast enough for every step."""
    if type(tensor) in _PLAIN:
        return tensor
    inner = getattr(tensor, "_local_tensor", None)
    return inner if isinstance(inner, Tensor) else tensor


def here(tensor: Tensor) -> Tensor | None:
    """All of a tensor, where this process holds all of it; None: reading it would take the other processes."""
    if type(tensor) in _PLAIN or getattr(tensor, "_local_tensor", None) is None:
        return tensor
    place = localize(tensor)
    return place.tensor if place.summed and not place.shard_dims else None


def local_gradient(parameter: Tensor) -> Tensor | None:
    """This process's part of the gradient, element for element that of its part of the parameter; else None."""
    gradient = parameter.grad
    if gradient is None or type(gradient) in _PLAIN:
        return gradient
    ours, theirs = getattr(parameter, "_spec", None), getattr(gradient, "_spec", None)
    if ours is not None and (theirs is None or tuple(ours.placements) != tuple(theirs.placements)):
        return None  # spread in another way, or yet to be added up over the processes
    return local_tensor(gradient)


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor's numbers can be read now: FSDP takes the storage of gathered weights away between uses."""
    if tensor.device.type == "meta" or tensor.layout is not torch.strided:
        return False
    return tensor.numel() == 0 or tensor.untyped_storage().size() > 0


def _kind(placement: Any) -> str:
    if placement.is_replicate():
        return "replicate"
    return (
        "partial" if placement.is_partial() else "shard"
    )  # strided shards are no Shard, and pieces all the same


# --- FSDP2: which weights it has in its care ---------------------------------------------------------------


def gathered_weights(module: nn.Module) -> dict[int, Tensor]:
    """By id of the whole weight that FSDP2 gathers for the forward pass: the sharded parameter that it is of.

    The autograd graph knows the gathered weights only, the optimizer and the model's names the sharded ones.
    """
    found: dict[int, Tensor] = {}
    for _, parameter in _fsdp_parameters(module):
        gathered = getattr(parameter, "_unsharded_param", None)
        if gathered is not None:
            found[id(gathered)] = parameter.sharded_param
    return found


def data_parallel_shards(module: nn.Module) -> set[int]:
    """Ids of the parameters whose pieces lie on processes that work on other samples (FSDP alone shards them)."""
    found: set[int] = set()
    for group, parameter in _fsdp_parameters(module):
        mesh = getattr(getattr(group, "mesh_info", None), "mesh", None)
        spec = getattr(parameter.sharded_param, "_spec", None)
        if mesh is None or spec is None or spec.mesh.ndim == mesh.ndim:  # else tensor parallel, too
            found.add(id(parameter.sharded_param))
    return found


def class_name(module: nn.Module) -> str:
    """The module's class as the script knows it: FSDP2 puts one of its own, FSDPLinear, before it."""
    kind = type(module)
    if (
        kind.__name__.startswith("FSDP")
        and len(kind.__mro__) > 2
        and kind.__mro__[1].__name__ == "FSDPModule"
    ):
        return kind.__mro__[2].__name__
    return kind.__name__


def _fsdp_parameters(module: nn.Module) -> Iterator[tuple[Any, Any]]:
    """(group, parameter) of all of FSDP2's in a model; nothing where torch keeps them elsewhere than today."""
    for part in module.modules():
        get_state = getattr(part, "_get_fsdp_state", None)
        if get_state is None:
            continue
        state = get_state()
        groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
        for group in groups:
            for parameter in getattr(group, "fsdp_params", ()):
                yield group, parameter
