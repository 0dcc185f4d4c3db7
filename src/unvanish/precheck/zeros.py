"""Weights that start at zero on purpose (a last layer, the gates of residual branches): what flows after one step."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from unvanish.precheck.measure import Autocast, measure, moved_first
from unvanish.precheck.signal import Flow, flow_of
from unvanish.schema.call import Batch


def after_zeros(
    model: nn.Module, batch: Batch, flow: Flow, *, seed: int, autocast: Autocast = ()
) -> Flow | None:
    """The flow once those zeros have moved that the first step moves; None where nothing is cut off by zeros.

    On a copy, where they get random values of the size that keeps the signal. Only one step is looked ahead: a net
    whose layers are all zero stays cut off.
    """
    if flow.entry != -math.inf or flow.dead:
        return None
    names = moved_first(model, batch, seed=seed, autocast=autocast)
    if not names:
        return None
    try:
        twin = copy.deepcopy(model)
    except Exception:  # noqa: BLE001 - a model may hold anything; then it is judged as it is
        return None
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(twin.named_parameters())
    with torch.no_grad():
        for name in names:
            parameter = parameters[name]
            fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in))
    return flow_of(measure(twin, batch, probes=1, seed=seed, autocast=autocast))
