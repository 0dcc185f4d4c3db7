"""The verdict before training: what stands in the way of learning already, and what only may."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unvanish.diagnose.causes import TREATMENTS, cause_of_growth, cause_of_loss
from unvanish.diagnose.facts import ADAPTIVE
from unvanish.diagnose.path import parameter_layer
from unvanish.diagnose.rules.attention import NOTHING, softmax_gains
from unvanish.diagnose.rules.dead_units import ALL, MOST
from unvanish.diagnose.rules.mismatch import misfit
from unvanish.diagnose.rules.vanishing import FORGOTTEN
from unvanish.precheck.measure import Measured
from unvanish.precheck.signal import LIMIT, Flow
from unvanish.schema.finding import Attribution, Cause, Evidence, Finding, Kind, Severity, Verdict
from unvanish.schema.graph import place
from unvanish.schema.run import OptimizerInfo, ParameterInfo

_SGD = "Schoenholz et al. 2016: SGD trains to about 6 depth scales, a total RMS gain of e^-3"
_DEAD = "Lu et al. 2019 (dying ReLU): a unit that is closed for every input gets no gradient and stays closed"
_ATTENTION = (
    "Vaswani et al. 2017, 3.2.1: large products push the softmax to where its gradient is next to nothing"
)
_SYMMETRY = "Goodfellow et al. 2016, Deep Learning, 8.4: initial parameters must break symmetry between units"
_OUTPUT = (
    "Goodfellow et al. 2016, Deep Learning, 6.2.2: an output unit needs a loss that undoes its saturation"
)
_STEP = "torch.optim: a step changes only what the optimizer was given, and only where .grad is set"
_INPUTS = "LeCun et al. 1998, Efficient BackProp, 4.3: inputs centred, scaled and different from one another"
_COPIES = 1e-6  # of the weights' mean square differs between units
_SAME_INPUT = 1e-4  # of the input's mean square differs between samples
_LARGE_INPUT = 30.0  # rms
_BOUNDED = ("Hardtanh", "Hardsigmoid", "Hardswish")
_MANY = 0.3  # of the weights
_MOSTLY = 0.5
_EPSILON = 1e-8
_ROUNDED_AWAY = 1e-13  # of the mean square: what is left between samples is float32's own rounding
_FLOW_KINDS = frozenset(("vanishing_gradients", "exploding_gradients", "dead_units", "non_finite"))
_SEVERITY: dict[Severity, int] = {"critical": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Findings, the most severe first; the verdict and its reason in one sentence."""

    findings: tuple[Finding, ...]
    verdict: Verdict
    reason: str


def judge(measured: Measured, flow: Flow, *, clipped: bool = False) -> Judgement:
    """All that can be said of a net before its first step. `clipped`: the gradient's norm is clipped."""
    found = [
        *_nonfinite(flow),
        *_disconnected(measured),
        *_symmetry(measured, flow),
        *_mismatch(measured),
        *_dead(measured, flow),
        *_exploding(measured, flow, clipped=clipped),
        *_through_time(flow),
        *_vanishing(measured, flow),
        *_attention(measured, flow),
    ]
    found = _roots([*_inputs(measured, harmful=any(f.severity == "critical" for f in found)), *found])
    found = sorted(found, key=lambda f: _SEVERITY[f.severity])
    serious = [f for f in found if f.severity == "critical"]
    if serious:
        sick = any(f.kind in _FLOW_KINDS for f in serious)
        return Judgement(
            findings=tuple(found), verdict="sick" if sick else "not_learning", reason=serious[0].summary
        )
    if math.isnan(flow.entry):
        return Judgement(
            findings=tuple(found),
            verdict="inconclusive",
            reason="the signal was seen to reach no layer with weights",
        )
    said = f"the first layers get 10^{flow.entry:.1f} of the output's signal"
    masked = [f for f in found if f.kind in _FLOW_KINDS and f.severity == "warning"]
    if masked:
        said = masked[0].summary.rstrip(".")
    return Judgement(findings=tuple(found), verdict="healthy", reason=f"{said}.")


def _roots(found: Sequence[Finding]) -> list[Finding]:
    """Without what follows from another finding: what a dead layer cuts off is not a second disease."""
    kinds = {f.kind for f in found if f.severity == "critical"}
    hidden: set[Kind] = set()
    if kinds & {"dead_units", "plateau", "non_finite", "loss_or_output_mismatch"}:
        hidden.add("vanishing_gradients")
    if "non_finite" in kinds:
        hidden |= {"exploding_gradients", "dead_units"}
    return [f for f in found if f.kind not in hidden]


def _finding(
    kind: Kind,
    cause: Cause,
    severity: Severity,
    confidence: float,
    layers: Iterable[str],
    summary: str,
    evidence: Sequence[tuple[str, str, float, float, str]],
    attribution: Attribution | None = None,
) -> Finding:
    """`evidence`: (layer, statistic, value, threshold, source) each."""
    return Finding(
        kind=kind,
        cause=cause,
        severity=severity,
        confidence=confidence,
        layers=tuple(dict.fromkeys(layers)),
        first_step=0,
        summary=summary,
        evidence=tuple(
            Evidence(layer=at, statistic=what, value=value, threshold=limit, steps=(0, 0), source=source)
            for at, what, value, limit, source in evidence
        ),
        attribution=attribution or Attribution(),
        treatments=TREATMENTS[cause],
    )


# --- the signal -----------------------------------------------------------------------------------------------


def _nonfinite(flow: Flow) -> Iterable[Finding]:
    if flow.nonfinite:
        first = flow.nonfinite[-1]  # the nearest to the output: there it begins
        yield _finding(
            "non_finite", "init_too_large", "critical", 0.9, flow.nonfinite,
            f"the signal is NaN or infinite from {place(first)} on, before anything was trained.",
            [(first, "gradient elements that are not finite (1 = some)", 1.0, 0.0, _SGD)],
        )  # fmt: skip


def _dead(measured: Measured, flow: Flow) -> Iterable[Finding]:
    if not flow.closed:
        return
    worst = max(flow.closed, key=lambda g: g.closed)
    cuts = worst.closed >= ALL
    share = "all" if cuts else f"{worst.closed:.0%}"
    cause: Cause = "too_deep"
    if worst.activation in _BOUNDED:
        cause = "saturating_activation"  # closed at its upper end, or at both
    elif measured.run.architecture and worst.layer == measured.run.architecture[0].name:
        cause = "inputs" if _large(measured) else "bias_drift"
    yield _finding(
        "dead_units", cause, "critical" if cuts else "warning", 0.95 if cuts else 0.6, [g.layer for g in flow.closed],
        f"{share} of the {worst.units} units behind {place(worst.layer)} are closed for every sample"
        f"{' and cut off everything before them' if cuts else ''}.",
        [
            (g.layer, "share of units that pass no signal for any sample of the batch", g.closed,
             ALL if cuts else MOST, _DEAD)
            for g in flow.closed[:5]
        ],
    )  # fmt: skip


def _exploding(measured: Measured, flow: Flow, *, clipped: bool) -> Iterable[Finding]:
    if not measured.flow.profiles or max(flow.peak, flow.forward) <= LIMIT or flow.peak_at is None:
        return
    backward = flow.peak >= flow.forward
    traced = measured.flow.profiles[0].traced
    first = measured.flow.profiles[0].layers[0]
    at = flow.peak_at.layer if backward else flow.forward_at
    cause, parts = cause_of_growth(traced, flow.peak_at.operation if backward else first.operation)
    if not backward and cause == "too_deep":
        cause = "init_too_large"
    amount, way = (flow.peak, "backward") if backward else (flow.forward, "forward")
    held = clipped and backward
    yield _finding(
        "exploding_gradients", cause, "warning" if held else "critical", 0.8, [at],
        f"the {way} signal grows by {amount:.1f} decades up to {place(at)} before anything was trained"
        f"{'; clipping holds the steps' if held else ''}.",
        [(at, f"growth of the {way} signal over the depth, log10", amount, LIMIT, _SGD)], parts,
    )  # fmt: skip


def _through_time(flow: Flow) -> Iterable[Finding]:
    faded = flow.faded
    if faded is None or not faded.decades < FORGOTTEN or flow.entry < -LIMIT:
        return
    lost = max(faded.decades, -300.0)
    yield _finding(
        "vanishing_gradients", "recurrence", "critical", 0.7, [faded.layer],
        f"going back through time, {place(faded.layer)} loses {-lost:.1f} decades of signal between its last step "
        "and its first: what happened early can't be learned.",
        [(faded.layer, "backprop signal at the first time step over the last, log10", lost, FORGOTTEN, _SGD)],
        Attribution(other=lost),
    )  # fmt: skip


def _vanishing(measured: Measured, flow: Flow) -> Iterable[Finding]:
    if not flow.entry < -LIMIT or flow.most_starved is None:
        return
    target = flow.most_starved
    cause, parts, _ = cause_of_loss(measured.flow.profiles[0].traced, target.operation)
    severity, masked = _mask(measured, flow)
    losses = {"activation derivatives": parts.activation, "weights": parts.weight, "norms": parts.norm}
    shares = [f"{name} took {-v:.1f}" for name, v in sorted(losses.items(), key=lambda i: i[1]) if v < -0.05]
    amount = "nothing" if flow.entry == -math.inf else f"10^{flow.entry:.1f}"
    blame = (
        f"; of the {-parts.total:.1f} decades lost on the way to {place(target.layer)} {', '.join(shares)}"
    )
    yield _finding(
        "vanishing_gradients", cause, severity, 0.9 if severity == "critical" else 0.6, flow.starved,
        f"of the signal that leaves the output {amount} reaches the first layers{blame if shares else ''}{masked}.",
        [(flow.starved[0] if flow.starved else target.layer, "backprop signal relative to the output, log10",
          max(flow.entry, -300.0), -LIMIT, _SGD)], parts,
    )  # fmt: skip


def _mask(measured: Measured, flow: Flow) -> tuple[Severity, str]:
    """An optimizer that divides by the gradient's own size makes up for its scale, until that nears its epsilon."""
    optimizers = measured.run.info.optimizers
    masking = [o for o in optimizers if o.class_name.lower() in ADAPTIVE]
    if not masking:
        return "critical", ""
    name = masking[0].class_name
    if flow.told_apart is not None and flow.told_apart < _ROUNDED_AWAY:
        return (
            "critical",
            f", and the samples look alike at the last layer, which {name} can't make up for",
        )
    size, epsilon = _first_gradient(measured), _epsilon(masking[0])
    if flow.entry == -math.inf or (size is not None and size < epsilon):
        return "critical", f", less than the epsilon of {name}"
    return "warning", f"; {name} divides each gradient by its own size and so makes up for the scale"


def _epsilon(optimizer: OptimizerInfo) -> float:
    value = optimizer.options.get("eps")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _EPSILON


def _first_gradient(measured: Measured) -> float | None:
    known = measured.gradients or {}
    names = [p.name for p in measured.run.info.parameters if len(p.shape) > 1 and p.requires_grad]
    return next((known[n] for n in names if known.get(n) is not None), None)


# --- the weights ----------------------------------------------------------------------------------------------


def _symmetry(measured: Measured, flow: Flow) -> Iterable[Finding]:
    if measured.bare:
        return
    alike = [
        s
        for s in measured.run.architecture[:-1]
        if s.unit_variety is not None and s.fan_out > 1 and s.unit_variety < _COPIES
    ]
    zero = [s for s in alike if s.weight_variance == 0]
    cut = flow.entry == -math.inf
    alike = [s for s in alike if s.weight_variance > 0 or cut]  # zero branches beside a skip are meant
    if not alike:
        return
    what = (
        "start at zero: no signal passes, and none comes back"
        if len(zero) == len(alike)
        else "start as copies of one another, get the same gradient and stay copies"
    )
    yield _finding(
        "plateau", "symmetry", "critical", 0.9, [s.name for s in alike],
        f"the units of {place(alike[0].name)} {what}.",
        [(s.name, "share of the weights' mean square that differs between units", s.unit_variety or 0.0, _COPIES,
          _SYMMETRY) for s in alike[:5]],
    )  # fmt: skip


def _disconnected(measured: Measured) -> Iterable[Finding]:
    weights = [p for p in measured.run.info.parameters if len(p.shape) > 1]
    trained = [p for p in weights if p.requires_grad]
    known = measured.gradients
    if known is not None and trained and all(known.get(p.name) is None for p in trained):
        yield _cut(
            "detached", trained, 1.0, "critical", "no gradient arrives at any weight when the optimizer steps"
        )
        return
    optimizers = measured.run.info.optimizers
    groups: list[tuple[Cause, list[ParameterInfo], float, Severity, str]] = [
        (
            "not_in_optimizer",
            [p for p in trained if optimizers and p.optimizer is None],
            _MANY,
            "critical",
            "no optimizer steps them",
        ),
        (
            "detached",
            [p for p in trained if known is not None and p.name in known and known[p.name] is None],
            _MANY,
            "warning",
            "no gradient arrives there: the graph between them and the loss is cut, or this batch does not use them",
        ),
        ("frozen", [p for p in weights if not p.requires_grad], _MOSTLY, "note", "requires_grad is False"),
    ]
    for cause, members, most, severity, words in groups:
        share = _share(members, weights)
        if members and share >= most:
            yield _cut(cause, members, share, severity, words)


def _cut(
    cause: Cause, members: Sequence[ParameterInfo], share: float, severity: Severity, words: str
) -> Finding:
    layers = list(dict.fromkeys(parameter_layer(p.name) for p in members))
    names = ", ".join(place(layer) for layer in layers[:3])
    names += f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return _finding(
        "disconnected_parameters", cause, severity, 0.8, layers, f"{names} will not learn: {words}.",
        [(layers[0], "share of the weights", share, _MANY, _STEP)],
    )  # fmt: skip


def _share(members: Sequence[ParameterInfo], weights: Sequence[ParameterInfo]) -> float:
    elements = sum(p.numel for p in members) / max(1, sum(p.numel for p in weights))
    return max(elements, len(members) / max(1, len(weights)))


# --- what it is fed with, and what its output is fed to -------------------------------------------------------


def _mismatch(measured: Measured) -> Iterable[Finding]:
    profiles = () if measured.at_loss is None else measured.at_loss.profiles
    fit = misfit(profiles[0]) if profiles else None
    if fit is None:
        return
    operation = profiles[0].traced.operations[fit.operation]
    layer = operation.module or operation.name
    swallowed = fit.value < 0  # else the structure alone looks odd, and it may be meant
    yield _finding(
        "loss_or_output_mismatch", "output_activation", "critical" if swallowed else "warning",
        round(fit.confidence - 0.1, 2), [layer],
        f"at the output: {fit.words}.", [(layer, fit.statistic, fit.value, fit.threshold, _OUTPUT)],
    )  # fmt: skip


def _attention(measured: Measured, flow: Flow) -> Iterable[Finding]:
    if not measured.flow.profiles or flow.entry < -LIMIT:
        return
    gains = softmax_gains(measured.flow.profiles[0])
    (layer, _), gain = min(gains.items(), key=lambda item: item[1], default=(("", 0), 0.0))
    if gain < NOTHING:
        yield _finding(
            "vanishing_gradients", "attention_saturation", "critical", 0.7, [layer],
            f"the softmax in {place(layer)} is nearly one-hot: it hands back 10^{gain:.1f} of the signal it gets, so "
            "what decides where to look can't learn.",
            [(layer, "gain of the softmax, log10", gain, NOTHING, _ATTENTION)],
        )  # fmt: skip


def _large(measured: Measured) -> bool:
    entry = measured.run.architecture[0]
    return math.sqrt(entry.input_second_moment or 0.0) > _LARGE_INPUT


def _inputs(measured: Measured, *, harmful: bool) -> Iterable[Finding]:
    layers = measured.run.architecture
    if not layers or measured.bare:
        return
    entry = layers[0]
    known = [s.input_variety for s in layers if s.input_variety is not None]
    if entry.input_variety is not None and all(v < _SAME_INPUT for v in known):
        yield _finding(
            "uninformative_data", "inputs", "warning", 0.8, [entry.name],
            f"{place(entry.name)} gets the same input for every sample of this batch.",
            [(entry.name, "share of the input's mean square that differs between samples", entry.input_variety,
              _SAME_INPUT, _INPUTS)],
        )  # fmt: skip
        return
    size = math.sqrt(entry.input_second_moment or 0.0)
    if size > _LARGE_INPUT:
        yield _finding(
            "uninformative_data", "inputs", "critical" if harmful else "warning", 0.6, [entry.name],
            f"{place(entry.name)} gets inputs of size {size:.3g}; scale them to about 1.",
            [(entry.name, "rms of the input", size, _LARGE_INPUT, _INPUTS)],
        )  # fmt: skip
