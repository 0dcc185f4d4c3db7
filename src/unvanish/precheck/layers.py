"""Layer by layer: theory's gain with the band of one net, the measured gain, and why there is no prediction."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unvanish.diagnose.path import Traced
from unvanish.precheck.measure import Measured
from unvanish.schema.architecture import LayerSpec
from unvanish.schema.check import LayerCheck
from unvanish.schema.graph import Graph
from unvanish.theory.finite_width import log_gain_sd
from unvanish.theory.predict import LayerPrediction, predict_gains

FIRST = "nothing lies before the first layer"
AGAIN = "its weights are used again and again, and theory takes those of each layer as new"
_FOLLOWED = re.compile(r"^.*, before it, can't be followed$")
BAND_SDS = 2.0  # standard deviations on either side: 95 % of nets
SCATTER = 0.05  # nats of a squared gain that four probes and samples of large tensors leave uncertain


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """One layer's gain, predicted and measured; squares of L2 norms, gauge-free where a norm lies at either end."""

    spec: LayerSpec
    before: LayerSpec | None  # the layer whose output the signal is handed on to
    predicted: float | None
    measured: float | None
    why: str


def gains_of(measured: Measured) -> tuple[Gain, ...]:
    """One per layer of the architecture, in execution order; the first layer hands on to nothing."""
    return gains_from(measured, measured.run.architecture)


def gains_from(measured: Measured, specs: Sequence[LayerSpec]) -> tuple[Gain, ...]:
    """The same with other descriptions of these layers."""
    trace = measured.run.traces[0]
    traced = Traced(trace, measured.run.graphs[trace.graph])
    links = _links(specs, measured.places, traced.graph)
    predictions = _predictions(specs, links)
    out = []
    for at, (spec, link, prediction) in enumerate(zip(specs, links, predictions, strict=True)):
        before = None if link.before is None else specs[link.before]
        normed = before is not None and (before.norm != "none" or spec.norm != "none")
        found = None
        if link.before is not None and not measured.bare:
            found = _measured(measured, traced, link.before, at, normed=normed)
        out.append(
            Gain(
                spec=spec,
                before=before,
                predicted=_predicted(prediction, predictions, link.before, normed=normed),
                measured=found,
                why=link.why or _FOLLOWED.sub("the layer before it can't be followed", prediction.reason),
            )
        )
    return tuple(out)


def layer_checks(measured: Measured, gains: Sequence[Gain]) -> tuple[LayerCheck, ...]:
    """The rows of the table."""
    levels: dict[int, float] = {}
    for profile in measured.flow.profiles:
        levels.update({s.operation: s.raw for s in profile.layers})
    counts: dict[str, int] = {}
    rows = []
    for gain, place in zip(gains, measured.places, strict=True):
        name = gain.spec.name
        counts[name] = counts.get(name, 0) + 1
        rows.append(
            LayerCheck(
                name=name if counts[name] == 1 else f"{name} (call {counts[name]})",
                signal=levels.get(place, math.nan),
                predicted=gain.predicted,
                band=band_of(gain),
                measured=gain.measured,
                why_no_prediction="" if gain.predicted is not None else gain.why,
            )
        )
    return tuple(rows)


def band_of(gain: Gain) -> tuple[float, float] | None:
    """Where one net may lie: exp(+- 2 sd) around the mean, sd = sqrt(5 / n) nats (Hanin and Nica 2018)."""
    if gain.predicted is None or gain.before is None:
        return None
    spread = math.hypot(log_gain_sd(1, max(1, gain.before.fan_out)), SCATTER)
    return gain.predicted * math.exp(-BAND_SDS * spread), gain.predicted * math.exp(BAND_SDS * spread)


def mean_gain(gains: Sequence[Gain], *, predicted: bool) -> float | None:
    """Geometric mean over the hidden layers (else of the output alone); None where one is missing."""
    known = [g for g in gains if g.before is not None]
    inner = known[:-1] or known
    values = [g.predicted if predicted else g.measured for g in inner]
    found = [v for v in values if v is not None]
    if not found or len(found) < len(values):
        return None
    if min(found) <= 0:
        return 0.0
    return math.exp(math.fsum(math.log(v) for v in found) / len(found))


def total_decades(gains: Sequence[Gain]) -> float | None:
    """log10 of the amplitude that theory expects at the first layer, of what leaves the output; None = no say."""
    known = [g.predicted for g in gains if g.before is not None]
    found = [p for p in known if p is not None]
    if not found or len(found) < len(known):
        return None
    return math.fsum(0.5 * math.log10(p) if p > 0 else -300.0 for p in found)


# --- how the layers hang together -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Link:
    before: int | None  # the one layer before this one, by position; None where there is none, or several
    why: str  # why there is no prediction: "" = there may be one


def _links(specs: Sequence[LayerSpec], places: Sequence[int], graph: Graph) -> list[_Link]:
    nearest = _nearest(graph, set(places))
    position = {place: at for at, place in enumerate(places)}
    uses: dict[str, int] = {}
    for place in places:
        for name in graph.operations[place].parameters:
            uses[name] = uses.get(name, 0) + 1
    links: list[_Link] = []
    for place in places:
        above = sorted(position.get(p, -1) for p in nearest[place])
        operation = graph.operations[place]
        again = any(uses[name] > 1 for name in operation.parameters if name)
        before = above[-1] if above and above[-1] >= 0 else None
        why = ""
        if not above:
            why = FIRST
        elif again:
            why = AGAIN
        elif -1 in above:
            why = "an operation lies before it that theory has no say on"
        elif len(above) > 1 and not all(specs[a].skip == "identity" for a in above[1:]):
            why = f"{len(above)} layers feed it, and not by plain skips"
        links.append(_Link(before, why))
    return links


def _nearest(graph: Graph, places: set[int]) -> dict[int, frozenset[int]]:
    """For each layer the layers (or other weighted operations) that lead to it with no further one in between."""
    found: dict[int, frozenset[int]] = {}
    out: dict[int, frozenset[int]] = {}
    for operation in graph.operations:
        reached = frozenset[int]().union(*(found[p] for p in operation.parents))
        if operation.index in places:
            out[operation.index] = reached
        stops = operation.index in places or operation.kind == "weight"
        found[operation.index] = frozenset((operation.index,)) if stops else reached
    return out


def _predictions(specs: Sequence[LayerSpec], links: Sequence[_Link]) -> list[LayerPrediction]:
    """Theory's word on every chain of layers: it begins anew wherever a layer has not just the one before it."""
    out: list[LayerPrediction] = []
    chain: list[LayerSpec] = []
    for at, (spec, link) in enumerate(zip(specs, links, strict=True)):
        if link.why or link.before != at - 1:
            out += predict_gains(chain)
            chain = []
        chain.append(replace(spec, predictable=False) if link.why == AGAIN else spec)
    return [*out, *predict_gains(chain)]


# --- the two gains --------------------------------------------------------------------------------------------


def _predicted(
    prediction: LayerPrediction, known: Sequence[LayerPrediction], before: int | None, *, normed: bool
) -> float | None:
    gain = prediction.norm_gain
    if gain is None or before is None or prediction.after != known[before].name:
        return None
    if not normed:
        return gain
    own, other = prediction.length, known[before].length
    return gain * other / own if own and other else None


def _measured(measured: Measured, traced: Traced, before: int, at: int, *, normed: bool) -> float | None:
    norms = [traced.stats[measured.places[i]].norm for i in (before, at)]
    if not norms[1] > 0 or not all(map(math.isfinite, norms)):
        return None
    gain = (norms[0] / norms[1]) ** 2
    if not normed:
        return gain
    own, other = measured.variances[at], measured.variances[before]
    return gain * other / own if own and other else None
