"""Runs of many ranks, cut from whole tensors in the most obvious way."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.graph import Graph, Operation, OperationStats, Trace
from unvanish.schema.ranks import ranks_text
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    Incident,
    ModelInfo,
    ModelRun,
    ParameterInfo,
    Run,
    RunInfo,
    Shard,
    Skipped,
    Snapshot,
)

Floats = NDArray[np.float64]


def statistics(gradient: Floats, weight: Floats, update: Floats) -> list[float]:
    """PARAMETER_STATISTICS of one tensor, or of one piece of it; NaN for none."""
    n = gradient.size
    if not n:
        return [math.nan] * len(PARAMETER_STATISTICS)
    with np.errstate(all="ignore"):
        return [
            rms(gradient),
            float(np.abs(gradient).max()),
            float((gradient == 0).mean()),
            float((~np.isfinite(gradient)).mean()),
            rms(weight),
            rms(update),
            float((update != 0).mean()),
            -float((gradient * update).sum()),
            float(np.mean(np.abs(weight) / (np.abs(weight) + 1e-3))),
        ]


def rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


@dataclass
class Whole:
    """Whole tensors by parameter: [steps x elements] of gradients, weights and updates."""

    gradients: dict[str, Floats]
    weights: dict[str, Floats]
    updates: dict[str, Floats]

    def rows(self, cut: Mapping[str, slice], steps: Sequence[int]) -> list[list[list[float]]]:
        """[steps][parameters] of statistics, of a piece of each parameter."""
        return [
            [
                statistics(
                    *(table[name][step, piece] for table in (self.gradients, self.weights, self.updates))
                )
                for name, piece in cut.items()
            ]
            for step in steps
        ]


def model_run(
    name: str,
    parameters: Sequence[ParameterInfo],
    rows: Sequence[Sequence[Sequence[float]]],
    *,
    steps: Sequence[int] | None = None,
    losses: Sequence[float] | None = None,
    measured: Sequence[int] | None = None,
    traces: Sequence[Trace] = (),
    graphs: Sequence[Graph] = (),
    snapshots: Sequence[Snapshot] = (),
    clips: Sequence[float] = (),
    index: int = 0,
) -> ModelRun:
    """What one rank has of a model. `rows` as Whole gives them, for the `measured` steps (default: all)."""
    steps = range(len(rows)) if steps is None else steps
    measured = steps if measured is None else measured
    return ModelRun(
        info=ModelInfo(index=index, name=name, class_name="Net", parameters=tuple(parameters), optimizers=()),
        steps=array("q", steps),
        seconds=array("d", [0.5 * s for s in steps]),
        losses=array("d", [1.0 / (1 + s) for s in steps] if losses is None else losses),
        parameter_steps=array("q", measured),
        parameter_stats={
            statistic: array("d", [values[s] for row in rows for values in row])
            for s, statistic in enumerate(PARAMETER_STATISTICS)
        },
        snapshots=tuple(snapshots),
        graphs={g.key: g for g in graphs},
        traces=tuple(traces),
        clips=array("d", clips),
    )


def parameter(index: int, name: str, numel: int, shard: Shard | None) -> ParameterInfo:
    return ParameterInfo(
        index=index,
        name=name,
        shape=(numel,),
        dtype="float64",
        requires_grad=True,
        optimizer=0,
        sampled=numel if shard is None else shard.numel,
        shard=shard,
    )


def run_of(
    rank: int | None,
    ranks: int,
    models: Sequence[ModelRun],
    *,
    incidents: Sequence[Incident] = (),
    skipped: Sequence[Skipped] = (),
    status: str = "finished",
    message: str | None = None,
    created: str = "2026",
) -> Run:
    """The record of one rank."""
    info = RunInfo(
        id=f"r{rank}",
        created=created,
        command=("t.py",),
        script="t.py",
        seed=None,
        versions={},
        device="cpu",
        pid=100 + (rank or 0),
        rank=rank,
        ranks=ranks,
    )
    return Run(
        info=info,
        path=f"runs/{rank}",
        status=status,
        ended="2026",
        message=message,  # type: ignore[arg-type]
        models=tuple(models),
        incidents=tuple(incidents),
        skipped=tuple(skipped),
    )


@dataclass
class Spread:
    """How parameters are cut: `cuts[name]` are the borders of the pieces, each held by `replicas` ranks."""

    cuts: dict[str, list[int]]
    replicas: int
    samples: bool = True
    measured: dict[int, list[int]] = field(default_factory=dict)  # by rank; default all

    @property
    def parts(self) -> int:
        return len(next(iter(self.cuts.values()))) - 1

    @property
    def ranks(self) -> int:
        return self.parts * self.replicas

    def place(self, rank: int) -> tuple[int, int]:
        """(replica, part)."""
        return divmod(rank, self.parts)

    def runs(self, whole: Whole) -> list[Run]:
        """The record of every rank."""
        steps = range(len(next(iter(whole.gradients.values()))))
        return [
            run_of(r, self.ranks, [self.model(whole, r, self.measured.get(r, list(steps)))])
            for r in range(self.ranks)
        ]

    def model(self, whole: Whole, rank: int, measured: Sequence[int]) -> ModelRun:
        replica, part = self.place(rank)
        pieces, infos = {}, []
        for i, (name, borders) in enumerate(self.cuts.items()):
            pieces[name] = slice(borders[part], borders[part + 1])
            shard = Shard(
                part=part,
                parts=self.parts,
                replica=replica,
                replicas=self.replicas,
                numel=borders[part + 1] - borders[part],
                samples=self.samples,
                ranks=ranks_text(range(self.ranks)),
            )
            infos.append(parameter(i, name, borders[-1], shard))
        steps = len(next(iter(whole.gradients.values())))
        return model_run("net", infos, whole.rows(pieces, measured), steps=range(steps), measured=measured)


def signal_stats(
    operation: int,
    signal: Floats,
    *,
    output: Floats | None = None,
    gate: tuple[Floats, Floats] | None = None,
    edges: Sequence[float | None] = (),
    parameters: Sequence[float | None] = (),
) -> OperationStats:
    """OperationStats of whole tensors, as one process would have them. `gate`: (arriving, passed) [places x units]."""
    units = closed = None
    bits = ""
    if gate is not None:
        reached, open_ = ((np.abs(g).sum(0) != 0) for g in gate)
        bits = (np.packbits(reached).tobytes() + np.packbits(open_).tobytes()).hex()
        units, closed = int(reached.sum()), int((reached & ~open_).sum())
    return OperationStats(
        operation=operation,
        count=signal.size,
        norm=float(np.sqrt((signal**2).sum())),
        absmax=float(np.abs(signal).max(initial=0.0)),
        zeros=int((signal == 0).sum()),
        nonfinite=int((~np.isfinite(signal)).sum()),
        edge_norms=tuple(edges),
        parameter_norms=tuple(parameters),
        output_count=None if output is None else output.size,
        output_std=None if output is None else float(output.std()),
        output_rms=None if output is None else rms(output),
        output_mean=None if output is None else float(output.mean()),
        units=units,
        closed_units=closed,
        unit_bits=bits,
        total=float(signal.sum()),
    )


def operation(
    index: int, name: str, parents: Sequence[int] = (), parameters: Sequence[str] = ()
) -> Operation:
    return Operation(
        index=index,
        name=name,
        kind="weight" if parameters else "other",
        module="net",
        module_class="Net",
        call=0,
        parents=tuple(parents),
        parameters=tuple(parameters),
    )


def moved(run: Run, rank: int, ranks: int) -> Run:
    """The same record under another rank."""
    return replace(run, info=replace(run.info, rank=rank, ranks=ranks))
