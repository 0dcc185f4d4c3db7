"""Does the source patch do what the recipe does? On every script of the clinic, for five recipes.

    python benchmarks/patches.py [NAME ...] [--family flow] [--steps 5] [--json FILE]

A case counts where the treatment applies to the model at all and the treated script runs. It is reproduced when the
patched script, run from the same seed, has the same losses (to 1e-5, relative), and when `git apply` makes exactly
the patched text of the script. The bar: 80 %. Exit code 1 below it, or when a patch is wrong.
Each script has a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unvanish.errors import UnvanishError
from unvanish.schema.treatment import JsonValue, Prescription
from unvanish.treatment.patch.patch import Patch, patch_source, read_sources
from unvanish.treatment.patch.reading import read_facts
from unvanish.treatment.patch.record import Recorder
from unvanish.treatment.patch.rehearsal import losses_patched, losses_treated, record_script
from unvanish.treatment.recipe import fingerprint

BAR = 0.80
CLINIC = Path(__file__).resolve().parent / "clinic"
TIMEOUT = 900  # seconds for one script with all recipes
Plan = tuple[Prescription, ...]
# in the order of the table; all but the last are of cases that count; "noted": the patch says itself why it differs
STATES = ("reproduced", "noted", "refused", "wrong", "not applicable")


def _of(treatment: str, **parameters: JsonValue) -> Plan:
    return (Prescription(treatment=treatment, parameters=parameters),)  # type: ignore[arg-type]


PLANS: dict[str, Plan] = {
    "relu + he": _of("activation", kind="relu") + _of("init", scheme="he"),
    "batchnorm": _of("batchnorm"),
    "residual": _of("residual"),
    "orthogonal": _of("init", scheme="orthogonal"),
    "rate x 0.3": _of("learning_rate", factor=0.3),
}


def judge(script: Path, recorder: Recorder, plan: Plan, steps: int) -> tuple[str, str]:
    """(state, why) of one recipe on one script."""
    try:
        mark = fingerprint(recorder.roots[0].model)
        wanted = losses_treated(script, plan, mark, steps=steps)
    except UnvanishError as error:
        return "not applicable", error.mistake
    except Exception as error:  # noqa: BLE001  # the treated script may raise anything
        return "not applicable", f"the treated script fails: {type(error).__name__}"
    facts = read_facts(recorder, plan)
    sources = read_sources(facts)
    patch = patch_source(sources, facts)
    if patch.why_not is not None:
        return "refused", patch.why_not
    if not _applies(patch, sources):
        return "wrong", "git apply gives another text"
    try:
        losses = losses_patched(script, script.parent, patch.files, steps=steps)
    except Exception as error:  # noqa: BLE001  # as above
        return "wrong", f"the patched script fails: {type(error).__name__}: {error}"
    same = len(losses) == len(wanted) and all(
        math.isclose(a, b, rel_tol=1e-5) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(losses, wanted, strict=True)
    )
    if not same and patch.notes:
        return "noted", patch.notes[0]
    return ("reproduced", "") if same else ("wrong", f"{losses} against {wanted}")


def _applies(patch: Patch, sources: dict[str, bytes]) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, raw in sources.items():
            (folder / path).write_bytes(raw)
        (folder / "the.diff").write_bytes(patch.diff)
        command = ["git", "apply", "-p1", "--whitespace=nowarn", "the.diff"]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        return done.returncode == 0 and all(
            (folder / path).read_bytes() == raw for path, raw in patch.files.items()
        )


def one_script(script: Path, steps: int) -> dict[str, tuple[str, str]]:
    """All recipes on one script, in this process."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        recorder = record_script(script, script.parent)
        return {name: judge(script, recorder, plan, steps) for name, plan in PLANS.items()}


def in_a_child(script: Path, steps: int) -> dict[str, tuple[str, str]]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", str(script), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it ended without a word"]
        return dict.fromkeys(PLANS, ("not applicable", f"the script can't be recorded: {last[0]}"))
    return {name: (state, why) for name, (state, why) in json.loads(done.stdout).items()}


def table(results: dict[str, dict[str, tuple[str, str]]]) -> str:
    """One line for each recipe, and one for all."""
    lines = [f"{'recipe':<14}" + "".join(f"{state:>15}" for state in STATES) + f"{'share':>9}"]
    total: Counter[str] = Counter()
    for plan in PLANS:
        counts = Counter(found[plan][0] for found in results.values())
        total.update(counts)
        lines.append(_line(plan, counts))
    return "\n".join([*lines, _line("all", total)])


def _line(name: str, counts: Counter[str]) -> str:
    share = share_of(counts)
    shown = "-" if share is None else f"{share:.0%}"
    return f"{name:<14}" + "".join(f"{counts[state]:>15}" for state in STATES) + f"{shown:>9}"


def share_of(counts: Counter[str]) -> float | None:
    """Reproduced of those that count; None where there are none."""
    counted = sum(counts[state] for state in STATES[:4])
    return counts["reproduced"] / counted if counted else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--family", default="flow")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(one_script(options.one, options.steps)))
        return 0
    scripts = sorted((CLINIC / options.family).glob("*.py"))
    wanted = [s for s in scripts if not options.names or s.stem in options.names]
    results = {}
    for script in wanted:
        results[script.stem] = in_a_child(script, options.steps)
        for plan, (state, why) in results[script.stem].items():
            if state in ("noted", "refused", "wrong"):
                print(f"{script.stem:<28} {plan:<12} {state}: {why}", flush=True)
    print(table(results))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    total = Counter(state for found in results.values() for state, _ in found.values())
    share = share_of(total)
    return 0 if share is not None and share >= BAR and not total["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
