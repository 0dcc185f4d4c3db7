"""What is never operated on: wrappers with a second view of the parameters, and tensors not there yet."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from unvanish.errors import SurgeryError

_WRAPPERS = {
    "DistributedDataParallel": "its reducer holds the old parameters; treat the model before wrapping it",
    "DataParallel": "treat model.module, before wrapping it",
    "FullyShardedDataParallel": "its flat parameters hold the old shapes; treat the model before wrapping it",
    "FSDPModule": "its shards hold the old shapes; treat the model before fully_shard",
    "OptimizedModule": "the compiled graph holds the old layers; treat the model before torch.compile",
    "ScriptModule": "a scripted graph can't be edited; treat the python model it was made from",
}


def refuse_wrappers(root: nn.Module) -> None:
    """Refuse a model that can't be edited safely.

    Raises:
        SurgeryError: not a module, a DDP/FSDP/compiled/scripted (part of a) model, or lazy parameters.
    """
    given: object = root  # python callers are not held to the annotation
    if not isinstance(given, nn.Module):
        what = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
        raise SurgeryError(f"got {what}, not a module", "hand in an instance of nn.Module")
    for path, module in root.named_modules():
        place = f"the part {path!r} of the model" if path else "the model"
        for base in type(module).__mro__:
            if base.__name__ in _WRAPPERS and base.__module__.startswith("torch"):
                raise SurgeryError(f"{place} is wrapped in {base.__name__}", _WRAPPERS[base.__name__])
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise SurgeryError(f"{place} was compiled in place", "treat it before calling .compile()")
    for name, parameter in root.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise SurgeryError(f"{name} has no shape yet (a lazy module)", "run a batch through it first")


def refuse_reparametrised(path: str, module: nn.Module) -> None:
    """Refuse to write a weight that is computed from others: the write would be lost without a word.

    Raises:
        SurgeryError: weight_norm, spectral_norm, pruning or another parametrization is on this layer.
    """
    weight = module.__dict__.get("weight", module._parameters.get("weight"))
    if hasattr(module, "parametrizations") or "weight" not in module._parameters:
        raise SurgeryError(
            f"the weight of {path} is computed by a parametrization (weight_norm, spectral_norm, pruning)",
            "take the parametrization off, treat, and put it on again",
        )
    if isinstance(weight, torch.Tensor) and weight.is_meta:
        raise SurgeryError(f"the weight of {path} is on the meta device", "materialise the model first")
