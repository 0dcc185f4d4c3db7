"""Loss and output that do not fit: an activation that swallows the gradient, a loss fed with the wrong thing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import FEWEST, THRESHOLD, Facts, Profile
from unvanish.diagnose.path import Traced, decades, layer_name
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Attribution, Cause, Evidence, Finding
from unvanish.schema.graph import place

_SQUASHES = ("Sigmoid", "Tanh", "Softmax", "Relu", "Hardtanh", "Hardsigmoid", "Clamp")
_SHAPES = frozenset(
    "View UnsafeView Squeeze Unsqueeze Transpose T Permute Clone ToCopy Select Slice Alias".split()
)
_LOGARITHMS = ("LogSoftmax", "Log", "LogSigmoid")
_SOURCE = (
    "Goodfellow et al. 2016, Deep Learning, 6.2.2: an output unit needs a loss that undoes its saturation"
)


@dataclass(frozen=True, slots=True)
class Misfit:
    """What does not fit, in one trace."""

    operation: int
    words: str
    statistic: str
    value: float
    threshold: float
    confidence: float
    cause: Cause = "output_activation"


def _check(facts: Facts) -> Iterable[Finding]:
    if facts.stalled and _maximizes(facts):
        yield _maximizing(facts)
        return
    poorly = facts.learning.poorly and facts.learning.steps >= 2 * FEWEST
    if not (facts.stalled or poorly or _below_zero(facts) or _broadcasts(facts)) or not facts.recent:
        return
    # where every layer is driven into saturation by its weights, the output's activation is but the last of them
    by_gain = facts.stalled and not (facts.wide_init and all(map(_saturated_within, facts.recent)))
    found = [misfit(p, by_gain=by_gain) for p in facts.recent]
    fits = [m for m in found if m is not None]
    # by place and not by number: sequences of another length have more operations before it
    kinds = {
        (layer_name(p.traced.operations[m.operation]), m.statistic)
        for p, m in zip(facts.recent, found, strict=True)
        if m is not None
    }
    if len(fits) < len(found) or len(kinds) != 1:
        return
    last, fit = facts.recent[-1], fits[-1]
    operation = last.traced.operations[fit.operation]
    layer = layer_name(operation)
    yield Finding(
        kind="loss_or_output_mismatch",
        cause=fit.cause,
        severity="critical" if facts.stalled else "warning",
        confidence=fit.confidence if facts.stalled else 0.75,
        layers=(layer,),
        first_step=facts.recent[0].step,
        summary=f"at the output, {place(layer)}: {fit.words}; {facts.learning.sentence}.",
        evidence=(
            Evidence(layer=layer, statistic=fit.statistic, value=fit.value, threshold=fit.threshold,
                     steps=(facts.recent[0].step, last.step), source=_SOURCE),
        ),
        attribution=Attribution(activation=fit.value) if fit.value < 0 else Attribution(),
        treatments=TREATMENTS["output_activation"],
    )  # fmt: skip


def _saturated_within(profile: Profile) -> bool:
    """Whether a bounded activation before the last layer hands back next to nothing, or gets nothing itself."""
    traced, last = profile.traced, profile.layers[-1].operation
    bounded = [
        o for o in traced.operations[:last] if o.name in _SQUASHES and o.kind == "activation" and o.parents
    ]
    slopes = [decades(traced.stats[o.parents[0]].norm, traced.stats[o.index].norm) for o in bounded]
    return bool(slopes) and all(s != s or s < THRESHOLD for s in slopes)


def _below_zero(facts: Facts) -> bool:
    """Whether a negative log-likelihood of classes is negative itself, which that of probabilities can't be."""
    last = facts.learning.last
    classes = bool(facts.recent) and any(
        o.name.startswith("NllLoss") for o in facts.recent[-1].traced.operations
    )
    return classes and last is not None and last < 0 and facts.learning.steps >= 2 * FEWEST


def _broadcasts(facts: Facts) -> bool:
    """Whether predictions and targets are broadcast against each other: no fall of the loss makes that right."""
    if not facts.recent or facts.learning.steps < 2 * FEWEST:
        return False
    fit = misfit(facts.recent[-1], by_gain=False)
    return fit is not None and fit.cause == "unknown"


def _maximizes(facts: Facts) -> bool:
    return any(bool(o.options.get("maximize")) for o in facts.model.info.optimizers)


def _maximizing(facts: Facts) -> Finding:
    return Finding(
        kind="loss_or_output_mismatch",
        cause="unknown",
        severity="critical",
        confidence=0.9,
        layers=(),
        first_step=0,
        summary=f"the optimizer maximizes the loss (maximize=True); {facts.learning.sentence}.",
        evidence=(
            Evidence(layer="", statistic="optimizer's option maximize", value=1.0, threshold=0.0,
                     steps=facts.span, source="torch.optim: maximize=True steps along the gradient"),
        ),
        treatments=TREATMENTS["unknown"],
    )  # fmt: skip


def misfit(profile: Profile, *, by_gain: bool = True) -> Misfit | None:
    """What does not fit between the last weighted layer and the loss."""
    traced = profile.traced
    chain = _to_the_loss(traced, profile.layers[-1].operation)
    if not chain:
        return None
    names = [traced.operations[i].name for i in chain]
    return (
        _by_structure(chain, names)
        or _by_size(traced, chain)
        or (_by_gain(traced, chain) if by_gain else None)
    )


def _by_structure(chain: Sequence[int], names: Sequence[str]) -> Misfit | None:
    for at, (index, name) in enumerate(zip(chain, names, strict=True)):
        after = names[at + 1 :]
        straight = next((n for n in after if n not in _SHAPES), "")
        if name in ("Softmax", "Sigmoid", "Relu") and straight == "LogSoftmax":
            words = f"{name.lower()} is applied to what the cross-entropy takes for logits"
            return Misfit(index, words, "activations between the last layer and log-softmax", 1.0, 0.0, 0.8)
        if name.startswith("NllLoss") and not any(n in _LOGARITHMS for n in names[:at]):
            return Misfit(index, "nll_loss wants log-probabilities and gets something else",
                          "logarithms before nll_loss", 0.0, 1.0, 0.85)  # fmt: skip
        if (
            name == "Expand"
            and len(after) == 1
            and after[-1].startswith(("MseLoss", "SmoothL1Loss", "HuberLoss"))
        ):
            return Misfit(index, "predictions and targets have different shapes and are broadcast against each other",
                          "broadcasts before the loss", 1.0, 0.0, 0.85, "unknown")  # fmt: skip
    return None


def _by_size(traced: Traced, chain: Sequence[int]) -> Misfit | None:
    """A difference of n predictions and n targets that has n times n elements: [n, 1] against [n]."""
    for index in chain:
        operation = traced.operations[index]
        if (
            operation.name not in ("Sub", "Rsub")
            or len(operation.parents) != 1
            or operation.module is not None
        ):
            continue
        count, before = traced.stats[index].count, traced.stats[operation.parents[0]].count
        if before > 1 and count == before**2:
            words = (
                f"{before} predictions less their targets are {count} differences: [n, 1] - [n] is broadcast"
            )
            return Misfit(index, words, "differences per prediction", float(before), 1.0, 0.85, "unknown")
    return None


def _by_gain(traced: Traced, chain: Sequence[int]) -> Misfit | None:
    for index in chain:
        operation, stats = traced.operations[index], traced.stats[index]
        if operation.name not in _SQUASHES or not stats.edge_norms or stats.edge_norms[0] is None:
            continue
        if stats.norm == 0 or not math.isfinite(stats.norm) or _weighs(traced, index):
            continue
        lost = decades(stats.edge_norms[0], stats.norm)
        if lost == -math.inf and operation.name == "Relu":
            continue  # closed for every sample: its units are dead
        if lost < THRESHOLD:
            name = operation.name.lower()
            amount = "all" if lost == -math.inf else f"{-lost:.1f} decades"
            return Misfit(index, f"the {name} on the output swallows the gradient ({amount} of it)",
                          "gain of the output activation, log10", max(lost, -300.0), THRESHOLD, 0.88)  # fmt: skip
    return None


def _weighs(traced: Traced, index: int) -> bool:
    """Whether a softmax gives weights to what the model makes its output of, as routers and attention do."""
    output = traced.trace.output
    if traced.operations[index].name != "Softmax" or output is None or output <= index:
        return False
    return any(o.kind != "shape" for o in traced.operations[index + 1 : output + 1])


def _to_the_loss(traced: Traced, last: int) -> list[int]:
    """The operations behind the last weighted one, in execution order, as far as they follow from it."""
    reached, out = {last}, list[int]()
    for operation in traced.operations[last + 1 :]:
        if reached & set(operation.parents):
            reached.add(operation.index)
            out.append(operation.index)
            if operation.kind == "weight":  # of a module that another model holds: the output is further on
                reached, out = {operation.index}, []
    return out


RULE = Rule(
    kind="loss_or_output_mismatch",
    check=_check,
    why="The first factor of the chain is that of the output: where it is near zero, nothing else matters.",
    wrong_when="A net with a squashing output on purpose, stuck for another reason while the output is extreme.",
    source=_SOURCE,
)
