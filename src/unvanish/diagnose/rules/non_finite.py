"""Non-finite values: NaN or Inf in the loss or in gradients, and where they were first seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from unvanish.diagnose.causes import SOFTMAXES
from unvanish.diagnose.facts import GIANT_STEP, Facts
from unvanish.diagnose.path import layer_name
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Cause, Evidence, Finding, TreatmentName
from unvanish.schema.graph import Operation, place

_DOMAIN = frozenset("Sqrt Rsqrt Log Log2 Log10".split())  # of positive numbers only
_NORMS = frozenset("Norm LinalgVectorNorm".split())
_FILLS = ("MaskedFill", "Where")
_RISKY = _DOMAIN | frozenset("Div Reciprocal Pow Acos Asin Atanh Exp Std Norm LinalgVectorNorm".split())
_TREATMENTS: dict[Cause, tuple[TreatmentName, ...]] = {
    "inputs": ("inputs",),
    "low_precision": ("precision", "inputs", "learning_rate"),
    "normalization": ("precision", "layernorm", "batchnorm"),
    "init_too_large": ("init", "layernorm", "clip"),
    "output_activation": ("output", "precision", "learning_rate"),
}
# where an operation is known that makes it, and where none is
_KEPT_OFF: tuple[TreatmentName, ...] = ("precision", "learning_rate", "clip")
_CALMED: tuple[TreatmentName, ...] = ("learning_rate", "clip", "init")
_HALF = ", in float16, which holds no number above 65504"
_SOURCE = "IEEE 754: NaN spreads through every sum that it enters"


def _check(facts: Facts) -> Iterable[Finding]:
    at, layers = facts.first_nonfinite
    bad_loss = facts.learning.first_bad_step
    if at is None and bad_loss is None:
        return
    if facts.learning.learns:
        return  # it came and went (a skipped step of loss scaling), and the net learns
    seen = min(s for s in (at, bad_loss) if s is not None)
    lasting = facts.learning.status == "non_finite"
    where = f"first in the gradient of {place(layers[0])}" if layers else "in the loss before any gradient"
    cause, begin, overflow = _cause(facts)
    layers = tuple(dict.fromkeys((begin, *layers))) if begin else layers
    yield Finding(
        kind="non_finite",
        cause=cause,
        severity="critical" if lasting else "warning",
        confidence=0.99,
        layers=layers,
        first_step=seen,
        summary=f"NaN or Inf since step {seen}, {where}{overflow}; {facts.learning.sentence}.",
        evidence=(
            Evidence(
                layer=layers[0] if layers else "loss",
                statistic="share of values that are NaN or Inf",
                value=_share(facts, seen, layers),
                threshold=0.0,
                steps=(seen, seen),
                source=_SOURCE,
            ),
        ),
        treatments=_treatments(cause, overflow, seen),
    )


def _treatments(cause: Cause, words: str, seen: int) -> tuple[TreatmentName, ...]:
    """What mends it. NaN in the first pass of all comes before any step: no rate has made it."""
    if cause == "unknown":
        return _KEPT_OFF if words or seen == 0 else _CALMED
    if cause == "inputs" and words:  # a mask, and not the data
        return ("precision", "inputs")
    return _TREATMENTS.get(cause, _CALMED)


def _cause(facts: Facts) -> tuple[Cause, str, str]:
    """(cause, layer where it begins, words on it): by the number format, else by the operation where it begins."""
    if facts.in_float16:
        return "low_precision", _first_layer(facts), _HALF
    found = _origin(facts)
    if found is None:
        return _by_structure(facts)
    operation, inside = found
    layer = layer_name(operation)
    wide = facts.wide_init
    if wide and facts.profiles[0].layers and any(s.nonfinite for s in facts.profiles[0].layers):
        return (
            "init_too_large",
            wide,
            f": the weights of {place(wide)} start far larger than its inputs allow",
        )
    where = f", and {operation.name.lower()} of {place(layer)} has no finite value or slope there"
    if not inside:
        return "output_activation", "", where
    return ("normalization" if _norm_like(facts, operation) else "unknown"), layer, where


def _first_layer(facts: Facts) -> str:
    """The first layer whose output was not finite, in the first pass where one was not ("" = none was seen)."""
    for profile in facts.profiles:
        for index in profile.traced.weighted():
            size = profile.traced.stats[index].output_rms
            if size is not None and not math.isfinite(size):
                return layer_name(profile.traced.operations[index])
    return ""


def _by_structure(facts: Facts) -> tuple[Cause, str, str]:
    """Where no pass shows it: a root or a logarithm of what a linear layer gives, which may be below zero."""
    last = next((p for p in reversed(facts.profiles) if not any(s.nonfinite for s in p.layers)), None)
    if last is None or facts.heaviest_step()[0] > GIANT_STEP:
        return "unknown", "", ""
    operations = last.traced.operations
    for operation in operations:
        fed = _fed_by(operations, operation)
        if operation.name in _DOMAIN and fed is not None and fed.kind == "weight":
            layer = layer_name(fed)
            words = f": the {operation.name.lower()} of what {place(layer)} gives, which may be below zero"
            return "output_activation", layer, words
        if operation.name in SOFTMAXES and fed is not None and fed.name in _FILLS:
            layer = layer_name(operation)
            words = f": the softmax in {place(layer)} is over scores that a mask fills; of a row that is"
            return "inputs", layer, f"{words} filled whole (an empty sequence, say) it gives NaN"
        if operation.name == "Div" and (divided := _by_own_norm(operations, operation)) is not None:
            layer = layer_name(divided)
            words = f": what {place(layer)} gives is divided by its own norm, which may be zero"
            return "normalization", layer, words
    return "unknown", "", ""


def _fed_by(operations: Sequence[Operation], operation: Operation) -> Operation | None:
    """What makes the first operand of an operation, views of it left out; None where it is data."""
    return _unshaped(operations, operations[operation.parents[0]]) if operation.parents else None


def _unshaped(operations: Sequence[Operation], operation: Operation) -> Operation | None:
    """What an operation is a view of, at last; None where that is data."""
    while operation.kind == "shape":
        if not operation.parents:
            return None
        operation = operations[operation.parents[0]]
    return operation


def _by_own_norm(operations: Sequence[Operation], division: Operation) -> Operation | None:
    """The weighted layer whose output is divided by its own norm, with nothing that keeps the norm from zero."""
    if len(division.parents) != 2:
        return None
    above = operations[division.parents[0]]
    norm = _unshaped(operations, operations[division.parents[1]])
    own = norm is not None and norm.name in _NORMS and norm.parents == (above.index,)
    divided = _unshaped(operations, above)
    return divided if own and divided is not None and divided.kind == "weight" else None


def _origin(facts: Facts) -> tuple[Operation, bool] | None:
    """(the operation that can make NaN or Inf of finite numbers, whether weighted layers come behind it).

    Of those between the last layer whose output was finite and the first one whose was not; where all layers' were
    finite, those behind the last one.
    """
    for profile in facts.profiles:
        traced = profile.traced
        sizes = {i: traced.stats[i].output_rms for i in traced.weighted()}
        known = [(i, v) for i, v in sorted(sizes.items()) if v is not None]
        bad = next((i for i, v in known if not math.isfinite(v)), None)
        if not known or not math.isfinite(known[0][1]) or (bad is None and math.isfinite(traced.trace.loss)):
            continue
        last = max((i for i, v in known if math.isfinite(v) and (bad is None or i < bad)), default=-1)
        end = len(traced.operations) if bad is None else bad
        risky = [o for o in traced.operations[last + 1 : end] if o.name in _RISKY]
        return (risky[0], bad is not None) if risky else None
    return None


def _norm_like(facts: Facts, operation: Operation) -> bool:
    """Whether it divides by a root inside of one module, as home-made norms do."""
    graph = next(p.traced.operations for p in facts.profiles)
    names = {o.name for o in graph if o.module == operation.module and o.module is not None}
    return operation.kind == "norm" or ("Div" in names and bool(names & {"Sqrt", "Std", "Var", "Pow"}))


def _share(facts: Facts, step: int, layers: tuple[str, ...]) -> float:
    if not layers or step not in facts.model.parameter_steps:
        return 1.0
    row = facts.model.parameter_steps.index(step)
    width = len(facts.model.info.parameters)
    values = facts.model.parameter_stats["gradient_nonfinite"][row * width : (row + 1) * width]
    return max((v for v in values if math.isfinite(v)), default=1.0)


RULE = Rule(
    kind="non_finite",
    check=_check,
    why="Once a weight is NaN, everything that it touches is.",
    wrong_when="Loss scaling skips steps with Inf on purpose; a net that learns on is not reported.",
    source=_SOURCE,
)
