"""The diagnosis of a run: every rule over every model, then one verdict each. A rule's crash is a value."""

from __future__ import annotations

from collections.abc import Sequence

from unvanish.diagnose.facts import THRESHOLD, Facts, facts_of
from unvanish.diagnose.learning import Learning, contested_models, shared_chance
from unvanish.diagnose.rule import Rule
from unvanish.diagnose.rules import (
    adversary,
    attention,
    dead_units,
    disconnected,
    exploding,
    inputs,
    labels,
    mismatch,
    non_finite,
    plateau,
    precision,
    rate_too_large,
    rate_too_small,
    symmetry,
    vanishing,
)
from unvanish.schema.finding import Diagnosis, Finding, LossSummary, ModelDiagnosis, NotChecked, Verdict
from unvanish.schema.run import DROPPED, ModelRun, Run

# One line per rule, in the order of the decision: the first group that finds something has the word, for what comes
# behind follows from it, or can't be judged beside it. In FLOW the first of each kind speaks, elsewhere one alone.
BEFORE: tuple[Rule, ...] = (disconnected.RULE, precision.RULE, inputs.RULE, symmetry.RULE, mismatch.RULE)
FLOW: tuple[Rule, ...] = (
    non_finite.RULE,
    dead_units.RULE,
    exploding.RULE,
    vanishing.RULE,
    attention.RULE,
    adversary.RULE,
)
BEHIND: tuple[Rule, ...] = (rate_too_small.RULE, rate_too_large.RULE, labels.RULE, plateau.RULE)
RULES: tuple[Rule, ...] = (*BEFORE, *FLOW, *BEHIND)
FLOW_KINDS = frozenset(rule.kind for rule in FLOW)
PATHOLOGIES = frozenset(
    ("vanishing_gradients", "exploding_gradients", "dead_units", "precision_underflow", "non_finite")
)


def diagnose_run(run: Run, *, version: str, rules: Sequence[Rule] = RULES) -> Diagnosis:
    """Judge all models of a run."""
    contested = contested_models(run.models)
    return Diagnosis(
        version=version,
        models=tuple(
            _diagnose_model(model, run, rules, contested=model.info.index in contested)
            for model in run.models
        ),
        run=run.path,
        status=run.status,
        skipped=() if run.models else (*_faults(run), *_skipped(run, None)),
    )


def _diagnose_model(model: ModelRun, run: Run, rules: Sequence[Rule], *, contested: bool) -> ModelDiagnosis:
    facts = facts_of(
        model,
        contested=contested,
        chance=shared_chance(model, run.models),
        alone=len(run.models) == 1,
    )
    skipped = _faults(run)
    findings: list[Finding] = []
    decided = False
    for rule in rules:
        if any(f.severity != "note" for f in findings) and rule not in FLOW:
            continue
        if rule in FLOW and (
            decided or any(f.kind not in FLOW_KINDS or f.kind == rule.kind for f in findings)
        ):
            continue
        try:
            findings.extend(rule.check(facts))
            decided |= rule in BEFORE and any(f.severity != "note" for f in findings)
        except Exception as error:  # one broken rule must not take the diagnosis with it
            skipped.append(
                NotChecked(what=rule.kind, why=f"the rule failed: {type(error).__name__}: {error}")
            )
    findings = _root_first(findings, facts)
    skipped += _skipped(run, model.info.index)
    if not facts.profiles:
        skipped.append(NotChecked(what="backprop signal by layer", why="no traced backward pass"))
    verdict, reason = _verdict(facts, findings)
    learning = facts.learning
    return ModelDiagnosis(
        name=model.info.name,
        verdict=verdict,
        steps=len(model.steps),
        loss=LossSummary(first=learning.first, last=learning.last, chance=learning.chance),
        findings=tuple(findings),
        skipped=tuple(skipped),
        reason=reason,
    )


def _faults(run: Run) -> list[NotChecked]:
    """What went wrong inside unvanish, by place, and what was given up."""
    places: dict[str, list[str]] = {}
    for incident in run.incidents:
        places.setdefault(incident.where, []).append(f"step {incident.step}: {incident.what}")
    found = [NotChecked(what=f"fault in {w}", why="; ".join(said), fault=True) for w, said in places.items()]
    lost = [NotChecked(what=s.what, why=s.why, fault=True) for s in run.skipped if s.what == DROPPED]
    if run.events_dropped and not lost:  # cut off before its end was written
        why = f"the record could not keep up: {run.events_dropped:,} events are missing"
        lost = [NotChecked(what=DROPPED, why=why, fault=True)]
    return found + lost


def _skipped(run: Run, model: int | None) -> list[NotChecked]:
    return [
        NotChecked(what=s.what, why=s.why)
        for s in run.skipped
        if s.model in (None, model) and s.what != DROPPED
    ]


def _root_first(findings: Sequence[Finding], facts: Facts) -> list[Finding]:
    """Exploding is the root of the NaN that follows it; then by severity.

    Steps that killed all units of a layer are over, and the dead layer is what keeps the net where it is.
    """
    kept = list(findings)
    dead = [f for f in findings if f.kind == "dead_units"]
    if dead:
        # layers behind a cut get exactly nothing: that is the dead layer's doing, not a second disease
        kept = [f for f in kept if f.kind != "vanishing_gradients" or not _by_death(f, dead)]
    rank = {"exploding_gradients": 0, "dead_units": 1, "vanishing_gradients": 2, "non_finite": 3}
    over = facts.learning.status != "non_finite" and any(f.severity == "critical" for f in dead)
    if over and all(f.cause == "learning_rate" for f in findings if f.kind == "exploding_gradients"):
        rank["dead_units"] = -1
    severity = {"critical": 0, "warning": 1, "note": 2}
    return sorted(kept, key=lambda f: (severity[f.severity], rank.get(f.kind, 9)))


def _by_death(vanishing: Finding, dead: Sequence[Finding]) -> bool:
    """Whether closed units take the signal: a layer that cuts does, one with some left where activations do most."""
    if any(f.severity == "critical" for f in dead):
        return True
    return vanishing.attribution.activation < 0.5 * vanishing.attribution.total


def _verdict(facts: Facts, findings: Sequence[Finding]) -> tuple[Verdict, str]:
    learning = facts.learning
    serious = [f for f in findings if f.severity != "note"]
    if serious:
        sick = any(f.kind in PATHOLOGIES for f in serious)
        return "sick" if sick else "not_learning", findings[0].summary
    # where the loss has no slope for a while (all advantages are zero, say) nothing is sent that could arrive
    sent = [p for p in facts.profiles if p.traced.stats[p.layers[-1].operation].norm > 0]
    fed = bool(sent) and sent[-1].entry > THRESHOLD
    if learning.learns or (learning.status == "contested" and fed):
        return "healthy", f"{learning.sentence}; {_flow(facts)}"
    return "inconclusive", _missing(facts, learning)


def _flow(facts: Facts) -> str:
    """Whether the scale of the signal is lost, and whether that matters here: two verdicts, apart."""
    if not facts.recent:
        return "the signal was not traced"
    entry = facts.recent[-1].entry
    if entry != entry:
        return "the signal was traced"
    said = f"the first layers get 10^{entry:.1f} of the output's signal"
    if entry >= THRESHOLD:
        return said
    if facts.adaptive:
        names = " and ".join(sorted({o.class_name for o in facts.model.info.optimizers}))
        return f"{said}, a loss of scale that {names} makes up for: it divides each gradient by its own size"
    return f"{said}, which is enough here"


def _missing(facts: Facts, learning: Learning) -> str:
    if learning.status == "no_loss":
        return "no loss was seen: nothing called backward() on a scalar before the optimizer's step"
    if learning.status == "too_short":
        return f"{learning.sentence}; let it run for at least 20 steps"
    if not facts.recent:
        return (
            f"{learning.sentence}, and no backward pass was traced that says where the signal goes: the loss may "
            "come from other tensors than those that the optimizer steps (float32 copies kept by hand, say)"
        )
    return (
        f"{learning.sentence}, yet {_flow(facts)}: the gradient is not what is missing, and no rule says what is; "
        "let it run longer"
    )
