"""Synthetic runs, built from the nouns alone: a 12-layer sigmoid net whose signal dies, and its relatives."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import numpy as np

from unvanish.schema.chain import Chain, Factor
from unvanish.schema.finding import (
    Attribution,
    Diagnosis,
    Evidence,
    Finding,
    LossSummary,
    ModelDiagnosis,
    NotChecked,
)
from unvanish.schema.graph import Graph, Operation, OperationStats, Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    Incident,
    ModelInfo,
    ModelRun,
    OptimizerInfo,
    ParameterInfo,
    Run,
    RunInfo,
    Snapshot,
)
from unvanish.schema.treatment import LossInterval, Prescription, TreatmentResult, TrialMap, TrialResult

LAYERS = 12
TRACES = 30
STEPS = 600
SPIKE = 1  # the trace whose signal is a million times too large, in the layers before the output
SIGMOID = 0.2164  # gain of one sigmoid's derivative, as an amplitude
WEIGHT = 0.58  # of one weight matrix
NAN_AT, ZERO_AT, MISSING_AT = (4, 10), (2, 20), (7, 25)  # (layer, trace)
CHANCE = 2.3026
HOSTILE = "</script><script>window.__hit=1;alert(1)</script>"
MARKUP = "<img src=x onerror='window.__hit=2'>[bold red]x[/]"


def layer_names(count: int = LAYERS) -> list[str]:
    return [f"layers.{i}" for i in range(count)]


def graph(names: list[str]) -> Graph:
    """weight, activation, weight, activation ... weight, loss."""
    operations: list[Operation] = []
    for i, name in enumerate(names):
        parents = (len(operations) - 1,) if operations else ()
        operations.append(
            Operation(
                index=len(operations),
                name="Addmm",
                kind="weight",
                module=name,
                module_class="Linear",
                call=0,
                parents=parents,
                parameters=(f"{name}.weight", f"{name}.bias"),
            )
        )
        if i < len(names) - 1:
            operations.append(_plain(len(operations), "Sigmoid", "activation", ""))
    operations.append(_plain(len(operations), "NllLoss", "loss", None))
    return Graph(key="g0", operations=tuple(operations))


def _plain(index: int, name: str, kind: str, module: str | None) -> Operation:
    return Operation(
        index=index,
        name=name,
        kind=kind,  # type: ignore[arg-type]
        module=module,
        module_class=None,
        call=0,
        parents=(index - 1,),
        parameters=(),
    )


def stats(
    operation: int, norm: float, *, nonfinite: int = 0, output_std: float | None = 0.25
) -> OperationStats:
    return OperationStats(
        operation=operation,
        count=2048,
        norm=norm,
        absmax=norm,
        zeros=0 if norm else 2048,
        nonfinite=nonfinite,
        edge_norms=(),
        parameter_norms=(None, None),
        output_count=2048,
        output_std=output_std,
        output_rms=output_std,
    )


def vanishing_norm(layer: int, count: int, trace: int, gain: float = SIGMOID * WEIGHT) -> float:
    recovered = 1 + 0.35 * math.sin(trace / 5 + layer)
    spike = 1e6 if trace == SPIKE and layer < count - 1 else 1.0
    return 0.31 * gain ** (count - 1 - layer) * recovered * spike


def traces(names: list[str], made: Graph, count: int = TRACES) -> tuple[Trace, ...]:
    weights = [o for o in made.operations if o.kind == "weight"]
    steps = [round(i * (STEPS - 1) / (count - 1)) for i in range(count)]
    out = []
    for t, step in enumerate(steps):
        measured = []
        for i, operation in enumerate(weights):
            if (i, t) == MISSING_AT:
                continue
            norm = 0.0 if (i, t) == ZERO_AT else vanishing_norm(i, len(names), t)
            measured.append(stats(operation.index, norm, nonfinite=3 if (i, t) == NAN_AT else 0))
        out.append(
            Trace(
                model=0,
                step=step,
                backward=0,
                graph=made.key,
                loss=2.31,
                stats=tuple(measured),
                output=weights[-1].index,
                chance=CHANCE,
            )
        )
    return tuple(out)


def snapshots(parameters: tuple[ParameterInfo, ...]) -> tuple[Snapshot, ...]:
    rng = np.random.default_rng(0)
    shots = []
    for info in parameters:
        spread = 0.125 + 0.02 * rng.random()
        for k in range(25):
            grown = spread * (1 + 0.02 * k * (info.index / len(parameters)))
            quantiles = tuple(grown * q for q in (-1.0, -0.9, -0.5, 0.004 * k, 0.5, 0.9, 1.0 + 0.01 * k))
            shots.append(
                Snapshot(
                    model=0,
                    step=k * STEPS // 25,
                    parameter=info.index,
                    norm=grown * math.sqrt(info.numel) / 1.7,
                    quantiles=quantiles,
                )
            )
    return tuple(shots)


def model_run(names: list[str] | None = None, *, name: str = "net", index: int = 0) -> ModelRun:
    names = layer_names() if names is None else names
    rng = np.random.default_rng(1)
    parameters = tuple(
        ParameterInfo(
            index=2 * i + k,
            name=f"{layer}.{leaf}",
            shape=(64, 64) if leaf == "weight" else (64,),
            dtype="float32",
            requires_grad=True,
            optimizer=0,
            sampled=64,
        )
        for i, layer in enumerate(names)
        for k, leaf in enumerate(("weight", "bias"))
    )
    made = graph(names)
    losses = CHANCE + 0.05 * np.exp(-np.arange(STEPS) / 20) + 0.012 * rng.standard_normal(STEPS)
    return ModelRun(
        info=ModelInfo(
            index=index,
            name=name,
            class_name="Classifier",
            parameters=parameters,
            optimizers=(OptimizerInfo(index=0, class_name="SGD", learning_rates=(0.1,), options={}),),
        ),
        steps=array("q", range(STEPS)),
        seconds=array("d", (i * 0.004 for i in range(STEPS))),
        losses=array("d", losses.tolist()),
        parameter_steps=array("q"),
        parameter_stats={s: array("d") for s in PARAMETER_STATISTICS},
        snapshots=snapshots(parameters),
        graphs={made.key: made},
        traces=traces(names, made),
    )


def run(*models: ModelRun, status: str = "finished") -> Run:
    return Run(
        info=RunInfo(
            id="20250101-120000-abcd",
            created="2025-01-01T12:00:00+00:00",
            command=("train.py", "--depth", "12"),
            script="train.py",
            seed=0,
            versions={"unvanish": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
            device="cpu",
            pid=1,
        ),
        path="unvanish_runs/20250101-120000-abcd",
        status=status,  # type: ignore[arg-type]
        ended=None,
        message=None,
        models=models or (model_run(),),
        incidents=(Incident(step=17, where="probe.backward", what="a tensor of unknown layout"),),
    )


def finding(names: list[str] | None = None) -> Finding:
    names = layer_names() if names is None else names
    return Finding(
        kind="vanishing_gradients",
        cause="saturating_activation",
        severity="critical",
        confidence=0.97,
        layers=tuple(names[:8]),
        first_step=0,
        summary=f"of the 10.2 decades lost on the way to {names[0]}, sigmoid derivatives took 7.3",
        evidence=(
            Evidence(
                layer=names[0],
                statistic="gauge-free backward gain over the whole net, log10",
                value=-10.16,
                threshold=-1.3,
                steps=(0, STEPS - 1),
                source="Schoenholz et al. 2016",
            ),
            Evidence(
                layer=names[0],
                statistic="gain of one layer",
                value=0.0157,
                threshold=0.76,
                steps=(0, 0),
                source="mean field",
            ),
        ),
        attribution=Attribution(activation=-7.31, weight=-2.6),
        treatments=("activation", "batchnorm", "residual", "simplify"),
    )


def diagnosis(names: list[str] | None = None, *, name: str = "net", healthy: bool = False) -> Diagnosis:
    return Diagnosis(
        version="0.1.0",
        models=(
            ModelDiagnosis(
                name=name,
                verdict="healthy" if healthy else "sick",
                steps=STEPS,
                loss=LossSummary(first=2.352, last=2.303, chance=CHANCE),
                findings=() if healthy else (finding(names),),
                skipped=(
                    NotChecked(what="precision_underflow", why="not checked by this version"),
                    NotChecked(what="uninformative_data", why="not checked by this version"),
                ),
                reason="every layer gets the signal within a factor of three" if healthy else "",
            ),
        ),
        run="unvanish_runs/20250101-120000-abcd",
    )


def chain(names: list[str] | None = None, *, name: str = "net") -> Chain:
    """The exact product: eleven sigmoids and eleven weights."""
    names = layer_names() if names is None else names
    factors: list[Factor] = []
    for i in range(len(names) - 1, 0, -1):
        factors.append(
            Factor(
                name="Addmm", kind="weight", module=names[i], operation=2 * i, gain=WEIGHT, predicted=0.5774
            )
        )
        factors.append(
            Factor(
                name="Sigmoid",
                kind="activation",
                module=None,
                operation=2 * i - 1,
                gain=SIGMOID,
                predicted=0.245,
                bound=0.25,
            )
        )
    gain = (WEIGHT * SIGMOID) ** (len(names) - 1)
    return Chain(
        model=name,
        parameter=f"{names[0]}.weight",
        layer=names[0],
        step=0,
        loss=2.31,
        output_layer=names[-1],
        output_norm=0.31,
        factors=tuple(factors),
        signal_norm=0.31 * gain,
        last_factor=4.1,
        gradient_norm=0.31 * gain * 4.1,
        attribution=Attribution(
            activation=(len(names) - 1) * math.log10(SIGMOID), weight=(len(names) - 1) * math.log10(WEIGHT)
        ),
        depth=len(names),
    )


def dead_chain() -> Chain:
    """The same, with a factor that passes nothing."""
    whole = chain()
    factors = list(whole.factors)
    factors[5] = replace(factors[5], gain=0.0)
    return replace(
        whole,
        factors=tuple(factors),
        signal_norm=0.0,
        gradient_norm=0.0,
        attribution=Attribution(activation=-math.inf),
    )


_TRIALS = (
    ("relu_he", "ReLU + He", 1.0, 1.006, 0.87, "cured", "the signal now reaches layers.0"),
    ("batchnorm", "Batch norm before sigmoid", 1.034, 1.074, 1.00, "cured", "each norm restores the scale"),
    ("residual", "Identity skips", 1.02, 1.10, 0.83, "cured", "the skip carries the signal past the sigmoid"),
    (
        "simplify",
        "Three layers, not twelve",
        0.020,
        0.018,
        1.10,
        "improved",
        "fewer factors",
    ),
    (
        "relu",
        "ReLU alone",
        0.167,
        0.175,
        2.28,
        "no_better",
        "still 0.8 decades lost per layer",
    ),
    (
        "xavier",
        "Xavier init",
        0.056,
        0.057,
        2.30,
        "no_better",
        "the derivative is the larger factor",
    ),
    ("lsuv", "LSUV init", None, 0.159, 2.31, "no_better", "forward scale is not backward scale"),
    ("hot", "Rate 10", 0.020, None, None, "failed", "the loss turned NaN"),
)


def treatment() -> TreatmentResult:
    trials = tuple(_trial(*row, seed=i) for i, row in enumerate(_TRIALS))
    baseline = _trial("baseline", "As it is (sigmoid)", 0.020, 0.019, 2.303, "no_better", "", seed=99)
    return TreatmentResult(
        baseline=baseline,
        trials=trials,
        chosen="residual",
        recipe="unvanish_runs/20250101-120000-abcd/recipe.json",
        diff=None,
        wall_seconds=41.3,
        chance=CHANCE,
    )


def _trial(
    name: str,
    title: str,
    predicted: float | None,
    measured: float | None,
    last: float | None,
    outcome: str,
    why: str,
    *,
    seed: int,
) -> TrialResult:
    rng = np.random.default_rng(seed)
    steps = np.arange(0, 250, 2)
    curves: tuple[tuple[float, ...], ...] = ()
    if last is not None:
        fall = CHANCE + 0.05 - (CHANCE - last) * (1 - np.exp(-steps / 70))
        curves = tuple(tuple((fall + 0.03 * rng.standard_normal(len(steps))).tolist()) for _ in range(5))
    return TrialResult(
        name=name,
        title=title,
        prescriptions=(Prescription(treatment="init"),),
        safety="safe",
        predicted_gain_per_layer=predicted,
        measured_gain_per_layer=measured,
        loss=LossInterval(
            first=2.35, last=last, interval=(None, None) if last is None else (last - 0.03, last + 0.04)
        ),
        seeds=5,
        steps=250,
        outcome=outcome,  # type: ignore[arg-type]
        why=why,
        learning_rate=0.1,
        stuck_seeds=5 if outcome == "no_better" else 0,
        curves=curves,
        curve_steps=tuple(steps.tolist()),
        signal=trial_map(measured) if measured is not None else None,
    )


def trial_map(gain: float) -> TrialMap:
    """The signal of a net whose layers each pass on `gain` of the squared signal; it gains a tenth by each look."""
    steps = (0, 1, 2, 5, 12, 40, 130)
    names = layer_names()
    cells = tuple(
        tuple(0.5 * (len(names) - 1 - i) * np.log10(gain) + 0.1 * k * (i < len(names) - 1) for k in range(7))
        for i in range(len(names))
    )
    return TrialMap(rows=tuple(names), steps=steps, cells=cells)
