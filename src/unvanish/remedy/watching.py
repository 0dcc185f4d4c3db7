"""The script is watched in a process of its own, until it ends or nothing more is to be learnt."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from unvanish import session
from unvanish.errors import RecordError, ScriptError
from unvanish.launch.isolation import scratch_folder
from unvanish.remedy.options import Options, Tell, command, environment
from unvanish.schema.finding import Diagnosis
from unvanish.schema.run import Run
from unvanish.store import list_runs
from unvanish.verify.trial import Target

POLL_SECONDS = 0.3
FIRST_LOOK, LOOK_EVERY = 10.0, 5.0  # seconds of watching, after which a standing diagnosis ends it
STANDS = 60  # steps that a diagnosis must rest on to end the watching
WATCH_SECONDS = 600.0  # a script that is well so long is left alone


def watch_target(target: Target, options: Options, tell: Tell) -> tuple[Path, Diagnosis]:
    """Run the script as `unvanish run` would, in a process of its own; gives the run's folder and the diagnosis.

    A script that would train on for long is ended as soon as the diagnosis stands, or has been well for long enough.
    """
    with tempfile.TemporaryDirectory() as folder, scratch_folder() as scratch:
        said, log, out = Path(folder, "diagnosis.json"), Path(folder, "log"), Path(folder, "runs")
        apart = ("--out", str(out), "--scratch", str(scratch))
        words = command("run", target, options, said, *apart, *_limit(options))
        with log.open("wb") as sink:
            process = subprocess.Popen(
                words, stdout=sink, stderr=sink, cwd=target.directory, env=environment()
            )
            try:
                _await(process, out, tell)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                kept = _kept(out, options.out)
        if not said.exists() or not (told := json.loads(said.read_text(encoding="utf-8")))["models"]:
            mistake, _, mend = _last(log).partition("; ")
            raise ScriptError(mistake, mend or "see whether plain python runs it")
        path = kept[Path(told["run"]).name]
    return path, session.diagnose(session.load(path))


def _kept(out: Path, into: Path) -> dict[str, Path]:
    """The record, also of a run that was ended: from where the isolated process could write it to where runs are."""
    into.mkdir(parents=True, exist_ok=True)
    runs = list(out.iterdir()) if out.exists() else []
    return {run.name: Path(shutil.move(run, into / run.name)) for run in runs}


def _await(process: subprocess.Popen[bytes], out: Path, tell: Tell) -> None:
    began = time.monotonic()
    next_look, before = FIRST_LOOK, ""
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        run = _fresh(out)
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


def _fresh(out: Path) -> Run | None:
    """The run that is being written: its record can be read while it is."""
    try:
        fresh = [path for path, _, _ in list_runs(out)] if out.exists() else []
        return session.load(fresh[0]) if fresh else None
    except RecordError:
        return None  # just being made


def _limit(options: Options) -> list[str]:
    return [] if options.steps is None else ["--steps", str(options.steps)]


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1] if lines else "no output"
    return said.removeprefix("unvanish: ")
