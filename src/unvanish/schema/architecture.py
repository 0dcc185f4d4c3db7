"""What theory needs to know of a net: its weighted layers in order, each with what follows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

NormName = Literal["none", "batch", "layer", "rms", "group", "instance"]
SkipName = Literal["none", "identity", "projection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One weighted layer (Linear or Conv) on the path from the data to the output, with what comes after it.

    z = W h + b, then norm, then activation, then (skip = "identity") + the layer's own input.
    `weight_variance` is fan_in * E[W^2] ("sw2"), measured; `bias_variance` is E[b^2] ("sb2"), measured: variances,
    where the mean is zero, as an initialisation draws them.
    `input_variety` is the share of the input's mean square that differs from sample to sample (0 = all samples are
    alike), `input_disparity` log10 of its largest feature's rms over its smallest's (features that are all zero left
    out), `unit_variety` the share of the weights' mean square that differs from unit to unit (0 = all units are
    alike); None = not measured.
    `bias_centres` says that b = -W m with m the activation's mean (an init that removes the mean).
    `input_second_moment` is E[h^2] of what enters the layer, measured (None = not measured).
    `activation` is "identity" where nothing follows, else lower case: "sigmoid", "tanh", "relu", "leaky_relu",
    "gelu", "silu", "elu", "selu", "softplus", "hardtanh"; anything else has no prediction.
    """

    name: str
    fan_in: int
    fan_out: int
    weight_variance: float
    bias_variance: float
    bias_centres: bool = False
    input_second_moment: float | None = None
    batch: int | None = None  # rows that a batch norm averages over
    norm: NormName = "none"
    activation: str = "identity"
    activation_parameters: dict[str, float] = field(default_factory=dict)
    skip: SkipName = "none"
    input_variety: float | None = None
    input_disparity: float | None = None
    unit_variety: float | None = None
    predictable: bool = True  # False: something lies between that theory has no say on
