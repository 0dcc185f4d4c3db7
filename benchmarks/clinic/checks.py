"""What `unvanish check` says of the clinic's scripts before they train: verdicts, and whether its first changes cure.

    python benchmarks/clinic/checks.py [--part tune|report|all] [--only NAME] [--cures] [--json FILE]

Each script is started as it is and stopped before its first step has an effect. A case counts for the ranking when it
is sick from the start and some single change of the model cures it. With --cures each of the first two changes is put
into the script, which then trains to its end, at its own rate and at 0.3 and 3 times of it: cured = its loss ends
below the label's `learned_below`. Where neither cures, the others are tried as well: a case that one of them cures is
a miss of the ranking, and one that none cures is no case for a change of the model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from labels import Case, all_cases

from unvanish.launch.trial import run_trial
from unvanish.schema.treatment import Prescription
from unvanish.verify.trial import Target, TrialSpec

FACTORS = (1.0, 0.3, 3.0)
STEPS = 100_000  # the script's own end comes first
SECONDS = 240.0


def look(case: Case) -> dict[str, Any] | str:
    """The check's JSON, or what it said instead."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "unvanish",
                "check",
                "--quiet",
                "--json",
                "-",
                "--out",
                folder,
                str(case.script),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        at = done.stdout.find('{\n  "schema"')
        if done.returncode != 0 or at < 0:
            return (done.stderr.strip().splitlines() or ["no output"])[-1]
        return dict(json.loads(done.stdout[at:]))


def cures(case: Case, change: dict[str, Any]) -> tuple[bool, list[float]]:
    """Whether the script learns with this change, and its last losses at the three rates."""
    prescriptions = tuple(
        Prescription(treatment=p["treatment"], target=p["target"], parameters=p["parameters"])
        for p in change["prescriptions"]
    )
    losses = []
    for factor in FACTORS:
        outcome = run_trial(
            TrialSpec(
                candidate=change["name"],
                prescriptions=prescriptions,
                target=Target(program=str(case.script), directory=str(Path.cwd())),
                seed=0,
                learning_rate_factor=factor,
                steps=STEPS,
                seconds=SECONDS,
            )
        )
        losses.append(outcome.last)
        if outcome.error is None and outcome.last < case.learned_below:
            return True, losses
    return False, losses


def _first_that_cures(case: Case, changes: list[dict[str, Any]]) -> int | None:
    for place, change in enumerate(changes):
        yes, losses = cures(case, change)
        print(f"    {change['name']:20} {'cures' if yes else '-':6} {[round(v, 4) for v in losses]}"
              f" learned below {case.learned_below} ({change['words']})", flush=True)  # fmt: skip
        if yes:
            return place
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("tune", "report", "all"), default="tune")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--cures", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    places: list[int] = []  # of the first change that cures, by case that one cures
    for case in all_cases():
        if options.part not in ("all", case.part) or (options.only and case.name not in options.only):
            continue
        said = look(case)
        if isinstance(said, str):
            print(f"{case.name:30} {case.verdict:13} {'?':13} {said[:110]}", flush=True)
            continue
        found[case.name] = said
        check, first = said["check"], (said["models"][0]["findings"] or [{}])[0]
        carrying = [c["name"] for c in check["changes"] if c["carries"]]
        print(
            f"{case.name:30} {case.verdict:13} {said['verdict']:13} {first.get('kind', '')} {first.get('cause', '')}"
            f" {first.get('severity', '')} signal {check['signal']} {check['wall_seconds']} s;"
            f" {', '.join(carrying[:6])}",
            flush=True,
        )
        if options.cures and case.verdict == "sick" and case.onset == 0:
            place = _first_that_cures(case, check["changes"])
            if place is not None:
                places.append(place)
    if places:
        high = sum(place < 2 for place in places)
        print(f"a change that cures is ranked first or second: {high} of {len(places)} ({high / len(places):.0%})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
