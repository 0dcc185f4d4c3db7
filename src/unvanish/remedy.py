"""From a script that is ill to a verified cure: watch it, screen what may help, try it, hand it over."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unvanish import session
from unvanish.errors import RecordError, ScriptError
from unvanish.schema.finding import Diagnosis, ModelDiagnosis
from unvanish.schema.run import ModelInfo, ModelRun
from unvanish.schema.treatment import LossInterval, Prescription, TreatmentResult, TrialResult, Untried
from unvanish.store import list_runs, save_result
from unvanish.treatment.candidate import Candidate, candidate, pick
from unvanish.treatment.catalogue import flow_candidates
from unvanish.treatment.planner import candidates_for
from unvanish.treatment.recipe import Recipe, fingerprint_of, save_recipe
from unvanish.verify.engines import engine_named
from unvanish.verify.experiment import Progress
from unvanish.verify.search import Search, SearchPlan
from unvanish.verify.trial import BASELINE, Target, tail_length

RUNNER = "unvanish.launch.trial:run_trial"
RESULT, RECIPE = "treatment.json", "recipe.json"
POLL_SECONDS = 0.3
FIRST_LOOK, LOOK_EVERY = 10.0, 5.0  # seconds of watching, after which a standing diagnosis ends it
STANDS = 60  # steps that a diagnosis must rest on to end the watching
WATCH_SECONDS = 600.0  # a script that is well so long is left alone
SHORTEST, LONGEST = 60, 250  # steps of a trial, where none are asked for
SHARE = 0.4  # of the steps that the script makes by itself
AFTER_ONSET = 60  # steps that a trial goes on behind the step at which the script falls ill
FALL = 0.1  # of chance: so much below what the untreated script reaches a pilot's loss has clearly fallen
SCREENED_OUT = 4  # so many are tried all the same where none carries the signal

Tell = Callable[
    [str, float | None, float | None], None
]  # what is being done, which share is done, seconds left


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be asked of a treatment. None: the default that fits the script."""

    out: Path
    steps: int | None = None
    seed: int | None = None
    trial_steps: int | None = None
    seeds: int = 5
    budget: float | None = None
    engine: str = "local"
    only: tuple[str, ...] = ()
    allow_unsafe: bool = False
    recipe: Path | None = None
    diff: Path | None = None


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
    ill = _worst(diagnosis)
    if ill is None:
        return _left_alone(diagnosis, path, time.monotonic() - began)
    record = next(m for m in run.models if m.info.name == ill.name)
    ended = diagnosis.status in ("finished", "crashed") or (options.steps is not None)
    plan = _plan(target, options, ill, record, ended=ended, tell=tell)
    left = None if options.budget is None else max(1.0, options.budget - (time.monotonic() - began))

    def progress(p: Progress) -> None:
        tell(f"{p.stage}: {p.candidate}", p.done / max(1, p.total), p.seconds_left)

    with engine_named(options.engine, RUNNER) as engine:
        result = Search(plan, engine, budget_seconds=left, on_progress=progress).run()
    result = replace(result, wall_seconds=time.monotonic() - began)
    return _keep(diagnosis, result, record.info, path, options)


# --- watching ---------------------------------------------------------------------------------------------------


def watch_target(target: Target, options: Options, tell: Tell) -> tuple[Path, Diagnosis]:
    """Run the script as `unvanish run` would, in a process of its own; gives the run's folder and the diagnosis.

    A script that would train on for long is ended as soon as the diagnosis stands, or has been well for long enough.
    """
    out = options.out
    known = {path for path, _, _ in list_runs(out)} if out.exists() else set()
    with tempfile.TemporaryDirectory() as folder:
        said, log = Path(folder, "diagnosis.json"), Path(folder, "log")
        command = _command("run", target, options, said, "--out", str(out), *_limit(options))
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, stdout=sink, stderr=sink, cwd=target.directory, env=_threads()
            )
            try:
                _await(process, out, known, tell)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if not said.exists():
            raise ScriptError(
                f"{target.program} could not be watched: {_last(log)}", "see whether plain python runs it"
            )
        told = json.loads(said.read_text(encoding="utf-8"))
    if not told["models"]:
        raise ScriptError(
            f"no torch optimizer stepped while {target.program} ran, so there is nothing to treat",
            "start it with the arguments that make it train",
        )
    path = Path(told["run"])
    return path, session.diagnose(session.load(path))


def _await(process: subprocess.Popen[bytes], out: Path, known: set[Path], tell: Tell) -> None:
    began = time.monotonic()
    next_look, before = FIRST_LOOK, ""
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        run = _fresh(out, known)
        steps = max((len(m.steps) for m in run.models), default=0) if run is not None else 0
        tell(f"watching it train, unchanged: {steps} steps", None, None)
        passed = time.monotonic() - began
        if run is None or passed < next_look or steps < STANDS:
            continue
        next_look = passed + LOOK_EVERY
        found = _standing(session.diagnose(run))
        if (found and found == before) or passed > WATCH_SECONDS:
            process.send_signal(signal.SIGTERM)
            process.wait()
        before = found


def _standing(diagnosis: Diagnosis) -> str:
    """The finding that needs no more steps ("" = none)."""
    firsts = [m.findings[0] for m in diagnosis.models if m.verdict in ("sick", "not_learning") and m.findings]
    return next(
        (f"{f.kind} {f.cause}" for f in firsts if f.severity == "critical" and f.confidence >= 0.8), ""
    )


def _fresh(out: Path, known: set[Path]) -> Any:
    """The run that is being written: its record can be read while it is."""
    try:
        fresh = [path for path, _, _ in list_runs(out) if path not in known] if out.exists() else []
        return session.load(fresh[0]) if fresh else None
    except RecordError:
        return None  # just being made


def _command(name: str, target: Target, options: Options, said: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "unvanish", name, "--quiet", "--json", str(said), *more]
    words += [] if options.seed is None else ["--seed", str(options.seed)]
    return [*words, *(["-m"] if target.is_module else []), target.program, *target.arguments]


def _limit(options: Options) -> list[str]:
    return [] if options.steps is None else ["--steps", str(options.steps)]


def _threads() -> dict[str, str]:
    """A small net is faster on one thread; and runs do not depend on the number of cores."""
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1] if lines else "no output"
    return said.removeprefix("unvanish: ")


# --- what to try ------------------------------------------------------------------------------------------------


def _worst(diagnosis: Diagnosis) -> ModelDiagnosis | None:
    """The model to treat: sick before not learning before stuck for no known reason; None where all are well."""
    ill = [m for m in diagnosis.models if m.verdict in ("sick", "not_learning")]
    order = {"sick": 0, "not_learning": 1}
    return min(ill, key=lambda m: order[m.verdict], default=None)


def _plan(
    target: Target,
    options: Options,
    ill: ModelDiagnosis,
    record: ModelRun,
    *,
    ended: bool,
    tell: Tell,
) -> SearchPlan:
    finding = ill.findings[0] if ill.findings else None
    tell("screening single changes, by one backward pass each", None, None)
    flow, ruled_out = _screened(target, options, ill.name, record)
    candidates = candidates_for(finding, flow)
    if options.only:
        everything = candidates_for(finding, (*flow, *(c for c, _ in ruled_out)))
        candidates, ruled_out = pick(everything, options.only), []
    unsafe = [c for c in candidates if c.safety != "safe"] if not options.allow_unsafe else []
    onset = finding.first_step if finding is not None else 0
    steps = options.trial_steps or _trial_steps(record, onset, ended=ended)
    why_unsafe = "it takes something away from the net; --allow unsafe tries it"
    seed = options.seed or 0
    return SearchPlan(
        candidates=tuple(c for c in candidates if c not in unsafe),
        target=target,
        steps=steps,
        fallen_to=None if onset > STANDS // 2 else _level(record, ill.loss.chance, steps),
        mark=fingerprint_of((p.name, p.shape) for p in record.info.parameters),
        model=record.info.name,
        chance=ill.loss.chance,
        seeds=tuple(seed + k for k in range(1, options.seeds + 1)),
        pilot_seed=seed,
        untried=(
            *(Untried(name=c.name, title=c.title, why=why) for c, why in ruled_out),
            *(Untried(name=c.name, title=c.title, why=why_unsafe) for c in unsafe),
        ),
    )


def _screened(
    target: Target, options: Options, model: str, record: ModelRun
) -> tuple[tuple[Candidate, ...], list[tuple[Candidate, str]]]:
    """(what carries the signal on a copy of the net, the best first; the rest, and what is wrong with it)."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "check.json")
        process = subprocess.run(
            _command("check", target, options, said, "--out", folder),
            capture_output=True, check=False, cwd=target.directory, env=_threads(),
        )  # fmt: skip
        told = (
            json.loads(said.read_text(encoding="utf-8")) if process.returncode == 0 and said.exists() else {}
        )
    first = told.get("check")
    all_of_them = [] if first is None else [first, *first.get("others", ())]
    checks = [c for c in all_of_them if c["model"] == model] or all_of_them[:1]
    changes = [change for c in checks for change in c["changes"]]
    if not changes:
        return flow_candidates(record.architecture), []
    good = [_candidate(change) for change in changes if change["carries"]]
    bad = [
        (_candidate(change), f"one backward pass: {change['words']}")
        for change in changes
        if not change["carries"]
    ]
    if not good:
        good, bad = [c for c, _ in bad[:SCREENED_OUT]], bad[SCREENED_OUT:]
    return tuple(good), bad


def _candidate(change: dict[str, Any]) -> Candidate:
    prescriptions = [Prescription(**p) for p in change["prescriptions"]]
    return candidate(change["name"], change["title"], *prescriptions)


def _trial_steps(record: ModelRun, onset: int, *, ended: bool) -> int:
    """A share of what the script makes by itself, and far enough behind the onset."""
    whole = len(record.losses)
    some = LONGEST if not ended else min(LONGEST, max(SHORTEST, round(SHARE * whole)))
    some = max(some, onset + AFTER_ONSET)
    return min(some, whole) if ended else some


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


# --- what is handed over ------------------------------------------------------------------------------------------


def _left_alone(diagnosis: Diagnosis, path: Path, seconds: float) -> Treated:
    """Nothing is ill: the untreated script is the whole result."""
    model = diagnosis.models[0]
    why = f"nothing to treat: {model.reason or model.verdict}"
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
    diagnosis: Diagnosis, result: TreatmentResult, info: ModelInfo, path: Path, options: Options
) -> Treated:
    recipe = recipe_of(result, info)
    if recipe is not None:
        place = save_recipe(recipe, options.recipe or path / RECIPE)
        result = replace(result, recipe=str(place))
    save_result(path, RESULT, session.to_json(result.to_dict()))
    return Treated(diagnosis=diagnosis, result=result, run=path)


def recipe_of(result: TreatmentResult, info: ModelInfo) -> Recipe | None:
    """The chosen treatment for the untreated model that a run has recorded."""
    chosen = next((t for t in result.trials if t.name == result.chosen), None)
    if chosen is None:
        return None
    return Recipe(
        model_class=info.class_name,
        fingerprint=fingerprint_of((p.name, p.shape) for p in info.parameters),
        parameters=sum(p.numel for p in info.parameters),
        prescriptions=chosen.prescriptions,
        learning_rate=None if chosen.rate_factor == 1.0 else chosen.learning_rate,
        provenance=f"{chosen.title}: {chosen.why}",
    )
