"""From the largest factor of the product to the cause, and from the cause to what may cure it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unvanish.diagnose.path import Traced, attribution, is_weight
from unvanish.schema.chain import Factor
from unvanish.schema.finding import Attribution, Cause, TreatmentName

_CELLS = frozenset("RNN LSTM GRU RNNCell LSTMCell GRUCell".split())
SOFTMAXES = ("Softmax", "SafeSoftmax", "MaskedSoftmax")
FUSED = ("ScaledDotProduct", "EfficientAttention", "FlashAttention")  # autograd's names begin with
ATTENTIONS = 3  # layers
RECURRENT = 4  # the same weight this often on one path is a recurrence
ROUNDS = 10  # of a multiplication without weights
_SATURATING = frozenset("Sigmoid Tanh Hardtanh Hardsigmoid LogSigmoid Softmax Erf Sin Cos".split())
# decades that each takes of the signal in its middle, where nothing is saturated: its slope there
_AT_BEST = {"Sigmoid": 0.6, "Hardsigmoid": 0.78}
_SATURATED = 0.25  # of that, and more, is lost beside it where units are driven into saturation
_GENTLE = 0.1  # decades lost per weighted layer below which no factor is to blame but their number
# activations written by hand are made of these
_CURVED = frozenset("Exp Expm1 Exp2 Log Log1p Pow Reciprocal Div Sqrt Rsqrt Cosh Sinh Atan".split())
_SCALES = frozenset("Mul Div".split())
_SHUT = 0.6  # decades at one gate: less than a half, and the half of what is left
_BY_HAND = 1.0  # decades lost in them
_AMPLIFIES = 0.3  # weights that undo this share of what the activations lose are too large, not too small

TREATMENTS: dict[Cause, tuple[TreatmentName, ...]] = {
    "saturating_activation": ("batchnorm", "residual", "activation", "init", "simplify"),
    "init_too_small": ("init", "batchnorm", "residual", "simplify"),
    "init_too_large": ("init", "batchnorm", "layernorm", "clip"),
    "too_deep": ("residual", "simplify", "batchnorm"),
    "recurrence": ("gated_rnn", "init", "clip"),
    "attention_saturation": ("layernorm", "init"),
    "normalization": ("residual", "layernorm", "simplify"),
    "bias_drift": ("init", "activation", "learning_rate", "batchnorm"),
    "learning_rate": ("learning_rate", "clip"),
    "low_precision": ("precision",),
    "symmetry": ("init",),
    "detached": ("reconnect",),
    "frozen": ("reconnect",),
    "not_in_optimizer": ("reconnect",),
    "labels": ("inputs",),
    "inputs": ("inputs",),
    "output_activation": ("output",),
    "unknown": ("batchnorm", "residual", "learning_rate"),
}


def recurrent_weight(traced: Traced, path: tuple[int, ...] | list[int]) -> str | None:
    """The name of a weight that the path goes through again and again, if there is one."""
    counts: dict[str, int] = {}
    for index in path:
        operation = traced.operations[index]
        if operation.kind == "weight":
            for name in operation.parameters:
                if is_weight(name):
                    counts[name] = counts.get(name, 0) + 1
    often = [name for name, count in counts.items() if count >= RECURRENT]
    return max(often, key=lambda n: counts[n], default=None)


def _within_a_recurrence(traced: Traced, path: Sequence[int], parts: Attribution) -> bool:
    """Whether the signal is lost between the gates of a recurrent cell, whose weights the path need not pass."""
    inside = sum(traced.operations[i].module_class in _CELLS for i in path)
    gates = parts.other + min(0.0, parts.skip)
    return inside > len(path) // 2 and gates < min(parts.activation, parts.weight, parts.norm)


def attends_by(name: str) -> bool:
    """Whether an operation is a softmax, or an attention that runs as one operation; by autograd's name."""
    return name in SOFTMAXES or name.startswith(FUSED)


def _is_number(traced: Traced, factor: Factor) -> bool:
    """Whether an operation takes one tensor that the net computes, beside a number or a constant."""
    return len(traced.operations[factor.operation].parents) < 2


def _attends_without_skips(traced: Traced, path: Sequence[int]) -> bool:
    """Whether many attention layers follow each other with no way round them: their outputs come to be all alike.

    Dong et al. 2021, Attention is not all you need: without skips the rank is lost doubly exponentially with depth,
    whatever the initialisation.
    """
    attends = sum(attends_by(o.name) for o in traced.operations if o.kind != "loss")
    skips = sum(traced.operations[i].kind == "skip" for i in path)
    return attends > ATTENTIONS and skips < attends / 2  # the sum of two embeddings is no way round


def cause_of_loss(traced: Traced, target: int) -> tuple[Cause, Attribution, tuple[Factor, ...]]:
    """Why the signal is lost on the way from the output to `target`: the largest of the losing factors."""
    path = traced.path_to(target)
    factors = traced.factors(path)
    parts = attribution(factors)
    if recurrent_weight(traced, path) is not None or _within_a_recurrence(traced, path, parts):
        return "recurrence", parts, factors
    if _attends_without_skips(traced, path):
        return "too_deep", parts, factors
    return _worst(traced, parts, factors), parts, factors


def _worst(traced: Traced, parts: Attribution, factors: Sequence[Factor]) -> Cause:
    losses: dict[str, float] = {"activation": parts.activation, "weight": parts.weight, "norm": parts.norm}
    losses["softmax"] = _decades(f for f in factors if f.kind == "softmax")
    bar = min(*losses.values(), -_BY_HAND)
    others = [f for f in factors if f.kind == "other"]
    scales = [f for f in others if f.name in _SCALES and _is_number(traced, f)]
    if _decades(f for f in others if f.name in _CURVED and f not in scales) < bar:
        return "init_too_large" if parts.weight > 0 else "saturating_activation"
    gates = [f for f in others if f.name == "Mul" and f not in scales]
    if _decades(gates) < bar:
        shut = _decades(gates) < -_SHUT * len(gates)
        return "saturating_activation" if shut else "too_deep"  # open by half, each halves what passes
    if _decades(scales) < bar:
        return "init_too_small"  # the weights, times the numbers that the script puts to them
    layers = sum(f.kind == "weight" for f in factors)
    if layers and parts.total / layers > -_GENTLE:
        return "too_deep"
    worst = min(losses, key=lambda k: losses[k])
    if worst == "softmax":
        return "attention_saturation"
    if worst == "activation" and any(f.decades < 0 and f.name in _SATURATING for f in factors):
        driven = parts.weight > _AMPLIFIES * -parts.activation and _driven(factors)
        return "init_too_large" if driven else "saturating_activation"
    # a ReLU halves the signal by nature: the weights must make up for it
    return "normalization" if worst == "norm" else "init_too_small"


def _driven(factors: Sequence[Factor]) -> bool:
    """Whether activations take clearly more than they do in their middle: the weights drive them to their ends."""
    bounded = [f for f in factors if f.name in _SATURATING]
    at_best = sum(_AT_BEST.get(f.name, 0.0) for f in bounded)
    return _decades(bounded) < -(1 + _SATURATED) * at_best


def _decades(factors: Iterable[Factor]) -> float:
    return sum(max(-300.0, f.decades) for f in factors)


def attribution_to(traced: Traced, target: int) -> Attribution:
    """Decades by kind of factor on the way from the output to `target`."""
    return attribution(traced.factors(traced.path_to(target)))


def _repeats(traced: Traced, path: Sequence[int]) -> bool:
    """Whether a module multiplies again and again on the path: a state that is handed on from step to step."""
    places = [traced.operations[i].module for i in path if traced.operations[i].name in _SCALES]
    return any(places.count(place) >= ROUNDS for place in set(places))


def cause_of_growth(traced: Traced, target: int) -> tuple[Cause, Attribution]:
    """Why the signal grows on the way from the output to `target`: the largest of the growing factors."""
    path = traced.path_to(target)
    parts = attribution(traced.factors(path))
    if recurrent_weight(traced, path) is not None:
        return "recurrence", parts
    if parts.other > max(parts.weight, parts.skip, parts.activation, parts.norm) and _repeats(traced, path):
        return "recurrence", parts
    if parts.norm > max(parts.weight, parts.skip, parts.activation):
        return "normalization", parts
    drawn = parts.weight + parts.other + parts.activation  # a sine's frequency, say, is a part of its weights
    return ("init_too_large" if drawn >= parts.skip else "too_deep"), parts
