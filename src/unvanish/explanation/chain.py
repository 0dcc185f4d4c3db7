"""The product of factors from the model's output to one parameter, theory's expectation beside each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from unvanish.diagnose.causes import TREATMENTS, cause_of_growth, cause_of_loss
from unvanish.diagnose.facts import THRESHOLD, facts_of
from unvanish.diagnose.path import Traced, attribution, decades, is_weight, layer_name
from unvanish.explanation.forks import forks_of
from unvanish.explanation.time import recurrences_of
from unvanish.schema.chain import Chain, Factor, Recurrence
from unvanish.schema.finding import Cause
from unvanish.schema.graph import ThroughTime
from unvanish.schema.run import ModelRun
from unvanish.theory.predict import LayerPrediction, predict_gains

_NOT_DESCRIBED = ("Embedding", "RnnLayer", "Rnn")  # as probe.architecture.weigh leaves them out


FORGOTTEN = -4.0  # decades between time steps, as the diagnosis has it


def most_starved_parameter(model: ModelRun) -> str | None:
    """The weight that gets the least of the signal (first traced backward pass with a finite signal).

    Where none is starved and one gets far too much, as gradients explode, it is that one's.
    Where a fused recurrent layer forgets what came early, it is that layer's: its single operation looks well fed.
    """
    facts = facts_of(model)
    for profile in facts.profiles:
        if any(s.nonfinite for s in profile.layers):
            continue
        target = profile.most_starved
        loudest = max(profile.layers, key=lambda s: s.raw)
        if target.starvation > THRESHOLD and loudest.raw > -THRESHOLD:
            target = loudest
        fading = min(profile.traced.trace.through_time, key=_forgotten, default=None)
        if fading is not None and _forgotten(fading) < min(FORGOTTEN, target.starvation):
            inside = (
                f"{fading.module}.weight_hh_l{fading.layer}"
                if fading.module
                else f"weight_hh_l{fading.layer}"
            )
            if any(inside in o.parameters for o in profile.traced.operations):
                return inside
        names = [p for p in profile.traced.operations[target.operation].parameters if p]
        heavy = [p for p in names if not p.rsplit(".", 1)[-1].startswith("bias")]
        if heavy or names:
            return (heavy or names)[0]
    used = [p for graph in model.graphs.values() for o in graph.operations for p in o.parameters if p]
    return next(filter(is_weight, used), used[0] if used else None)  # no layer of a kind that is known


def chain_for(model: ModelRun, parameter: str | None, *, step: int | None = None) -> Chain | None:
    """The chain to `parameter` at the traced step nearest to `step` (default: the first that reaches it).

    Where a parameter is used several times (a recurrence), its first use is followed: the longest way.
    None where no traced backward pass reached it.
    """
    if parameter is None:
        return None
    found: list[tuple[int, Traced, int]] = []
    for trace in model.traces:
        graph = model.graphs.get(trace.graph)
        if graph is None or trace.output is None:
            continue
        uses = [o.index for o in graph.operations if parameter in o.parameters]
        if uses and math.isfinite(trace.stats[uses[0]].norm):
            found.append((trace.step, Traced(trace, graph), uses[0]))
    if not found:
        return None
    whole = [f for f in found if _gradient(f[1], f[2], parameter) is not None]  # lean traces leave it out
    found = whole or found
    _, traced, target = found[0] if step is None else min(found, key=lambda f: abs(f[0] - step))
    return _chain(model, parameter, traced, target)


def _chain(model: ModelRun, parameter: str, traced: Traced, target: int) -> Chain:
    path = traced.path_to(target)
    at_start = traced.trace.step == min(t.step for t in model.traces)
    measured = traced.factors(path)
    # theory speaks of the init alone
    factors = _with_theory(measured, model, traced) if at_start else measured
    operation, stats = traced.operations[target], traced.stats[target]
    known = _gradient(traced, target, parameter)
    gradient = math.nan if known is None else known
    cause = _cause(model, traced, path)
    return Chain(
        model=model.info.name,
        parameter=parameter,
        layer=layer_name(operation),
        step=traced.trace.step,
        loss=traced.trace.loss,
        output_layer=layer_name(traced.operations[path[0]]),
        output_norm=traced.stats[path[0]].norm,
        factors=factors,
        signal_norm=stats.norm,
        last_factor=gradient / stats.norm if stats.norm > 0 else 0.0,
        gradient_norm=gradient,
        attribution=attribution(factors),
        depth=sum(traced.operations[i].kind == "weight" for i in path),
        sampled=min((n for i in path if (n := traced.stats[i].sampled) is not None), default=None),
        uses=sum(o.parameters.count(parameter) for o in traced.operations),
        cause=cause,
        treatments=TREATMENTS[cause] if cause is not None else (),
        forks=forks_of(traced, path),
        recurrences=recurrences_of(traced, path),
    )


def _cause(model: ModelRun, traced: Traced, path: Sequence[int]) -> Cause | None:
    """What is to blame where the signal is lost or blown up on the path, beyond what rescaling a layer would do."""
    target = path[-1]
    total = sum(max(-300.0, f.decades) for f in traced.factors(path))
    profile = next(iter(facts_of(replace(model, traces=(traced.trace,))).profiles), None)
    signals = profile.layers if profile is not None else ()
    if any(_faded(r) for r in recurrences_of(traced, path)):
        return "recurrence"
    if any(f.kind == "softmax" and decades(f.gain, 1.0) < THRESHOLD for f in traced.factors(path)):
        return (
            "attention_saturation"  # whatever large keys and queries make up for: what is lost there is lost
        )
    level = next((s.starvation for s in signals if s.operation == target), total)
    if math.isnan(level) or math.isnan(total):
        return None
    if level < THRESHOLD and total < THRESHOLD / 2:
        cause, parts, _ = cause_of_loss(traced, target)
        usual = (parts.activation, parts.weight, parts.norm, parts.skip)
        # an activation that is written out by hand, say: no kind of factor that there is a name for
        return "unknown" if cause.startswith(("init", "saturating")) and parts.other < min(usual) else cause
    # without norms it is the plain size that counts, as it does for the diagnosis: a net whose values explode, too,
    # keeps the scale-free level
    normed = any(traced.operations[i].kind == "norm" for i in path)
    if total > -THRESHOLD and (level > -THRESHOLD or not normed):
        return cause_of_growth(traced, target)[0]
    return None


def _forgotten(part: ThroughTime) -> float:
    """Decades between the time step that hears most and the first."""
    value = decades(part.norms[0], max(part.norms)) if part.norms and not part.reverse else 0.0
    return value if value == value else 0.0


def _faded(recurrence: Recurrence) -> bool:
    norms = [t.signal_norm for t in recurrence.steps]
    return decades(norms[0], max(norms)) < FORGOTTEN


def _gradient(traced: Traced, target: int, parameter: str) -> float | None:
    """The norm of the gradient that this use of the parameter handed to it."""
    pairs = zip(traced.operations[target].parameters, traced.stats[target].parameter_norms, strict=True)
    return next((norm for name, norm in pairs if name == parameter and norm is not None), None)


def _with_theory(factors: Sequence[Factor], model: ModelRun, traced: Traced) -> tuple[Factor, ...]:
    """Theory's gain beside each factor: a layer's prediction covers its weights and what lies just before it."""
    made = predict_gains(model.architecture)
    predictions = {p.name: p for p in made}
    described = [i for i in traced.weighted() if not traced.operations[i].name.endswith(_NOT_DESCRIBED)]
    by_place = dict(zip(described, made, strict=False)) if len(described) == len(made) else {}
    current: LayerPrediction | None = None
    out: list[Factor] = []
    for factor in factors:
        if factor.kind == "weight":
            current = by_place.get(factor.operation) or predictions.get(factor.module or "")
        known = {
            "weight": current.weight_factor,
            "activation": current.activation_factor,
            "norm": current.norm_factor,
            "skip": current.skip_factor,
        } if current is not None else {}  # fmt: skip
        out.append(replace(factor, predicted=known.get(factor.kind)))
    return tuple(out)
