"""Which model is treated, what is tried on it, and how long."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from unvanish.remedy.options import Options, Tell, command, environment
from unvanish.schema.finding import Diagnosis, ModelDiagnosis
from unvanish.schema.run import ModelInfo, ModelRun
from unvanish.schema.treatment import Prescription, Untried
from unvanish.treatment.candidate import Candidate, candidate, pick
from unvanish.treatment.catalogue import flow_candidates
from unvanish.treatment.loose import TREATED, loose_candidates, mark_of
from unvanish.treatment.planner import candidates_for, claims_flow
from unvanish.treatment.recipe import fingerprint_of
from unvanish.verify.search_plan import SHORT, SearchPlan
from unvanish.verify.trial import Target, tail_length

EARLY = 30  # steps: what falls ill later than this is well at first
SHORTEST, LONGEST = 60, 250  # steps of a trial, where none are asked for
SHARE = 0.4  # of the steps that the script makes by itself
BEFORE, BEHIND = 20, 5  # steps: so far from the onset the rate is looked at; what it does may show later
RAISED = 3.0  # times the usual rate
WITHOUT_MODULE = (
    "the weights are tensors that no nn.Module holds: their values and the learning rate were tried; with the layers"
    " in an nn.Module, unvanish tries activations, norms and skips as well"
)
AFTER_ONSET = 60  # steps that a trial goes on behind the step at which the script falls ill
FALL = 0.1  # of chance: so much below what the untreated script reaches a pilot's loss has clearly fallen
LEAST_SECONDS, PATIENCE = (
    120.0,
    5,
)  # a trial shares the machine with others, and may take so many times as long
BY_HAND = (
    "the script updates its weights by hand: another learning rate is a factor of its gradients, which is the same"
    " for gradient descent, with momentum or without"
)
SCREENED_OUT = 4  # so many are tried all the same where none carries the signal


def worst(diagnosis: Diagnosis) -> ModelDiagnosis | None:
    """The model to treat: sick before not learning before stuck for no known reason; None where all are well."""
    order = {"sick": 0, "not_learning": 1, "inconclusive": 2}
    ill = [m for m in diagnosis.models if m.verdict in order]
    known = [
        m for m in ill if m.verdict != "inconclusive" or (m.steps >= SHORTEST and m.loss.last is not None)
    ]
    return min(known, key=lambda m: order[m.verdict], default=None)


def plan_for(
    target: Target,
    options: Options,
    ill: ModelDiagnosis,
    record: ModelRun,
    *,
    ended: bool,
    alone: bool,
    tell: Tell,
) -> SearchPlan:
    """What is tried on this model, in which order and how long.

    `ended`: the record holds the whole training. `alone`: it is the only model that the script trains.
    """
    finding = ill.findings[0] if ill.findings else None
    tell("screening single changes, by one backward pass each", None, None)
    loose = record.info.without_module
    flow, ruled_out, note = (
        (loose_candidates(), [], WITHOUT_MODULE) if loose else _screened(target, options, ill.name, record)
    )
    usual = None if finding is None else usual_rate(record, finding.first_step)
    candidates = candidates_for(finding, flow, usual)
    if loose:
        candidates = tuple(c for c in candidates if all(p.treatment in TREATED for p in c.prescriptions))
    if options.only:
        everything = candidates_for(finding, (*flow, *(c for c, _ in ruled_out)), usual)
        candidates, ruled_out = pick(everything, options.only), []
    unsafe = [c for c in candidates if c.safety != "safe"] if not options.allow_unsafe else []
    onset = finding.first_step if finding is not None else 0
    steps = options.trial_steps or _trial_steps(record, onset, ended=ended)
    late = onset > EARLY or _learnt_before(record)
    why_unsafe = "it takes something away from the net; --allow unsafe tries it"
    seed = options.seed or 0
    return SearchPlan(
        candidates=tuple(c for c in candidates if c not in unsafe),
        target=target,
        steps=steps,
        fallen_to=None if late else _level(record, ill.loss.chance, steps),
        fallen_early=None if late else _level(record, ill.loss.chance, min(steps, SHORT)),
        mark=mark_for(record.info),
        model=None if alone else record.info.name,
        chance=ill.loss.chance,
        seeds=tuple(seed + k for k in range(1, options.seeds + 1)),
        pilot_seed=seed,
        by_hand=record.info.by_hand,
        loose=loose,
        claims_flow=finding is None or claims_flow(finding),
        trial_seconds=_seconds(record, steps),
        untried=(
            *(Untried(name=c.name, title=c.title, why=why) for c, why in ruled_out),
            *(Untried(name=c.name, title=c.title, why=why_unsafe) for c in unsafe),
        ),
        notes=(*([note] if note else []), *([BY_HAND] if record.info.by_hand else [])),
    )


def _screened(
    target: Target, options: Options, model: str, record: ModelRun
) -> tuple[tuple[Candidate, ...], list[tuple[Candidate, str]], str]:
    """(what carries the signal on a copy of the net, the best first; the rest, and what is wrong with it; a note)."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "check.json")
        process = subprocess.run(
            command("check", target, options, said, "--out", folder),
            capture_output=True, text=True, errors="replace", check=False, cwd=target.directory, env=environment(),
        )  # fmt: skip
        told = json.loads(said.read_text(encoding="utf-8")) if said.exists() else {}
        lines = process.stderr.strip().splitlines()
    first = told.get("check")
    all_of_them = [] if first is None else [first, *first.get("others", ())]
    checks = [c for c in all_of_them if c["model"] == model] or all_of_them[:1]
    changes = [change for c in checks for change in c["changes"]]
    if not changes:
        why = (
            lines[-1].removeprefix("unvanish: ") if lines else "no change could be tried on a copy of the net"
        )
        return flow_candidates(record.architecture), [], f"changes could not be screened: {why}"
    good = [_candidate(change) for change in changes if change["carries"]]
    bad = [
        (_candidate(change), f"one backward pass: {change['words']}")
        for change in changes
        if not change["carries"]
    ]
    if not good:
        good, bad = [c for c, _ in bad[:SCREENED_OUT]], bad[SCREENED_OUT:]
    return tuple(good), bad, ""


def _candidate(change: dict[str, Any]) -> Candidate:
    prescriptions = [Prescription(**p) for p in change["prescriptions"]]
    return candidate(change["name"], change["title"], *prescriptions)


def _trial_steps(record: ModelRun, onset: int, *, ended: bool) -> int:
    """A share of what the script makes by itself, and far enough behind the onset."""
    whole = len(record.losses)
    some = LONGEST if not ended else min(LONGEST, max(SHORTEST, round(SHARE * whole)))
    some = max(some, onset + AFTER_ONSET)
    return min(some, whole) if ended else some


def _seconds(record: ModelRun, steps: int) -> float:
    """How long a trial may take: several times what the watched script took to begin and for so many steps."""
    times = list(record.seconds)
    paces = sorted(b - a for a, b in pairwise(times))
    pace = paces[len(paces) // 2] if paces else 0.0
    return LEAST_SECONDS + PATIENCE * (times[0] + steps * pace if times else 0.0)


def mark_for(info: ModelInfo) -> str:
    """The fingerprint that a trial or a recipe knows this model by."""
    if info.without_module:
        return mark_of(p.shape for p in info.parameters)
    return fingerprint_of((p.name, p.shape) for p in info.parameters)


def usual_rate(record: ModelRun, onset: int) -> float | None:
    """The script's learning rate before it falls ill (from the start: behind that), where it is raised far above it.

    None where the rate is as ever when it falls ill, or not known.
    """
    rates = [r for r in record.learning_rates if math.isfinite(r) and r > 0]
    if len(rates) != len(record.learning_rates) or not rates:
        return None
    calm = rates[: onset - BEHIND] if onset > BEFORE else rates[max(BEFORE, len(rates) // 10) :]
    around = rates[max(0, onset - BEFORE) : onset + BEHIND]
    if not calm or not around:
        return None
    usual = sorted(calm)[len(calm) // 2]
    return usual if max(around) > RAISED * usual else None


def _learnt_before(record: ModelRun) -> bool:
    """Whether it has learnt until a loss that is no number: what it reached by then is no bar for what goes on."""
    losses = list(record.losses)
    end = next((i for i, x in enumerate(losses) if not math.isfinite(x)), None)
    if not end:
        return False
    width = tail_length(end)
    first, last = losses[: min(width, 5)], losses[end - width : end]
    return math.fsum(last) / len(last) < (1 - FALL) * math.fsum(first) / len(first)


def _level(record: ModelRun, chance: float | None, steps: int) -> float | None:
    """A loss that the untreated script does not reach in a trial's steps; None where none can be told."""
    losses = [x for x in list(record.losses)[: 2 * steps] if math.isfinite(x)]
    width = tail_length(len(losses)) if losses else 1
    means = [math.fsum(losses[i : i + width]) / width for i in range(0, len(losses) - width + 1, width)]
    lowest = min([*means, *([] if chance is None else [chance])], default=None)
    if lowest is None:
        return None
    scale = abs(chance) if chance is not None else abs(means[0])
    return lowest - min(FALL * scale, 0.3 * abs(lowest))
