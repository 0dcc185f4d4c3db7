"""Describe the weighted layers of a traced net for the theory: sizes, measured init, what follows each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unvanish.probe.backward import Node
from unvanish.probe.local import is_there, localize
from unvanish.probe.samples import to_numpy
from unvanish.probe.sites import Sited
from unvanish.schema.architecture import LayerSpec, NormName, SkipName
from unvanish.schema.graph import Operation
from unvanish.schema.moments import Moments

_ACTIVATIONS = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "Elu": "elu",
    "Selu": "selu",
    "Gelu": "gelu",
    "Silu": "silu",
    "Softplus": "softplus",
    "Hardtanh": "hardtanh",
}
_SIGMOID_MEAN = 0.5  # of sigmoid(z) for z symmetric about 0
_TRANSPARENT = ("shape",)


@dataclass(frozen=True, slots=True)
class Weights:
    """Measured init of one weighted operation; `numbers` is [sw2, sb2, centring error, variety] as a tensor."""

    fan_in: int
    fan_out: int
    numbers: Tensor


def weigh(
    nodes: Sequence[Node],
    operations: Sequence[Operation],
    gathered: Mapping[int, Tensor],
    most: int | None = None,
) -> dict[int, Weights]:
    """Measure weights and biases of all weighted operations now (they change with the coming step).

    `gathered`: by id of a weight that is gathered from shards, the parameter itself, of which a piece is here. `most`
    elements of each are looked at, those of every so many units (None = all).
    """
    out: dict[int, Weights] = {}
    for node, operation in zip(nodes, operations, strict=True):
        if operation.kind != "weight" or operation.name.endswith(("Embedding", "RnnLayer", "Rnn")):
            continue
        heavy = [x for x in node.leaves if x.parameter.dim() > 1 and x.parameter.is_floating_point()]
        pieces = [localize(gathered.get(id(x.parameter), x.parameter)) for x in node.leaves]
        if len(heavy) != 1 or not all(p.summed and is_there(p.tensor) for p in pieces):
            continue
        weight, turned = pieces[node.leaves.index(heavy[0])], heavy[0].transposed
        plain_matrix = not turned and len(weight.shape) == 2 and operation.name in ("Mm", "Addmm", "Mv")
        matrix = (weight.tensor.detach().t() if plain_matrix else weight.tensor.detach()).flatten(1)
        fan_out = weight.shape[-1] if plain_matrix else weight.shape[0]
        fan_in = weight.numel // max(1, fan_out)
        biases = [p.tensor.detach() for p in pieces if len(p.shape) == 1]
        if most is not None and matrix.numel() > 2 * most:
            every = max(1, min(matrix.numel() // most, matrix.shape[0] // 2))
            biases = [b[::every] if b.numel() == matrix.shape[0] else b for b in biases]
            matrix = matrix[::every]
        with torch.no_grad():
            out[operation.index] = Weights(fan_in, fan_out, _measure(matrix, biases, fan_in))
    return out


def _measure(matrix: Tensor, biases: Sequence[Tensor], fan_in: int) -> Tensor:
    wide = matrix.double()
    sw2 = wide.square().mean() * fan_in
    variety = wide.var(0, correction=0).mean() * fan_in / sw2  # NaN: all zero
    if not biases or biases[0].numel() != matrix.shape[0]:
        return torch.stack((sw2, torch.zeros_like(sw2), torch.ones_like(sw2), variety))
    bias = biases[0].double()
    centred = (bias + _SIGMOID_MEAN * wide.sum(1)).norm() / bias.norm().clamp_min(1e-300)
    return torch.stack((sw2, bias.square().mean(), centred, variety))


def _compare(rows: Tensor | None) -> tuple[float | None, float | None]:
    """(how much of an input's mean square differs from sample to sample, decades between its features' sizes)."""
    if rows is None or len(rows) < 2:
        return None, None
    values = to_numpy([rows])[0].reshape(rows.shape).astype(np.float64)
    with np.errstate(all="ignore"):
        whole = float((values**2).mean())
        variety = float(values.var(0).mean()) / whole if whole > 0 else 0.0
        sizes = np.sqrt((values**2).mean(0))
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        disparity = float(np.log10(sizes.max() / sizes.min())) if len(sizes) else 0.0
    return variety if math.isfinite(variety) else None, disparity


def describe(
    sited: Sited, weights: dict[int, Weights], entries: Sequence[Moments | None]
) -> tuple[LayerSpec, ...]:
    """The layers in execution order. Runs in the writer's thread."""
    operations = sited.graph.operations
    consumers: list[list[int]] = [[] for _ in operations]
    for operation in operations:
        for parent in operation.parents:
            consumers[parent].append(operation.index)
    return tuple(
        _layer(index, measured, sited, entries[index], consumers)
        for index, measured in sorted(weights.items())
    )


def _layer(
    index: int,
    measured: Weights,
    sited: Sited,
    entry: Moments | None,
    consumers: Sequence[Sequence[int]],
) -> LayerSpec:
    operations = sited.graph.operations
    sw2, sb2, centring, unit_variety = measured.numbers.tolist()
    variety, disparity = _compare(sited.rows[index])
    norm: NormName = "none"
    skip: SkipName = "none"
    activation, predictable = "identity", True
    options: dict[str, float] = {}
    current = index
    while len(users := [u for u in consumers[current] if operations[u].module is not None]) == 1:
        user = operations[users[0]]
        if user.kind in ("weight", "loss"):
            break
        if user.kind == "norm" and activation == "identity":
            norm = _norm(user.name)
        elif user.kind == "activation" and activation == "identity":
            activation = _ACTIVATIONS.get(user.name, user.name.lower())
            slope = sited.nodes[user.index].slope
            if slope is not None:
                options["negative_slope" if user.name == "LeakyRelu" else "alpha"] = float(slope)
        elif user.kind == "skip":
            skip = _skip(user, current, index, operations)
            current = user.index
            break
        elif user.name == "Add" and user.kind == "other" and not operations[index].parents:
            skip = "identity"  # around the first layer: its input is data, which has no place in the graph
            current = user.index
            break
        elif user.kind not in _TRANSPARENT:
            predictable = False
        current = user.index
    branches = len(consumers[current]) > 1 and skip == "none" and current != index
    return LayerSpec(
        name=operations[index].module or operations[index].name,
        fan_in=measured.fan_in,
        fan_out=measured.fan_out,
        weight_variance=sw2,
        bias_variance=sb2,
        bias_centres=centring < 1e-3 and sb2 > 0,
        input_second_moment=entry.rms**2 if entry is not None else None,
        input_variety=variety,
        input_disparity=disparity,
        unit_variety=unit_variety if math.isfinite(unit_variety) else 0.0,
        batch=sited.nodes[index].count // max(1, measured.fan_out) or None,
        norm=norm,
        activation=activation,
        activation_parameters=options,
        skip=skip,
        predictable=predictable and not (branches and not _feeds_a_skip(current, consumers, operations)),
    )


def _feeds_a_skip(current: int, consumers: Sequence[Sequence[int]], operations: Sequence[Operation]) -> bool:
    """Whether what comes out here forks only into a branch and the sum that it goes around."""
    return any(operations[u].kind == "skip" for u in consumers[current])


def _norm(name: str) -> NormName:
    for word, norm in (("Batch", "batch"), ("Group", "group"), ("Rms", "rms"), ("Layer", "layer")):
        if word in name:
            return norm  # type: ignore[return-value]
    return "none"


def _skip(add: Operation, branch: int, layer: int, operations: Sequence[Operation]) -> SkipName:
    """identity where the sum's other arm is what went into the layer itself."""
    others = [p for p in add.parents if p != branch]
    entry = set(operations[layer].parents)
    if len(others) == 1 and (others[0] in entry or not entry):
        return "identity"
    return "projection"
