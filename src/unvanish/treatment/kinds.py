"""What kind of part a module is, as far as treatments care."""

from __future__ import annotations

from typing import TypeGuard, cast

import torch
from torch import nn

from unvanish.treatment import activations
from unvanish.treatment.blocks import Joined
from unvanish.treatment.standardise import Standardise

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
WEIGHTED = (nn.Linear, *CONVOLUTIONS)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
NORMS = (
    *BATCH_NORMS, nn.LayerNorm, nn.GroupNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
TRANSPARENT = (nn.Identity, nn.Flatten, nn.Unflatten, Standardise, *DROPOUTS)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
SOFTMAXES: dict[type[nn.Module], str] = {
    nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax", nn.Softmin: "softmin", nn.Softmax2d: "softmax",
}  # fmt: skip

_KINDS: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
    ("weighted", WEIGHTED),
    ("norm", NORMS),
    ("transparent", TRANSPARENT),
    ("recurrent", RECURRENT),
    ("embedding", EMBEDDINGS),
    ("attention", (nn.MultiheadAttention,)),
    ("softmax", tuple(SOFTMAXES)),
)


def kind_of(module: nn.Module) -> str:
    """The kind of a module: a word of flow.Stage."""
    if activations.name_of(module) is not None:
        return "activation"
    for kind, types in _KINDS:
        if isinstance(module, types):
            return kind
    return "opaque" if any(True for _ in module.parameters()) else "other"


def name_of(module: nn.Module) -> str:
    """The name of an activation or softmax, "identity" for anything else."""
    return activations.name_of(module) or SOFTMAXES.get(plain_type(module), "identity")


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of a Linear or convolution: [out, in, *kernel] (transposed: [in, out / groups, *kernel])."""
    return cast(torch.Tensor, module.weight)


def features_of(module: nn.Module) -> int:
    """How many features (channels) a Linear or convolution makes."""
    return cast(int, module.out_features if isinstance(module, nn.Linear) else module.out_channels)


def feature_axis(module: nn.Module) -> int:
    """The axis of a layer's input that holds its features, counted from the end (batched or not).

    [*, n] for Linear, recurrent and attention layers: -1; [*, c, length] -2, [*, c, h, w] -3 for convolutions.
    """
    return 1 - weight_of(module).dim() if isinstance(module, CONVOLUTIONS) else -1


def plain_type(module: nn.Module) -> type[nn.Module]:
    """The class as the script wrote it, where surgery has put a class of its own over it (see dressing)."""
    kind: type[nn.Module] = getattr(type(module), "unvanish_base", type(module))
    return kind


def is_sequential(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether it is a plain nn.Sequential, whose forward is known: its parts, one after the other."""
    return plain_type(module) in (nn.Sequential, Joined)
