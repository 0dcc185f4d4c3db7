"""The backward graph of one loss, as it was measured: operations, and the edges the signal runs along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# The histogram of |x| over powers of two: bin b holds 2^(EXPONENT_FLOOR + 2b) <= |x| < 2^(EXPONENT_FLOOR + 2b + 2);
# the first bin also takes what is smaller (but not zero), the last what is larger and finite.
EXPONENT_FLOOR = -96
EXPONENT_BINS = 64

OperationKind = Literal["activation", "weight", "norm", "skip", "softmax", "shape", "other", "loss"]


def place(layer: str) -> str:
    """A layer's name in a sentence: the "0" of an nn.Sequential alone would read like a number."""
    return f"layer {layer}" if layer[:1].isdigit() else layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One node of the autograd graph: one operation of the forward pass.

    `index` counts in execution order of the forward pass (0 = nearest to the data); the loss is the last.
    `parents` are the operations whose results went into this one (nearer to the data).
    `parameters` are names of the parameters that enter here directly, or through a transpose or a cast.
    `module` is the dotted path of the module whose forward made the operation ("" = the model's own
    forward, None = outside of the model, e.g. the loss function).
    """

    index: int
    name: str  # autograd's name without the "Backward0", e.g. "Sigmoid", "Addmm"
    kind: OperationKind
    module: str | None
    module_class: str | None
    call: int  # which call of that module within the step, from 0 (a module that is used twice has 0 and 1)
    parents: tuple[int, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The operations of one loss in execution order. `key` is a hash of all of it, the same from run to run."""

    key: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStats:
    """What was measured at one operation in one backward pass.

    `count` elements of dL/d(output); `norm` is its L2 norm in float64 (NaN or Inf where an element is).
    `edge_norms[i]` is the L2 norm of what the operation handed to `parents[i]` (None = not measured);
    `parameter_norms[i]` the same for `parameters[i]`. The gain along an edge is edge_norm / norm; where several
    operations feed one parent, the parent's norm over the edge's norm is the factor of the sum ("skip").
    `output_std` is the standard deviation of the forward output over all its elements, `output_rms` its rms,
    `output_mean` its mean.
    `units` counts the units (channels) of an activation that were reached by a signal, `closed_units` those of
    them that passed nothing on for any sample of the batch. `unit_bits` says which (hex: one bit a unit, first all
    that were reached, then all that were open), so that ranks can be merged: a unit is closed when it is on all.
    Micro-batches, ranks and shards add up: `total` is the sum of the elements, `exponents` their log2 histogram
    (EXPONENT_BINS counts; empty = not taken). `sampled` is how many elements were looked at: fewer than `count`
    for a large tensor, whose sums and counts are then scaled up; None = all of them. `bound`: the largest gain that
    the operation could have with the weights and the batch as they were (see probe/bounds.py; None = not measured).
    """

    operation: int
    count: int
    norm: float
    absmax: float
    zeros: int
    nonfinite: int
    edge_norms: tuple[float | None, ...]
    parameter_norms: tuple[float | None, ...]
    output_count: int | None = None
    output_std: float | None = None
    output_rms: float | None = None
    units: int | None = None
    closed_units: int | None = None
    output_mean: float | None = None
    unit_bits: str = ""
    total: float | None = None
    sampled: int | None = None
    exponents: Sequence[int] = ()
    bound: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughTime:
    """The backprop signal at every time step of one layer and direction of a fused nn.LSTM, nn.GRU or nn.RNN.

    `norms[t]` is the L2 norm over batch and hidden units of dL/dh_t, h_t being what the layer emits at time step t,
    in the order of the data (also where `reverse`, the direction that runs from the last step to the first). It is
    the whole gradient: what comes from the layers above and what comes back through other steps. In float64, so that
    what underflows in the training keeps its size. `call` as in Operation.
    `samples` of the batch were looked at (norms are scaled up then), None = all. Of merged ranks: the fewest on any.
    """

    module: str  # dotted path, "" = the model itself
    layer: int  # from 0, nearest to the data
    reverse: bool
    norms: tuple[float, ...]
    call: int = 0
    samples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One backward pass of one model, measured operation by operation.

    `backward` counts the backward passes since the step before (0 for the first; more under accumulation).
    `chance` is the loss of the best constant prediction for the targets of all traced batches so far (label
    entropy, target variance, in the units of the loss), where the loss is a plain cross-entropy or squared
    error; None = not known. `through_time`: of the fused recurrent layers, which are one operation each; only in
    traces that were measured in full, and empty in records from before it was measured.
    """

    model: int
    step: int
    backward: int
    graph: str
    loss: float
    stats: tuple[OperationStats, ...]
    output: int | None  # the operation that made the model's output (the end of the model, before the loss)
    chance: float | None = None
    through_time: tuple[ThroughTime, ...] = ()
