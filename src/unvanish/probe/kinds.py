"""Which factor of the chain rule an autograd operation stands for, by its name."""

from __future__ import annotations

import re
from functools import lru_cache

from unvanish.schema.graph import OperationKind

_SUFFIX = re.compile(r"Backward\d*$")

ACTIVATIONS = frozenset(
    "Sigmoid Tanh Relu LeakyRelu Elu Selu Celu Gelu Silu Softplus Hardtanh Hardswish Hardsigmoid LogSigmoid Mish "
    "Threshold Glu PreluKernel RreluWithNoise Softshrink Hardshrink Sin Cos Erf".split()
)
# Activations whose derivative is exactly zero on a half line: a unit can close for good.
GATES = frozenset("Relu Threshold Hardtanh Hardsigmoid Hardswish".split())
# Products of data with something: a "weight" factor only where a parameter enters.
PRODUCTS = frozenset(
    "Addmm Mm Mv Addmv Linear MkldnnLinear Convolution MkldnnConvolution CudnnConvolution SlowConv2D "
    "Embedding EmbeddingBag Bmm Baddbmm Dot MkldnnRnnLayer CudnnRnn Lstm Gru".split()
)
SHAPES = frozenset(
    "View UnsafeView ReshapeAlias Reshape T Transpose Permute Expand Squeeze Unsqueeze Slice Select Split "
    "SplitWithSizes Unbind Cat Stack Clone ToCopy Alias AsStrided Index Copy CopySlices Detach Chunk "
    "UnsafeSplit Narrow Movedim Flatten Unfold Repeat RegisterPostBackwardFunction".split()
)
# Of these, the ones that keep every element once: a gradient's norm is the same before and after.
REARRANGE = frozenset(
    "View UnsafeView ReshapeAlias Reshape T Transpose Permute Squeeze Unsqueeze Clone ToCopy Alias Copy "
    "Detach Movedim Flatten RegisterPostBackwardFunction".split()  # the last: where FSDP2 hooks itself in
)
SOFTMAXES = frozenset("Softmax LogSoftmax SafeSoftmax MaskedSoftmax".split())


@lru_cache(maxsize=1024)
def plain_name(autograd_name: str) -> str:
    """autograd's node name without its ending: "SigmoidBackward0" -> "Sigmoid"."""
    return _SUFFIX.sub("", autograd_name.rsplit("::", 1)[-1])


def is_loss(name: str) -> bool:
    """Whether an operation is a loss function by its name (NllLoss, MseLoss, BinaryCrossEntropy ...)."""
    return name.endswith(("Loss", "Loss2D")) or "CrossEntropy" in name or name == "KlDiv"


def kind_of(name: str, *, has_weight: bool, data_parents: int) -> OperationKind:
    """The kind of an operation; `has_weight` = a parameter of two or more dimensions enters it."""
    if is_loss(name):
        return "loss"
    if name in ACTIVATIONS:
        return "activation"
    if name in PRODUCTS:
        return "weight" if has_weight else "other"
    if "BatchNorm" in name or "LayerNorm" in name or "GroupNorm" in name or "RmsNorm" in name:
        return "norm"
    if name in SOFTMAXES:
        return "softmax"
    if name in SHAPES or re.sub(r"\d+$", "", name) in SHAPES:
        return "shape"
    if name in ("Add", "Sub") and data_parents > 1:
        return "skip"
    return "other"
