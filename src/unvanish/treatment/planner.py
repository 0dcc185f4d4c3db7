"""From what was found to what is tried, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unvanish.schema.finding import Cause, Finding, TreatmentName
from unvanish.schema.treatment import JsonValue
from unvanish.treatment.candidate import FLOW_TREATMENTS, Candidate, candidate, of
from unvanish.treatment.catalogue import cut, gated_cells, guarded, open_gates, rate, sized
from unvanish.treatment.registry import TREATMENTS

# where nothing is known of the cause
_UNKNOWN: tuple[TreatmentName, ...] = ("learning_rate", "batchnorm", "init", "activation", "residual", "clip")
# what else has cured nets of a kind, behind what the finding names itself
_ALSO: dict[str, tuple[TreatmentName, ...]] = {
    "dead_units": ("init", "activation", "batchnorm", "learning_rate", "inputs"),
    "exploding_gradients": ("init", "batchnorm", "layernorm", "clip", "learning_rate", "residual"),
    "vanishing_gradients": (
        "batchnorm",
        "layernorm",
        "residual",
        "activation",
        "init",
        "inputs",
        "learning_rate",
    ),
    "non_finite": (
        "learning_rate",
        "precision",
        "clip",
        "inputs",
        "output",
        "init",
        "batchnorm",
        "activation",
    ),
    "precision_underflow": ("precision", "learning_rate"),
    "disconnected_parameters": ("reconnect",),
    "learning_rate_too_small": ("learning_rate",),
    "learning_rate_too_large": ("learning_rate", "clip"),
    "uninformative_data": ("inputs", "batchnorm"),
    "loss_or_output_mismatch": ("output", "learning_rate"),
    "plateau": ("init", "learning_rate", "batchnorm", "residual"),
}
_TOO_FAST = frozenset(("learning_rate_too_large", "exploding_gradients", "dead_units", "non_finite"))
_VARIANTS: dict[TreatmentName, tuple[tuple[str, str, dict[str, JsonValue]], ...]] = {
    "clip": (
        ("clip_1", "gradients clipped to a norm of 1", {"norm": 1.0}),
        ("clip_0.1", "gradients clipped to a norm of 0.1", {"norm": 0.1}),
    ),
    "precision": (
        ("float32", "float32 weights", {"mode": "float32"}),
        ("master_weights", "float32 master weights", {"mode": "master_weights"}),
        ("loss_scaling", "loss scaling", {"mode": "loss_scaling"}),
        ("bfloat16", "bfloat16 in place of float16", {"mode": "bfloat16"}),
    ),
    "output": (
        ("output_identity", "no activation at the output", {"kind": "identity"}),
        ("output_sigmoid", "a sigmoid at the output", {"kind": "sigmoid"}),
        ("output_log_softmax", "a log-softmax at the output", {"kind": "log_softmax"}),
    ),
    "inputs": (("inputs", "standardised inputs", {"mode": "standardise"}),),
    "reconnect": (("reconnect", "all parameters trained", {}),),
    "groupnorm": (("groupnorm", "group norm before each activation", {}),),
}
# which of the inits is the first to try: those of a chain are made for other causes
_FIRST: dict[Cause, str] = {"recurrence": "orthogonal", "attention_saturation": "xavier"}
# scores that saturate a softmax are products of two weights, and a step that is made again and again is a power of
# one: smaller ones open the first and calm the second
_SMALLER: dict[Cause, tuple[float, ...]] = {"attention_saturation": (0.1, 0.03), "recurrence": (0.3,)}
# the chain of layers at the start says nothing of these: a screening at the first step can't rank their cures
_LATER_OR_ELSEWHERE: frozenset[Cause] = frozenset(
    ("recurrence", "attention_saturation", "learning_rate", "low_precision", "bias_drift", "labels", "inputs")
)


def candidates_for(
    finding: Finding | None, flow: Sequence[Candidate], usual_rate: float | None = None
) -> tuple[Candidate, ...]:
    """What is worth trials for this finding, the most promising first, each once.

    `flow`: changes of the net, in the order in which a screening or the catalogue ranks them. Where the finding is of
    a signal that is lost from the start, that order counts; else the order of the treatments that the finding names.
    `usual_rate`: of the script, where it raises its rate far above that when it falls ill.
    """
    if finding is None:
        return _in_order(_UNKNOWN, flow, None)
    names = tuple(dict.fromkeys((*finding.treatments, *_ALSO.get(finding.kind, _UNKNOWN))))
    raised = [cut(usual_rate)] if usual_rate is not None and finding.kind in _TOO_FAST else []
    if claims_flow(finding):
        rest = _in_order([n for n in names if n not in FLOW_TREATMENTS], (), finding)
        return _once([*raised, *flow, *rest])
    ordered = _in_order(names, flow, finding)
    return _once([*raised, *ordered[:1], *_ahead(finding), *ordered[1:]])


def _ahead(finding: Finding) -> list[Candidate]:
    """What comes second: not the first of its treatment, and more often right for this cause than others' first."""
    if finding.cause == "recurrence" and finding.kind == "vanishing_gradients":
        return [open_gates()]
    return [sized(gain) for gain in _SMALLER.get(finding.cause, ())]


def claims_flow(finding: Finding) -> bool:
    """Whether it is of a signal that is lost from the start, which a pass at the start and a gain per layer show."""
    lost = finding.kind in ("vanishing_gradients", "exploding_gradients", "dead_units", "plateau")
    return lost and finding.first_step == 0 and finding.cause not in _LATER_OR_ELSEWHERE


def _in_order(
    names: Iterable[TreatmentName], flow: Sequence[Candidate], finding: Finding | None
) -> tuple[Candidate, ...]:
    """Of each treatment its first candidate, in the order of the names; then the second ones, and so on."""
    columns = [_of_name(name, flow, finding) for name in names if name in TREATMENTS.names()]
    longest = max((len(c) for c in columns), default=0)
    return _once(column[row] for row in range(longest) for column in columns if row < len(column))


def _of_name(name: TreatmentName, flow: Sequence[Candidate], finding: Finding | None) -> list[Candidate]:
    known = [c for c in flow if c.treatment == name]
    first = _FIRST.get(finding.cause) if finding is not None else None
    return sorted(known, key=lambda c: c.name != first) or list(_candidates_of(name, finding))


def _candidates_of(name: TreatmentName, finding: Finding | None) -> tuple[Candidate, ...]:
    """What a treatment can be tried as, where the net does not decide it."""
    if name == "learning_rate":
        return tuple(rate(factor) for factor in _factors(finding))
    if name == "gated_rnn":
        return tuple(gated_cells())
    if name == "precision" and finding is not None and finding.kind == "non_finite":
        variants = _VARIANTS[name] if finding.cause == "low_precision" else ()
        return (*(candidate(key, title, of(name, **given)) for key, title, given in variants), guarded())
    return tuple(
        candidate(key, title, of(name, **parameters)) for key, title, parameters in _VARIANTS.get(name, ())
    )


def _factors(finding: Finding | None) -> tuple[float, float]:
    if finding is not None and finding.kind == "learning_rate_too_small":
        return 10.0, 100.0
    return (0.1, 0.01) if finding is not None and finding.kind in _TOO_FAST else (10.0, 0.1)


def _once(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Each where it comes first."""
    found: dict[str, Candidate] = {}
    for one in candidates:
        found.setdefault(one.name, one)
    return tuple(found.values())
