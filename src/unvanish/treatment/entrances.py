"""Where the data comes into a model: the layers that see it first, and what they see."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from unvanish.errors import SurgeryError
from unvanish.schema.call import Batch
from unvanish.treatment.anatomy import Anatomy
from unvanish.treatment.code_names import names_in_methods
from unvanish.treatment.flow import REARRANGED, Flow
from unvanish.treatment.kinds import BATCH_NORMS, CONVOLUTIONS, WEIGHTED, is_sequential, kind_of, weight_of
from unvanish.treatment.undisturbed import undisturbed

_LOOKS_AT_PARTS = {"children", "named_children", "modules", "named_modules", "_modules"}


def entrances(root: nn.Module, anatomy: Anatomy) -> list[nn.Module] | None:
    """The modules that see the data first, None where that is not known or the data also goes elsewhere.

    Shape changes, parts taken out of the data and dropout may come before them. Embeddings are left out: they see no
    numbers.

    Raises:
        SurgeryError: the data goes into embeddings alone, or through a batch norm.
    """
    if not anatomy.wired:
        if not is_sequential(root):
            return None
        first = next((m for m in root.children() if kind_of(m) != "transparent"), None)
        return None if first is None else [first]
    flow = anatomy.flow
    raw, ends = _raw(flow)
    kinds = {flow.stages[place].kind for place in ends}
    modules = [flow.stages[place].module for place in ends if flow.stages[place].kind != "embedding"]
    if kinds == {"embedding"}:
        raise SurgeryError(
            "the model sees integers (tokens), which have no mean", "treat the embedding instead"
        )
    if modules and all(isinstance(m, BATCH_NORMS) for m in modules):
        raise SurgeryError("a batch norm standardises the data already", "look at the other treatments")
    inside = set(raw) | set(ends)
    entered: dict[int, nn.Module] = {}
    for module in modules:
        calls = [place for place, stage in enumerate(flow.stages) if stage.module is module]
        known = all(flow.stages[place].kind in ("weighted", "recurrent") for place in calls)
        if module is None or not known or not inside.issuperset(calls):
            return None
        entered[id(module)] = module
    return list(entered.values()) or None


def _raw(flow: Flow) -> tuple[list[int], list[int]]:
    """(the stages that only pass the data on, the stages that are the first to do more with it)."""
    raw: list[int] = []
    ends: list[int] = []
    for place, stage in enumerate(flow.stages):
        feeding = [f for f, other in enumerate(flow.stages[:place]) if place in other.behind]
        if not stage.sees_data and not set(feeding) & set(raw):
            continue
        passes = stage.kind == "transparent" or (
            stage.module is None and stage.name in REARRANGED | {"cat", "stack"}
        )
        if passes and not stage.makes_output and set(feeding) <= set(raw):
            raw.append(place)
        else:
            ends.append(place)
    return raw, ends


def seen_by(root: nn.Module, modules: Sequence[nn.Module], batch: Batch) -> list[list[torch.Tensor]]:
    """What each of these modules gets as its first argument in a forward pass over the batch.

    The model is as it was after it; the caller guards the random state.

    Raises:
        SurgeryError: the model fails on this batch, or a module was not called with a tensor.
    """
    seen: list[list[torch.Tensor]] = [[] for _ in modules]
    handles = [
        m.register_forward_pre_hook(_noter(kept), with_kwargs=True)
        for m, kept in zip(modules, seen, strict=True)
    ]
    try:
        with undisturbed(root), torch.no_grad():
            root(*batch.args, **batch.kwargs)
    except Exception as error:  # forward is the user's code
        raise SurgeryError(
            f"the model fails on the batch: {error}", "hand in a batch like the script's"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if not all(seen):
        raise SurgeryError(
            "a layer that should see the data was not called", "hand in a batch like the script's"
        )
    return seen


def _noter(kept: list[torch.Tensor]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else kwargs.get("input")
        if isinstance(value, PackedSequence):
            value = value.data
        if isinstance(value, torch.Tensor):
            kept.append(value.detach())

    return note


def data_argument(root: nn.Module, batch: Batch) -> tuple[int, str, torch.Tensor]:
    """(place, name, value) of the one floating-point tensor among the arguments of the model.

    Raises:
        SurgeryError: there is none, or there are several; or forward looks at the model's own parts.
    """
    mend = "standardise the data where it is loaded"
    names = list(inspect.signature(type(root).forward).parameters)[1:]
    given = [(i, names[i] if i < len(names) else "", v) for i, v in enumerate(batch.args)]
    given += [(names.index(k) if k in names else len(names), k, v) for k, v in batch.kwargs.items()]
    data = [g for g in given if isinstance(g[2], torch.Tensor) and g[2].is_floating_point()]
    if not data and any(isinstance(g[2], torch.Tensor) for g in given):
        raise SurgeryError(
            "the model sees integers (tokens), which have no mean", "treat the embedding instead"
        )
    if len(data) != 1:
        raise SurgeryError(f"which of the {len(given)} arguments of the model is the data is not known", mend)
    if _LOOKS_AT_PARTS & set(names_in_methods(type(root))):
        raise SurgeryError("the model looks at the list of its own parts, which would grow", mend)
    return data[0]


def axis_of(root: nn.Module, value: torch.Tensor) -> int:
    """The axis of the features in the data of a model, by its first layer.

    Raises:
        SurgeryError: that is not known.
    """
    first = next((m for m in root.modules() if isinstance(m, WEIGHTED)), None)
    if isinstance(first, CONVOLUTIONS):
        axis = 1 - weight_of(first).dim()
        if value.dim() >= -axis and value.shape[axis] == first.in_channels:
            return axis
    if value.dim() > 3 or (isinstance(first, CONVOLUTIONS) and value.dim() == 3):
        raise SurgeryError(
            f"which axis of the data ({'x'.join(map(str, value.shape))}) holds its features is not known",
            "standardise the data where it is loaded",
        )
    return -1
