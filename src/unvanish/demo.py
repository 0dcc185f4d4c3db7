"""The main job, end to end, on a net that is stuck: watched, diagnosed, explained, treated, shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from unvanish import session
from unvanish.errors import RecordError, ScriptError, UnvanishError
from unvanish.present.text import print_diagnosis, print_treatment
from unvanish.schema.run import ModelInfo
from unvanish.schema.treatment import TreatmentResult
from unvanish.store import list_runs, save_result
from unvanish.treatment.catalogue import seed_candidates
from unvanish.treatment.recipe import Recipe, fingerprint_of, save_recipe
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.experiment import Plan, run_experiment
from unvanish.verify.experiment import Progress as TrialProgress
from unvanish.verify.trial import Target

SCRIPT = "digits_sigmoid.py"
STEPS = 250  # of each trial
# times the script's own rate, for the untreated net and every candidate alike
RATE_FACTORS = (0.3, 1.0, 3.0, 10.0)
SEEDS = (1, 2, 3, 4, 5)
_RUNNER = "unvanish.launch.trial:run_trial"
_POLL_SECONDS = 0.3

Tell = Callable[[str, float | None], None]  # what is being done, and which share of it is done


def run_demo(out: Path, json_path: str | None, console: Console) -> int:
    """Run the demo; runs are kept below `out`. Returns the exit code; raises UnvanishError in one line."""
    began = time.monotonic()
    script = script_path()
    _say(
        console, f"A 12-layer sigmoid classifier on handwritten digits, an ordinary script: {_short(script)}"
    )
    _say(console, "1/3  Watching it train, unchanged")
    path = _watch(script, out, console)
    run = session.load(path)
    diagnosis, chains = session.diagnose(run), session.chains(run)
    console.print()
    print_diagnosis(diagnosis, chains, console)
    console.print()
    _say(console, "2/3  Trying the five known solutions, and three popular fixes that are only half of one")
    treatment = _treat(script, console)
    recipe = _save_recipe(run.models[0].info, treatment, path)
    treatment = replace(treatment, recipe=str(recipe) if recipe is not None else None)
    save_result(path, "treatment.json", session.to_json(treatment.to_dict()))
    console.print()
    shown = replace(treatment, recipe=_short(recipe)) if recipe is not None else treatment
    print_treatment(shown, console)
    console.print()
    page = session.write_report(path)
    _say(console, "3/3  What was found, to keep")
    if recipe is not None:
        _say(console, f"     Recipe  {_short(recipe)}")
    _say(console, f"     Page    {_short(page)}")
    _say(console, f"     ({time.monotonic() - began:.0f} s)")
    if json_path is not None:
        _write_json(
            {"diagnosis": diagnosis.to_dict(), "treatment": treatment.to_dict(), "page": str(page)}, json_path
        )
    return 0


def script_path() -> Path:
    """Where the demo's script lies: in the package when installed, in examples/ in a checkout."""
    here = Path(__file__).resolve()
    for place in (here.parent / "examples", here.parents[2] / "examples"):
        if (place / SCRIPT).exists():
            return place / SCRIPT
    raise ScriptError(f"{SCRIPT} is missing from this installation", "install unvanish anew")


def _watch(script: Path, out: Path, console: Console) -> Path:
    """Run the script as `unvanish run` would, in a process of its own; gives the run's folder."""
    known = {path for path, _, _ in list_runs(out)} if out.exists() else set()
    with tempfile.TemporaryDirectory() as folder, _progress(console) as tell:
        result, log = Path(folder, "diagnosis.json"), Path(folder, "log")
        command = [
            sys.executable,
            "-m",
            "unvanish",
            "run",
            "--quiet",
            "--out",
            str(out),
            "--json",
            str(result),
        ]
        with log.open("wb") as sink:
            process = subprocess.Popen([*command, str(script)], stdout=sink, stderr=sink, env=_one_thread())
            try:
                while process.poll() is None:
                    tell(f"{_steps(out, known)} steps", None)
                    time.sleep(_POLL_SECONDS)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode != 0 or not result.exists():
            words = log.read_text(errors="replace").strip().splitlines()
            missing = any("sklearn" in line for line in words[-3:])
            mend = "pip install 'unvanish[demo]'" if missing else f"see whether `python {script}` runs"
            raise ScriptError(f"the demo's script failed: {words[-1] if words else 'no output'}", mend)
        return Path(json.loads(result.read_text())["run"])


def _steps(out: Path, known: set[Path]) -> int:
    """How far the watched run is: its record can be read while it is written."""
    try:
        fresh = [path for path, _, _ in list_runs(out) if path not in known] if out.exists() else []
        models = session.load(fresh[0]).models if fresh else ()
    except RecordError:
        return 0  # just being made
    return max((len(m.steps) for m in models), default=0)


def _treat(script: Path, console: Console) -> TreatmentResult:
    plan = Plan(
        candidates=seed_candidates(),
        target=Target(program=str(script), directory=str(Path.cwd())),
        learning_rate_factors=RATE_FACTORS,
        seeds=SEEDS,
        steps=STEPS,
    )
    with _progress(console) as tell, LocalEngine(min(2, os.cpu_count() or 1), _RUNNER) as engine:

        def show(progress: TrialProgress) -> None:
            tell(f"{progress.stage}: {progress.candidate}", progress.done / progress.total)

        return run_experiment(plan, engine=engine, on_progress=show)


def _save_recipe(info: ModelInfo, treatment: TreatmentResult, folder: Path) -> Path | None:
    chosen = next((t for t in treatment.trials if t.name == treatment.chosen), None)
    if chosen is None:
        return None
    recipe = Recipe(
        model_class=info.class_name,
        fingerprint=fingerprint_of((p.name, p.shape) for p in info.parameters),
        parameters=sum(p.numel for p in info.parameters),
        prescriptions=chosen.prescriptions,
        learning_rate=chosen.learning_rate,
        provenance=f"{chosen.title}: {chosen.why}",
    )
    return save_recipe(recipe, folder / "recipe.json")


@contextmanager
def _progress(console: Console) -> Iterator[Tell]:
    """A live line in a terminal; elsewhere a plain line for each tenth of the work."""
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    columns: tuple[Any, ...] = (
        SpinnerColumn(),
        BarColumn(bar_width=32),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def tell(what: str, share: float | None) -> None:
            progress.update(
                task, description=what, total=None if share is None else 1.0, completed=share or 0.0
            )

        yield tell


def _plain_lines(console: Console) -> Tell:
    said = [-1]

    def tell(what: str, share: float | None) -> None:
        tenth = int((share or 0.0) * 10)
        if share is not None and tenth > said[0]:
            said[0] = tenth
            _say(console, f"     {tenth * 10:3d}%  {what}")

    return tell


def _one_thread() -> dict[str, str]:
    """A net this small is faster on one thread, and the run does not depend on the number of cores."""
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _write_json(data: dict[str, Any], json_path: str) -> None:
    text = session.to_json(data)
    if json_path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(json_path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnvanishError(
            f"{json_path} can't be written ({error.strerror})", "name another file"
        ) from error
