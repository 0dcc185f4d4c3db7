"""What the rules look at, computed once per model: the profile of the signal over the layers, step by step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unvanish.diagnose.learning import Learning, learning_of
from unvanish.diagnose.motion import Motion, motion_of
from unvanish.diagnose.path import Traced, decades, layer_name, parameter_layer
from unvanish.schema.run import ModelRun, Snapshot

# Total RMS gain beyond which plain SGD does not train any more: e^-3 (Schoenholz et al. 2016: trainable to about
# six depth scales xi of the squared gain; amplitude exp(-6/2)).
THRESHOLD = -3 / math.log(10)
STARVED = -3.0  # decades: so little of the signal that no step ever gets to the first layers
SAME = 0.5  # decades: layers that differ by less are equally starved
GIANT_STEP = 0.5  # |dw| / |w| of a tensor in one step, which rewrites it
LOOK_ALIKE = 0.003  # of what differs between samples at the first layer is left at the last
DRIFTED = 2.0  # times the largest bias at the start
WIDE = 8.0  # fan_in times the mean square of the weights: He et al. 2015 has 2, Glorot and LeCun about 1
FEW = 8  # inputs of a unit
FEWEST = 20  # steps before a stalled loss says anything
PERSISTENT = 3  # traces in a row that a condition must hold in
ADAPTIVE = (
    "adam",
    "adamw",
    "nadam",
    "radam",
    "adamax",
    "rmsprop",
    "adagrad",
    "adadelta",
    "lamb",
    "lion",
    "adafactor",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSignal:
    """The backprop signal at one weighted operation, in decades (log10), relative to the model's output.

    `raw` compares L2 norms of dL/dz. `scaled` compares norm * sqrt(count) * std(z), which does not move when a
    layer is rescaled and the next one undoes it, nor when a layer is made wider by copies of its units;
    it is `raw` where z was not measured. `starvation` is `scaled`, lowered where the whole output is too
    small for its loss (see Profile). -inf = nothing arrives at all.
    """

    layer: str
    operation: int
    raw: float
    scaled: float
    starvation: float
    nonfinite: bool


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All weighted layers of one traced backward pass, in execution order.

    `leverage` is log10 of (|dL/dy| sqrt(count) std(y) / |L|) at the output y: about 0 where the output is of the
    size that its loss asks for, far below where a net's output is so small that it hardly moves the loss.
    """

    step: int
    traced: Traced
    layers: tuple[LayerSignal, ...]
    leverage: float

    @property
    def most_starved(self) -> LayerSignal:
        """The most starved weighted operation; of those within half a decade, the one nearest to the data."""
        known = [s.starvation for s in self.layers if s.starvation == s.starvation]
        least = min(known, default=math.nan)
        return next((s for s in self.layers if s.starvation <= least + SAME), self.layers[0])

    @cached_property
    def entry(self) -> float:
        """How starved the data's end of the net is: the best-fed of the first layers (a third of them)."""
        names = list(dict.fromkeys(s.layer for s in self.layers))
        early = set(names[: max(1, len(names) // 3)])
        fed: dict[str, float] = {}
        for signal in self.layers:
            if signal.layer in early:
                fed[signal.layer] = max(fed.get(signal.layer, -math.inf), signal.starvation)
        return min(fed.values(), default=math.nan)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the rules know of one model."""

    model: ModelRun
    learning: Learning
    profiles: tuple[Profile, ...]
    alone: bool = True  # in its run: what it does not hold is nobody's

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last step."""
        steps = self.model.steps
        return (steps[0], steps[-1]) if len(steps) else (0, 0)

    @cached_property
    def motion(self) -> Motion:
        """How far the steps have moved the weights, and what that should have done."""
        return motion_of(self.model, self.learning.chance, self.learning.first)

    @property
    def stalled(self) -> bool:
        """Whether the net does not learn with all losses finite, and enough steps were seen to say so."""
        return self.learning.status in ("stuck", "worse") and self.learning.steps >= FEWEST

    @property
    def adaptive(self) -> bool:
        """Whether an optimizer that divides by the gradient's own size steps the model."""
        return any(o.class_name.lower() in ADAPTIVE for o in self.model.info.optimizers)

    @cached_property
    def recent(self) -> tuple[Profile, ...]:
        """The last traces, at most PERSISTENT steps of them, whose signal is finite."""
        steps = sorted({p.step for p in self.profiles if not any(s.nonfinite for s in p.layers)})[
            -PERSISTENT:
        ]
        return tuple(p for p in self.profiles if p.step in steps and not any(s.nonfinite for s in p.layers))

    @cached_property
    def starved_alive(self) -> tuple[Profile, ...]:
        """The profiles before units closed for good, where next to nothing came to the first layers in all of them.

        What then closes them is what is left to move: biases at the output's end. Empty: it was not so, or an
        optimizer that divides by the gradient's own size makes up for it.
        """
        if self.adaptive:
            return ()
        silent = [p.entry == -math.inf for p in self.profiles]
        if True not in silent or silent[0] or not silent[-1]:
            return ()
        alive = self.profiles[: silent.index(True)]
        return alive if all(p.entry < STARVED for p in alive) else ()

    @property
    def told_apart(self) -> float | None:
        """How much of what differs between samples was left at the last layer at the start (None = not known).

        The share of the mean square of a layer's input that differs between samples: the last one's over the first's.
        """
        known = [s.input_variety for s in self.model.architecture if s.input_variety is not None]
        return known[-1] / known[0] if len(known) > 2 and known[0] > 0 else None

    @cached_property
    def wide_init(self) -> str:
        """The first layer whose weights start far larger than any usual initialisation draws them ("" = none)."""
        wide = (s.name for s in self.model.architecture if s.fan_in >= FEW and s.weight_variance > WIDE)
        return next(wide, "")

    @cached_property
    def wide_weights(self) -> frozenset[str]:
        """Names of the weights that start so large, those too that `architecture` does not describe."""
        column = self.motion.column("weight_rms")
        if not len(column):
            return frozenset()
        wide = set()
        for p in self.motion.weights:
            fan_in = (
                min(p.shape[0], p.numel // p.shape[0]) if len(p.shape) > 1 else 0
            )  # whichever way it is laid
            if fan_in >= FEW and float(column[0, p.index]) ** 2 * fan_in > WIDE:
                wide.add(p.name)
        return frozenset(wide)

    @cached_property
    def snapshots(self) -> dict[int, list[Snapshot]]:
        """Those of each parameter (by its index), in order of steps."""
        found: dict[int, list[Snapshot]] = {}
        for snapshot in self.model.snapshots:
            found.setdefault(snapshot.parameter, []).append(snapshot)
        return found

    @property
    def in_float16(self) -> bool:
        """Whether a parameter is kept in float16, which holds no number above 65504."""
        return any(p.dtype == "float16" for p in self.model.info.parameters)

    def biased_below(self, layer: str, by: int) -> bool:
        """Whether most of the layer's biases were below zero by a step (at the start: or zero)."""
        own = (f"{layer}.bias", layer.replace("weight", "bias"))
        names = {p.index for p in self.model.info.parameters if p.name in own}
        snaps = [s for index in names for s in self.snapshots.get(index, ()) if s.step <= max(by, 1)]
        if not snaps or snaps[-1].quantiles[3] >= 0:
            return False
        drawn = max(abs(q) for q in snaps[0].quantiles)
        if by > 0 and -snaps[-1].quantiles[3] > DRIFTED * drawn:
            return True  # most have gone down further than any was at the start
        return snaps[-1].quantiles[5] < 0 or (by == 0 and snaps[-1].quantiles[5] <= 0)

    @cached_property
    def first_nonfinite(self) -> tuple[int | None, tuple[str, ...]]:
        """(first step at which a gradient is not finite, the layers where it is not, nearest to the loss first)."""
        shares = self.motion.column("gradient_nonfinite")
        rows = np.flatnonzero((np.isfinite(shares) & (shares > 0)).any(axis=1))
        if not len(rows):
            return None, ()
        row = shares[int(rows[0])]
        hit = [p for p in self.model.info.parameters if math.isfinite(row[p.index]) and row[p.index] > 0]
        layers = dict.fromkeys(parameter_layer(p.name) for p in reversed(hit))
        return int(self.model.parameter_steps[int(rows[0])]), tuple(layers)

    def heaviest_step(self, *, first: int = 0, last: int | None = None) -> tuple[float, str, int]:
        """(largest update_rms / weight_rms of any weight tensor, its layer, its step), within a window of steps."""
        motion = self.motion
        steps = np.array(self.model.parameter_steps)
        rows = np.flatnonzero((steps >= first) & (steps <= (steps.max(initial=0) if last is None else last)))
        columns = [p.index for p in motion.weights]
        if not len(rows) or not columns:
            return (0.0, "", -1)
        update = motion.column("update_rms")[np.ix_(rows, np.array(columns))]
        weight = motion.column("weight_rms")[np.ix_(rows, np.array(columns))]
        with np.errstate(all="ignore"):
            # the row's update led to this step's weight: compare with what was there before it
            before = np.where(weight > update, np.sqrt(np.maximum(weight**2 - update**2, 0.0)), weight)
            share = np.where(before > 0, update / before, np.nan)
        share = np.where(np.isnan(share), 0.0, share)
        row, column = np.unravel_index(int(share.argmax()), share.shape)
        if share[row, column] <= 0:
            return (0.0, "", -1)
        return (
            float(share[row, column]),
            parameter_layer(motion.weights[column].name),
            int(steps[rows[row]]) - 1,
        )


def facts_of(
    model: ModelRun,
    *,
    contested: bool = False,
    chance: float | None = None,
    alone: bool = True,
) -> Facts:
    """Compute the facts. `contested` and `chance` as in learning_of."""
    profiles = [
        profile
        for trace in model.traces
        if trace.graph in model.graphs and trace.output is not None
        for profile in [_profile(Traced(trace, model.graphs[trace.graph]))]
        if profile.layers
    ]
    learning = learning_of(model, contested=contested, chance=chance)
    return Facts(model=model, learning=learning, profiles=tuple(profiles), alone=alone)


def _profile(traced: Traced) -> Profile:
    trace = traced.trace
    weighted = [i for i in traced.weighted() if trace.output is not None and i <= trace.output]
    reached = [i for i in weighted if traced.stats[i].count > 1] or weighted
    if not reached or trace.output is None:
        return Profile(step=trace.step, traced=traced, layers=(), leverage=math.nan)
    reference = reached[-1]
    out_norm = traced.stats[trace.output].norm
    out_size = _size(traced, reference)
    first_raw = decades(traced.stats[reached[0]].norm, out_norm)
    leverage = decades(out_size, abs(trace.loss)) if out_size is not None else math.nan
    # a small output alone is no fault (a net that starts near zero, labels that can't be told apart): it
    # counts where the gradient dwindles on its way down as well
    handicap = min(0.0, leverage) if first_raw < THRESHOLD and leverage == leverage else 0.0
    layers = []
    for index in reached:
        stats = traced.stats[index]
        raw = decades(stats.norm, out_norm)
        size = _size(traced, index)
        scaled = decades(size, out_size) if size is not None and out_size else raw
        layers.append(
            LayerSignal(
                layer=layer_name(traced.operations[index]),
                operation=index,
                raw=raw,
                scaled=scaled,
                starvation=_starvation(raw, scaled, handicap),
                nonfinite=stats.nonfinite > 0 or not math.isfinite(stats.norm),
            )
        )
    return Profile(step=trace.step, traced=traced, layers=tuple(layers), leverage=leverage)


def _starvation(raw: float, scaled: float, handicap: float) -> float:
    """Scale-free, but not on its word alone where it is near the threshold and the plain norms say otherwise.

    The spread of an output holds the differences between its units (targets of 2 and -1, say), which no
    gradient has to carry: that alone makes up to a decade.
    """
    if scaled != scaled:
        return raw
    if raw >= THRESHOLD and scaled >= 2 * THRESHOLD:
        return max(raw, scaled) if scaled < THRESHOLD else scaled
    return scaled + handicap


def _size(traced: Traced, index: int) -> float | None:
    stats = traced.stats[index]
    if stats.output_std is None or stats.output_std <= 0 or not math.isfinite(stats.output_std):
        return None
    return stats.norm * math.sqrt(stats.count) * stats.output_std


def median_starvation(profiles: Sequence[Profile]) -> dict[str, float]:
    """Per layer: its best-fed operation's starvation, the median over the profiles; in execution order."""
    values: dict[str, list[float]] = {}
    for profile in profiles:
        best: dict[str, float] = {}
        for signal in profile.layers:
            best[signal.layer] = max(best.get(signal.layer, -math.inf), signal.starvation)
        for layer, value in best.items():
            values.setdefault(layer, []).append(value)
    return {layer: statistics.median(v) for layer, v in values.items()}


def most_starved_first(levels: dict[str, float]) -> list[str]:
    """Layers by starvation; those within SAME of the least come in execution order (that of `levels`), and so on."""
    left, out = dict(levels), list[str]()
    while left:
        least = min(left.values())
        group = [name for name, value in left.items() if value <= least + SAME]
        out += group
        for name in group:
            del left[name]
    return out


def lasting_since(profiles: Sequence[Profile], holds: Sequence[bool]) -> int | None:
    """The first step from which a condition holds without a break up to the last profile; None if it does not."""
    since: int | None = None
    for profile, yes in zip(reversed(profiles), reversed(holds), strict=True):
        if not yes:
            break
        since = profile.step
    return since
