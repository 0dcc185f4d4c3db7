"""One treatment from the first look to what is handed over."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from unvanish import session
from unvanish.remedy.options import Options, Tell
from unvanish.remedy.patching import UNPATCHED, patch_for
from unvanish.remedy.planning import mark_for, plan_for, worst
from unvanish.remedy.watching import watch_target
from unvanish.schema.finding import Diagnosis, ModelDiagnosis
from unvanish.schema.run import ModelInfo
from unvanish.schema.treatment import JsonValue, LossInterval, Prescription, TreatmentResult, TrialResult
from unvanish.store import save_result
from unvanish.treatment.recipe import Recipe, save_recipe
from unvanish.verify.engines.choice import engine_named
from unvanish.verify.experiment import Progress
from unvanish.verify.search import Search
from unvanish.verify.trial import BASELINE, Target

RUNNER = "unvanish.launch.trial:run_isolated_trial"
NO_MODULE = (
    "no treatment was tried: the script changes tensors by hand that no nn.Module holds, and no moment is known to do"
    " it; put the layers into an nn.Module (their weights as nn.Parameter), call that as model(x), and treat again"
)
RESULT, RECIPE, DIFF = "treatment.json", "recipe.json", "treatment.diff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Treated:
    """What came of it, with the diagnosis that it began with."""

    diagnosis: Diagnosis
    result: TreatmentResult
    run: Path


def treat_target(target: Target, options: Options, tell: Tell) -> Treated:
    """Watch the script, look for a cure where it is ill, and keep what was found with its run.

    Raises:
        ScriptError: it trains nothing, or fails before it trains.
    """
    began = time.monotonic()
    tell("watching it train, unchanged", None, None)
    path, diagnosis = watch_target(target, options, tell)
    run = session.load(path)
    ill = worst(diagnosis)
    if ill is None:
        well = diagnosis.models[0]
        why = f"nothing to treat: {well.reason or well.verdict}"
        return _untreated(diagnosis, well, why, path, time.monotonic() - began)
    record = next(m for m in run.models if m.info.name == ill.name)
    if record.info.without_module and record.info.by_hand:
        return _untreated(diagnosis, ill, NO_MODULE, path, time.monotonic() - began)
    ended = diagnosis.status in ("finished", "crashed") or (options.steps is not None)
    alone = len(run.models) == 1
    plan = plan_for(target, options, ill, record, ended=ended, alone=alone, tell=tell)
    left = None if options.budget is None else max(1.0, options.budget - (time.monotonic() - began))

    def progress(p: Progress) -> None:
        tell(f"{p.stage}: {p.candidate}", p.done / max(1, p.total), p.seconds_left)

    with engine_named(options.engine, RUNNER) as engine:
        result = Search(plan, engine, budget_seconds=left, on_progress=progress).run()
    result = replace(result, wall_seconds=time.monotonic() - began)
    tell("writing the recipe and the source patch", None, None)
    return _keep(diagnosis, result, record.info, path, target, options)


def _untreated(diagnosis: Diagnosis, model: ModelDiagnosis, why: str, path: Path, seconds: float) -> Treated:
    """Nothing is ill, or nothing can be treated: the untreated script is the whole result."""
    baseline = TrialResult(
        name=BASELINE,
        title="untreated",
        prescriptions=(),
        safety="safe",
        predicted_gain_per_layer=None,
        measured_gain_per_layer=None,
        loss=LossInterval(first=model.loss.first, last=model.loss.last, interval=(None, None)),
        seeds=1,
        steps=model.steps,
        outcome="no_better",
        why=why,
    )
    result = TreatmentResult(
        baseline=baseline,
        trials=(),
        chosen=None,
        recipe=None,
        diff=None,
        wall_seconds=seconds,
        chance=model.loss.chance,
    )
    save_result(path, RESULT, session.to_json(result.to_dict()))
    return Treated(diagnosis=diagnosis, result=result, run=path)


def _keep(
    diagnosis: Diagnosis,
    result: TreatmentResult,
    info: ModelInfo,
    path: Path,
    target: Target,
    options: Options,
) -> Treated:
    recipe = recipe_of(result, info)
    if recipe is not None:
        place = save_recipe(recipe, options.recipe or path / RECIPE)
        result = replace(result, recipe=str(place))
        patched = UNPATCHED if info.without_module else patch_for(target, place, options)
        if patched.diff:
            diff = options.diff or path / DIFF
            diff.write_bytes(patched.diff)
            result = replace(result, diff=str(diff))
        result = replace(result, notes=(*result.notes, *patched.notes))
    save_result(path, RESULT, session.to_json(result.to_dict()))
    return Treated(diagnosis=diagnosis, result=result, run=path)


def recipe_of(result: TreatmentResult, info: ModelInfo) -> Recipe | None:
    """The chosen treatment for the untreated model that a run has recorded."""
    chosen = next((t for t in result.trials if t.name == result.chosen), None)
    if chosen is None:
        return None
    prescriptions = chosen.prescriptions
    if info.by_hand and chosen.rate_factor != 1.0:
        factor: dict[str, JsonValue] = {"factor": chosen.rate_factor}
        prescriptions = (*prescriptions, Prescription(treatment="learning_rate", parameters=factor))
    return Recipe(
        model_class=info.class_name,
        fingerprint=mark_for(info),
        parameters=sum(p.numel for p in info.parameters),
        prescriptions=prescriptions,
        learning_rate=None if info.by_hand or chosen.rate_factor == 1.0 else chosen.learning_rate,
        provenance=f"{chosen.title}: {chosen.why}",
        by_hand=info.by_hand,
    )
