"""What the diagnosis says: findings with evidence, a verdict per model, one for the run (contract, schema 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from unvanish.schema.check import Check
from unvanish.schema.notebook import html_of

SCHEMA_VERSION = 1

Verdict = Literal["sick", "not_learning", "inconclusive", "healthy"]
Kind = Literal[
    "vanishing_gradients",
    "exploding_gradients",
    "dead_units",
    "precision_underflow",
    "non_finite",
    "disconnected_parameters",
    "learning_rate_too_small",
    "learning_rate_too_large",
    "uninformative_data",
    "loss_or_output_mismatch",
    "plateau",
]
Cause = Literal[
    "saturating_activation",
    "init_too_small",
    "init_too_large",
    "too_deep",
    "recurrence",
    "attention_saturation",
    "normalization",
    "bias_drift",
    "learning_rate",
    "low_precision",
    "symmetry",
    "detached",
    "frozen",
    "not_in_optimizer",
    "labels",
    "inputs",
    "output_activation",
    "unknown",
]
Severity = Literal["critical", "warning", "note"]
TreatmentName = Literal[
    "activation",
    "init",
    "batchnorm",
    "layernorm",
    "groupnorm",
    "residual",
    "simplify",
    "learning_rate",
    "clip",
    "gated_rnn",
    "precision",
    "reconnect",
    "inputs",
    "output",
]
# the worst first: the run's verdict is the worst of its models'
VERDICT_ORDER: tuple[Verdict, ...] = ("sick", "not_learning", "inconclusive", "healthy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One measured number beside the threshold that it crossed, and where that threshold comes from."""

    layer: str
    statistic: str
    value: float
    threshold: float
    steps: tuple[int, int]
    source: str

    def __post_init__(self) -> None:
        """Refuse evidence that names no source or no statistic."""
        if not self.source or not self.statistic:
            raise ValueError("evidence needs a statistic and a source")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Decades (log10) of backprop signal between the loss and the most starved layer, by factor.

    Negative = lost, positive = gained. The parts add up to the whole.
    """

    activation: float = 0.0
    weight: float = 0.0
    norm: float = 0.0
    skip: float = 0.0
    other: float = 0.0

    @property
    def total(self) -> float:
        """The whole, in decades."""
        return self.activation + self.weight + self.norm + self.skip + self.other


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, with what it was seen by."""

    kind: Kind
    cause: Cause
    severity: Severity
    confidence: float
    layers: tuple[str, ...]
    first_step: int
    summary: str
    evidence: tuple[Evidence, ...]
    attribution: Attribution = field(default_factory=Attribution)
    treatments: tuple[TreatmentName, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a finding without evidence, or with a word outside of the contract."""
        if not self.evidence:
            raise ValueError(f"a finding needs evidence: {self.kind}")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence is a probability, got {self.confidence}")
        words = ((self.kind, Kind), (self.cause, Cause), (self.severity, Severity))
        for word, allowed in words:
            if word not in get_args(allowed):
                raise ValueError(f"{word!r} is not one of {get_args(allowed)}")
        if not set(self.treatments) <= set(get_args(TreatmentName)):
            raise ValueError(f"unknown treatment in {self.treatments}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotChecked:
    """Something the diagnosis did not look at, and why."""

    what: str
    why: str
    fault: bool = False  # something went wrong inside unvanish, or could not keep up


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSummary:
    """First and last loss (means over a few steps) and the loss of the best constant guess, if known."""

    first: float | None
    last: float | None
    chance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDiagnosis:
    """The verdict on one model."""

    name: str
    verdict: Verdict
    steps: int
    loss: LossSummary
    findings: tuple[Finding, ...]
    skipped: tuple[NotChecked, ...]
    reason: str = ""  # one sentence: why this verdict (also for healthy and inconclusive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The verdict on a run."""

    version: str  # of unvanish
    models: tuple[ModelDiagnosis, ...]
    run: str
    status: str = "finished"
    skipped: tuple[NotChecked, ...] = ()  # of the whole run, where there is no model to say it with
    checks: tuple[Check, ...] = ()  # of a diagnosis before training: one for each model, in their order

    @property
    def check(self) -> Check | None:
        """The numbers behind a verdict before training, of the model with the worst one; None after training."""
        worst = [m.name for m in self.models if m.verdict == self.verdict]
        return next((c for c in self.checks if c.model in worst), next(iter(self.checks), None))

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the models; inconclusive when there is none."""
        return min((m.verdict for m in self.models), key=VERDICT_ORDER.index, default="inconclusive")

    def __str__(self) -> str:
        """Verdict / Why / Next of every model, in plain lines."""
        if self.models:
            return "\n\n".join(_model_text(m, alone=len(self.models) == 1) for m in self.models)
        head = ["Verdict  inconclusive", "Why      no model was trained while this was watched"]
        return "\n".join([*head, *(f"Note     {s.what}: {s.why}" for s in self.skipped)])

    def _repr_html_(self) -> str | None:
        """For notebooks."""
        return html_of(self)

    def to_dict(self) -> dict[str, Any]:
        """The contract's JSON object; every number in it is finite or null."""
        return {
            "schema": SCHEMA_VERSION,
            "tool": {"name": "unvanish", "version": self.version},
            "verdict": self.verdict,
            "models": [_model_dict(m) for m in self.models],
            **({"skipped": [{"what": s.what, "why": s.why} for s in self.skipped]} if self.skipped else {}),
            "run": self.run,
            **self._check_dict(),
        }

    def _check_dict(self) -> dict[str, Any]:
        check = self.check
        if check is None:
            return {}
        others = [c.to_dict() for c in self.checks if c is not check]
        return {"check": {**check.to_dict(), **({"others": others} if others else {})}}


def finite(value: float | None) -> float | None:
    """The value where JSON can hold it, else None."""
    return value if value is not None and math.isfinite(value) else None


def _model_text(model: ModelDiagnosis, *, alone: bool) -> str:
    lines = [] if alone else [f"Model    {model.name}"]
    first = model.findings[0] if model.findings else None
    what = f": {first.kind.replace('_', ' ')}, {first.cause.replace('_', ' ')}" if first is not None else ""
    lines += [f"Verdict  {model.verdict.replace('_', ' ')}{what}", f"Why      {model.reason}"]
    if first is not None and first.layers:
        lines.append(f"Layers   {', '.join(first.layers[:6])}")
    if first is not None and first.treatments:
        lines.append(f"Next     try {', then '.join(t.replace('_', ' ') for t in first.treatments)}")
    lines += [f"Note     {s.what}: {s.why}" for s in model.skipped if s.fault]
    return "\n".join(lines)


def _model_dict(model: ModelDiagnosis) -> dict[str, Any]:
    return {
        "name": model.name,
        "verdict": model.verdict,
        "reason": model.reason,
        "steps": model.steps,
        "loss": {k: finite(getattr(model.loss, k)) for k in ("first", "last", "chance")},
        "findings": [_finding_dict(f) for f in model.findings],
        "skipped": [{"what": s.what, "why": s.why} for s in model.skipped],
    }


def _finding_dict(finding: Finding) -> dict[str, Any]:
    parts = ("activation", "weight", "norm", "skip", "other")
    return {
        "kind": finding.kind,
        "cause": finding.cause,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "layers": list(finding.layers),
        "first_step": finding.first_step,
        "summary": finding.summary,
        "attribution": {k: finite(getattr(finding.attribution, k)) for k in parts},
        "evidence": [
            {
                "layer": e.layer,
                "statistic": e.statistic,
                "value": finite(e.value),
                "threshold": finite(e.threshold),
                "steps": list(e.steps),
                "source": e.source,
            }
            for e in finding.evidence
        ],
        "treatments": list(finding.treatments),
    }
