"""Traced backward passes of ranks that work on other samples, as those of the loss that they train together.

That loss is the mean of the ranks' losses, whatever each of them is: DDP and FSDP hand the optimizer the mean of
the ranks' gradients. So dL/d(output) of one rank's samples is what the rank measured over the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unvanish.schema.graph import Graph, OperationStats, ThroughTime, Trace
from unvanish.schema.moments import Moments, combined, hypot
from unvanish.schema.run import ModelRun
from unvanish.store.merge_teams import Team

Place = tuple[int, int]  # (step, which backward pass in it)


@dataclass(frozen=True, slots=True)
class _Common:
    """What the passes of one place share: ranks that train, ranks that traced it."""

    streams: int
    traced: int

    @property
    def factor(self) -> float:
        """What a rank's signal is multiplied by."""
        return 1 / self.streams

    @property
    def grown(self) -> float:
        """Counts and squares of the traced ranks, scaled up to all: 1 where all traced the pass."""
        return self.streams / self.traced


def merged_traces(team: Team, whole: ModelRun) -> tuple[Trace, ...]:
    """All traces of the team; `whole` has its merged statistics, of which parameters' gradients are taken."""
    if team.streams == 1:
        return _of_one_rank(team)
    places: dict[Place, list[Trace]] = {}
    for member in team.members:
        for trace in member.model.traces:
            if trace.graph in member.model.graphs:
                places.setdefault((trace.step, trace.backward), []).append(trace)
    gradients = _Gradients(whole, {step for step, backward in places if backward > 0})
    graphs = same_graph(team)
    out: list[Trace] = []
    for place in sorted(places):
        same: dict[str, list[Trace]] = {}
        for trace in places[place]:
            same.setdefault(trace.graph, []).append(trace)
        common = _Common(max(team.streams, len(places[place])), len(places[place]))
        for key, traces in same.items():
            graph = graphs[key]
            out.append(_merged(traces, common, graph, gradients if len(same) == 1 else None))
    return tuple(out)


def same_graph(team: Team) -> dict[str, Graph]:
    """All graphs of the team, by key."""
    return {key: graph for m in reversed(team.members) for key, graph in m.model.graphs.items()}


def _of_one_rank(team: Team) -> tuple[Trace, ...]:
    """Where all ranks see the same samples: of each pass what the lowest rank has."""
    found: list[Trace] = []
    for member in team.members:
        known = {t.step for t in found}
        found += [t for t in member.model.traces if t.step not in known]
    return tuple(sorted(found, key=lambda t: (t.step, t.backward)))


class _Gradients:
    """The L2 norm of a parameter's whole gradient, where it is that of one traced backward pass."""

    def __init__(self, whole: ModelRun, several: set[int]) -> None:
        """`several`: steps that used more than one backward pass."""
        info, rows = whole.info, list(whole.parameter_steps)
        until = whole.parameter_until or whole.parameter_steps
        self._row = {s: i for i, (s, u) in enumerate(zip(rows, until, strict=True)) if s == u}
        self._clip = dict(zip(whole.steps, whole.clips, strict=False))
        self._place = {p.name: (p.index, math.sqrt(p.numel)) for p in info.parameters}
        self._width = len(info.parameters)
        self._rms = whole.parameter_stats["gradient_rms"]
        self._several = several

    def norm(self, step: int, parameter: str) -> float | None:
        """None where it can't be told."""
        row, place = self._row.get(step), self._place.get(parameter)
        clip = self._clip.get(step, math.nan)
        if row is None or place is None or step in self._several or clip == 0:
            return None
        index, root = place
        rms = self._rms[row * self._width + index]
        return rms * root / (1.0 if math.isnan(clip) else clip)


def _merged(traces: Sequence[Trace], common: _Common, graph: Graph, gradients: _Gradients | None) -> Trace:
    """One pass of several ranks through the same graph. `gradients` None: other ranks made another graph."""
    uses: dict[str, int] = {}
    for operation in graph.operations:
        for name in operation.parameters:
            uses[name] = uses.get(name, 0) + 1
    step = traces[0].step
    stats = []
    for operation, *parts in zip(graph.operations, *(t.stats for t in traces), strict=True):
        handed = _edges([p.parameter_norms for p in parts], common.factor * math.sqrt(common.grown))
        found = tuple(
            _handed(name, norm, gradients.norm(step, name) if gradients and uses[name] == 1 else None)
            for name, norm in zip(operation.parameters, handed, strict=True)
        )
        stats.append(_operation(parts, common, found))
    chances = [t.chance for t in traces]
    return replace(
        traces[0],
        loss=_mean([t.loss for t in traces]),
        stats=tuple(stats),
        output=next((t.output for t in traces if t.output is not None), None),
        chance=_mean(chances) if all(c is not None for c in chances) else None,
        through_time=_through_time(traces, common),
    )


def _through_time(traces: Sequence[Trace], common: _Common) -> tuple[ThroughTime, ...]:
    """By layer; of the ranks, those whose sequences are as long as the first one's, scaled up to all."""
    same: dict[tuple[str, int, int, bool], list[ThroughTime]] = {}
    for one in (t for trace in traces for t in trace.through_time):
        parts = same.setdefault((one.module, one.call, one.layer, one.reverse), [])
        if not parts or len(parts[0].norms) == len(one.norms):
            parts.append(one)
    out = []
    for parts in same.values():
        factor = common.factor * math.sqrt(common.streams / len(parts))
        norms = tuple(hypot(step) * factor for step in zip(*(p.norms for p in parts), strict=True))
        samples = min((p.samples for p in parts if p.samples is not None), default=None)
        out.append(replace(parts[0], norms=norms, samples=samples))
    return tuple(out)


def _handed(name: str, samples: float | None, gradient: float | None) -> float | None:
    """What an operation handed to a parameter, or (without a name) to an input, whose samples lie on the ranks."""
    if not name:
        return samples
    return None if samples is None else gradient


def _operation(
    parts: Sequence[OperationStats], common: _Common, parameters: tuple[float | None, ...]
) -> OperationStats:
    signal = combined([m for p in parts if (m := _signal(p)) is not None])
    grown, root = common.grown, math.sqrt(common.grown)
    seen = sum(p.count if p.sampled is None else p.sampled for p in parts)
    count = round(sum(p.count for p in parts) * grown)
    units, closed, bits = _units(parts)
    output = _output(parts)
    return OperationStats(
        operation=parts[0].operation,
        count=count,
        norm=signal.norm * common.factor * root if signal else 0.0,
        absmax=signal.absmax * common.factor if signal else 0.0,
        zeros=round(signal.zeros * grown) if signal else 0,
        nonfinite=round(signal.nonfinite * grown) if signal else 0,
        edge_norms=_edges([p.edge_norms for p in parts], common.factor * root),
        parameter_norms=parameters,
        output_count=round(output.count * grown) if output else None,
        output_std=output.std if output else None,
        output_rms=output.rms if output else None,
        output_mean=output.total / output.count if output else None,
        units=units,
        closed_units=closed,
        unit_bits=bits,
        total=signal.total * common.factor * grown if signal and _all_totals(parts) else None,
        sampled=seen if seen < count else None,
        exponents=signal.exponents if signal else (),
        bound=max((p.bound for p in parts if p.bound is not None), default=None),
    )


def _signal(stats: OperationStats) -> Moments | None:
    if not stats.count:
        return None
    return Moments(
        count=stats.count,
        sampled=stats.count if stats.sampled is None else stats.sampled,
        norm=stats.norm,
        absmax=stats.absmax,
        total=math.nan if stats.total is None else stats.total,
        deviation=0.0,  # not asked for
        zeros=stats.zeros,
        nonfinite=stats.nonfinite,
        exponents=tuple(stats.exponents),
    )


def _all_totals(parts: Sequence[OperationStats]) -> bool:
    return all(p.total is not None for p in parts if p.count)


def _edges(parts: Sequence[tuple[float | None, ...]], factor: float) -> tuple[float | None, ...]:
    """Norms add up by their squares; an edge that some rank has not measured is not known."""
    out: list[float | None] = []
    for norms in zip(*parts, strict=True):
        known = [n for n in norms if n is not None]
        out.append(hypot(known) * factor if len(known) == len(norms) else None)
    return tuple(out)


def _output(parts: Sequence[OperationStats]) -> Moments | None:
    """The forward output over the samples of all ranks; None where some rank has not measured it."""
    known = [
        Moments(
            count=p.output_count,
            sampled=p.output_count,
            norm=p.output_rms * math.sqrt(p.output_count),
            absmax=math.nan,
            total=p.output_mean * p.output_count,
            deviation=p.output_std * math.sqrt(p.output_count),
            zeros=0.0,
            nonfinite=0.0,
        )
        for p in parts
        if p.output_count
        and p.output_rms is not None
        and p.output_std is not None
        and p.output_mean is not None
    ]
    return combined(known) if len(known) == len(parts) else None


def _units(parts: Sequence[OperationStats]) -> tuple[int | None, int | None, str]:
    """A unit was reached, or is open, where it is on any rank; closed = reached somewhere and open nowhere."""
    bits = [p.unit_bits for p in parts if p.unit_bits]
    if all(p.units is None for p in parts):
        return None, None, ""
    if len({len(b) for b in bits}) > 1:
        return None, None, ""
    if not bits:
        return 0, 0, ""
    merged = 0
    for text in bits:
        merged |= int(text, 16)
    digits = len(bits[0])
    half = digits // 2 * 4
    reached, open_ = merged >> half, merged & ((1 << half) - 1)
    return reached.bit_count(), (reached & ~open_).bit_count(), f"{merged:0{digits}x}"


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if all(map(math.isfinite, known)) else sum(known) / len(known)
