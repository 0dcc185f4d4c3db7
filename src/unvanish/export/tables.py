"""The tables of a run: one observation a row, named columns, made row by row. docs/export.md tells their units."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from unvanish.present.signal import NAN, UNMEASURED, is_gauge_free, relative_signal, weighted_operations
from unvanish.schema.finding import Diagnosis
from unvanish.schema.run import PARAMETER_STATISTICS, SNAPSHOT_QUANTILES, Run

Value = str | int | float | None  # None = not measured
Row = tuple[Value, ...]
Kind = Literal["text", "integer", "number"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table. `rows` can be asked for more than once; NaN and Inf in it are what was measured."""

    name: str
    columns: tuple[tuple[str, Kind], ...]
    rows: Callable[[], Iterator[Row]]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(name for name, _ in self.columns)


def tables(run: Run, diagnosis: Diagnosis) -> tuple[Table, ...]:
    """All tables of a run: steps, parameters, weights, signal, findings."""
    return (
        Table(
            name="steps",
            columns=(
                *(("model", "text"), ("step", "integer"), ("seconds", "number"), ("loss", "number")),
                *(("learning_rate", "number"), ("clip", "number")),
            ),
            rows=lambda: _steps(run),
        ),
        Table(
            name="parameters",
            columns=(
                *(("model", "text"), ("step", "integer"), ("until", "integer"), ("parameter", "text")),
                *(("statistic", "text"), ("value", "number")),
            ),
            rows=lambda: _parameters(run),
        ),
        Table(
            name="weights",
            columns=(
                *(("model", "text"), ("step", "integer"), ("parameter", "text"), ("norm", "number")),
                *((_quantile(q), "number") for q in SNAPSHOT_QUANTILES),
            ),
            rows=lambda: _weights(run),
        ),
        Table(
            name="signal",
            columns=(
                *(("model", "text"), ("step", "integer"), ("backward", "integer"), ("layer", "text")),
                *(("operation", "integer"), ("log10_signal", "number")),
            ),
            rows=lambda: _signal(run),
        ),
        Table(
            name="findings",
            columns=(
                *(("model", "text"), ("verdict", "text"), ("kind", "text"), ("cause", "text")),
                *(("severity", "text"), ("confidence", "number"), ("first_step", "integer")),
                *((f"attribution_{part}", "number") for part in _PARTS),
                *(("layers", "text"), ("treatments", "text"), ("summary", "text")),
            ),
            rows=lambda: _findings(diagnosis),
        ),
    )


_PARTS: tuple[str, ...] = ("activation", "weight", "norm", "skip", "other")


def _quantile(share: float) -> str:
    named = {0.0: "minimum", 0.5: "median", 1.0: "maximum"}
    return named.get(share, f"q{100 * share:02.0f}")


def _steps(run: Run) -> Iterator[Row]:
    for model in run.models:
        rates = model.learning_rates or [math.nan] * len(model.steps)
        clips = model.clips or [math.nan] * len(model.steps)
        columns = (model.steps, model.seconds, model.losses, rates, clips)
        for step, seconds, loss, rate, clip in zip(*columns, strict=True):
            told = None if step in model.unseen_losses else loss
            yield model.info.name, step, seconds, told, _known(rate), _known(clip)


def _known(value: float) -> float | None:
    """A rate or a clip factor that is not known is kept as NaN; neither can be one."""
    return None if math.isnan(value) else value


def _parameters(run: Run) -> Iterator[Row]:
    for model in run.models:
        names = [p.name for p in model.info.parameters]
        until = model.parameter_until or model.parameter_steps
        for (
            statistic
        ) in PARAMETER_STATISTICS:  # one at a time: of a large record they are unpacked when asked for
            values = iter(model.parameter_stats[statistic])
            for first, last in zip(model.parameter_steps, until, strict=True):
                for name in names:
                    value = next(values)
                    unknown = statistic == "adam_suppression" and math.isnan(value)
                    yield model.info.name, first, last, name, statistic, None if unknown else value


def _weights(run: Run) -> Iterator[Row]:
    for model in run.models:
        names = {p.index: p.name for p in model.info.parameters}
        for shot in model.snapshots:
            if shot.parameter in names:
                yield model.info.name, shot.step, names[shot.parameter], shot.norm, *shot.quantiles


def _signal(run: Run) -> Iterator[Row]:
    for model in run.models:
        traces = [t for t in model.traces if t.graph in model.graphs]
        gauge_free = all(is_gauge_free(t, model.graphs[t.graph]) for t in traces)  # as the signal map has it
        for trace in traces:
            graph = model.graphs[trace.graph]
            operations = weighted_operations(graph)
            for layer, cell in relative_signal(trace, graph, gauge_free).items():
                if cell == UNMEASURED:
                    continue
                value = cell if isinstance(cell, float) else math.nan if cell == NAN else -math.inf
                yield model.info.name, trace.step, trace.backward, layer, operations[layer].index, value


def _findings(diagnosis: Diagnosis) -> Iterator[Row]:
    for model in diagnosis.models:
        for f in model.findings:
            yield (
                *(model.name, model.verdict, f.kind, f.cause, f.severity, f.confidence, f.first_step),
                *(getattr(f.attribution, part) for part in _PARTS),
                *(_listed(f.layers), _listed(f.treatments), f.summary),
            )


def _listed(names: tuple[str, ...]) -> str:
    """As a JSON list: a name may hold any separator."""
    return json.dumps(list(names), ensure_ascii=False)
