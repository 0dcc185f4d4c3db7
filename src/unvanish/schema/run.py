"""A run: what was watched, as a stream of events while it is written and as one object when it is read."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from unvanish.schema.architecture import LayerSpec
from unvanish.schema.graph import Graph, Trace
from unvanish.schema.notebook import html_of

RunStatus = Literal["running", "finished", "stopped", "interrupted", "crashed", "cut_off"]

# Statistics of every parameter at every recorded step, in this order (see ParameterRow).
PARAMETER_STATISTICS = (
    "gradient_rms",  # of the gradient that the optimizer saw (after accumulation, unscaling and clipping)
    "gradient_absmax",
    "gradient_zeros",  # share of exact zeros, 0..1
    "gradient_nonfinite",  # share of NaN or Inf, 0..1
    "weight_rms",  # before the step
    "update_rms",  # of the change that the step made
    "update_changed",  # share of elements that changed at all, 0..1
    "first_order",  # -<g, dw> over the tensor: the fall of the loss that this step should bring, to first order
    "adam_suppression",  # mean of sqrt(v) / (sqrt(v) + eps), 0..1; NaN: no Adam, or not looked at at this step
)
DROPPED = "what could not be recorded"  # a Skipped with this name says what was given up
SNAPSHOT_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerInfo:
    """One optimizer, as it was when it first stepped."""

    index: int
    class_name: str
    learning_rates: tuple[float, ...]  # one per parameter group
    options: dict[str, float | bool | str | None]  # momentum, betas, eps, weight_decay ... of the first group


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Which piece of a parameter this process holds, where several processes train it together.

    The pieces 0..parts-1 make up the whole; each is held by `replicas` processes, of which this is number
    `replica` (data parallel without sharding: one piece, held by all). `numel` elements are in this piece (none where
    there are more processes than rows). `samples`: the other holders work on other samples (DDP, FSDP, HSDP);
    False: on the same ones (tensor parallel), or not known. `ranks`: all holders, as schema.ranks writes them.
    """

    part: int
    parts: int
    replica: int
    replicas: int
    numel: int
    samples: bool
    ranks: str = ""  # "" = not known


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterInfo:
    """One parameter tensor. `optimizer` is an index into ModelInfo.optimizers, None = no optimizer holds it."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    requires_grad: bool
    optimizer: int | None
    sampled: int  # elements that the every-step statistics look at (numel = exact)
    shard: Shard | None = None  # None = this process holds all of it

    @property
    def exact(self) -> bool:
        """Whether the statistics look at every element (that this process holds)."""
        return self.sampled >= (self.numel if self.shard is None else self.shard.numel)

    @property
    def numel(self) -> int:
        """The number of elements."""
        n = 1
        for side in self.shape:
            n *= side
        return n


LOOSE = "LooseParameters"  # the class of tensors that no module holds


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One model that was found in the run."""

    index: int
    name: str  # as the script calls it, else its class name; unique in the run
    class_name: str
    parameters: tuple[ParameterInfo, ...]
    optimizers: tuple[OptimizerInfo, ...]
    training_modules: int = 0

    @property
    def by_hand(self) -> bool:
        """Whether the script updates its weights by hand alone: the probe's ByHand stands for an optimizer."""
        return bool(self.optimizers) and all(o.class_name == "ByHand" for o in self.optimizers)

    @property
    def without_module(self) -> bool:
        """Whether it is tensors that no nn.Module of the script holds: the probe's LooseParameters."""
        return self.class_name == LOOSE


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """Where a run came from."""

    id: str
    created: str  # ISO 8601, UTC
    command: tuple[str, ...]
    script: str | None
    seed: int | None
    versions: dict[str, str]  # unvanish, torch, python
    device: str
    pid: int
    rank: int | None = (
        None  # which of the `ranks` processes of a distributed training; None = it is none, or merged
    )
    ranks: int = 1


# --- events: what the probe hands to the record, in order ------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvent:
    """A model was found, or what is known of it changed (the last one with an index counts)."""

    info: ModelInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceEvent:
    """This process is number `rank` of the `ranks` that train together."""

    rank: int
    ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent:
    """One optimizer step of one model. `step` counts from 0 per model."""

    model: int
    step: int
    seconds: float  # since the start of the run
    loss: float | None  # mean over the step's backward passes; None = no backward pass seen
    rows: tuple[tuple[float, ...], ...] | None  # per parameter, PARAMETER_STATISTICS; None = not measured


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEvent:
    """Steps of one model in rising order, packed: what StepEvent says of one, for as many as were ready.

    Per step: `seconds` since the start of the run; `losses`, NaN where it was NaN and at the `unseen_losses` (steps
    without a backward pass); `clips`, the factor that norm clipping put on the gradient (1 = it did not engage, NaN
    = no clipping was called); `learning_rates` of the first group of the model's first optimizer (NaN = not known).
    `stats` is row-major [len(measured) x len(PARAMETER_STATISTICS) x parameters], float32, or float64 for a model
    that trains in float64 and where float32 can't hold a number; `measured` are those of `steps` at which the
    parameters were looked at.
    """

    model: int
    steps: array[int]
    seconds: array[float]
    losses: array[float]
    clips: array[float]
    learning_rates: array[float]
    measured: array[int]
    stats: array[float]
    unseen_losses: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphEvent:
    """A backward graph that was not seen before in this run."""

    model: int
    graph: Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """One traced backward pass."""

    trace: Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How one parameter's values were spread at one step: quantiles as SNAPSHOT_QUANTILES, L2 norm of all."""

    model: int
    step: int
    parameter: int
    norm: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureEvent:
    """The weighted layers of a model in order, as they were at its first traced step."""

    model: int
    layers: tuple[LayerSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something went wrong inside unvanish, or could not be measured. Training went on untouched."""

    step: int
    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something that was not measured or not checked, and why. `model` None = the whole run."""

    model: int | None
    what: str
    why: str


Event = (
    ModelEvent
    | StepEvent
    | BlockEvent
    | GraphEvent
    | TraceEvent
    | Snapshot
    | ArchitectureEvent
    | PlaceEvent
    | Incident
    | Skipped
)


# --- the run as it is read back ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """Everything recorded of one model. Columns of equal length are arrays of float64 or int64.

    `losses[i]` belongs to `steps[i]`; NaN is a loss that was NaN, save at `unseen_losses`, the steps without any.
    `parameter_stats[name]` is row-major [len(parameter_steps) x len(info.parameters)] for every name in
    PARAMETER_STATISTICS. Old steps of a long run are thinned: row i then stands for the steps from
    `parameter_steps[i]` to `parameter_until[i]`, `parameter_stats` is the mean over them, and
    `parameter_extremes[name]` = (smallest, largest) in the same layout. A recent row stands for one step.
    `clips` and `learning_rates` belong to `steps` (see BlockEvent); empty = not recorded.
    Of a large record the statistics and the snapshots are unpacked when they are asked for.
    """

    info: ModelInfo
    steps: array[int]
    seconds: array[float]
    losses: array[float]
    parameter_steps: array[int]
    parameter_stats: Mapping[str, array[float]]
    snapshots: Sequence[Snapshot]
    graphs: dict[str, Graph]
    traces: tuple[Trace, ...]  # by step, then by backward
    architecture: tuple[LayerSpec, ...] = ()
    unseen_losses: frozenset[int] = frozenset()
    clips: array[float] = field(default_factory=lambda: array("d"))
    learning_rates: array[float] = field(default_factory=lambda: array("d"))
    parameter_until: array[int] = field(default_factory=lambda: array("q"))  # empty = every row is one step
    parameter_extremes: Mapping[str, tuple[array[float], array[float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run, read from its folder."""

    info: RunInfo
    path: str
    status: RunStatus  # cut_off = the process was killed: no end was written and it is not running any more
    ended: str | None
    message: str | None  # the script's last words, when it crashed
    models: tuple[ModelRun, ...]
    incidents: tuple[Incident, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    events_dropped: int = 0
    extra: dict[str, str] = field(default_factory=dict)

    def _repr_html_(self) -> str | None:
        """For notebooks."""
        return html_of(self)
