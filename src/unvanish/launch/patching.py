"""The source patch of a recipe, made and rehearsed in a process of its own: `python -m unvanish.launch.patching`.

The script is run up to its first optimizer step, to see where its model is built; then twice for a few steps, patched
and treated by the recipe, to see whether both do the same. Nothing of the user's is written: what the script
writes goes to a scratch folder.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unvanish.errors import UnvanishError
from unvanish.launch.isolation import folders_of, isolate
from unvanish.launch.seeds import shifted_seeds
from unvanish.schema.treatment import Prescription
from unvanish.treatment.patch.facts import Facts
from unvanish.treatment.patch.patch import patch_source, read_sources
from unvanish.treatment.patch.reading import read_facts
from unvanish.treatment.patch.rehearsal import losses_patched, losses_treated, record_script
from unvanish.treatment.recipe import Recipe, load_recipe

STEPS = 10  # of the rehearsal
CLOSE = 1e-6  # of a loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """What came of it. `root`: the folder in which `git apply` takes the diff.

    `same`: whether the patched script's losses are the recipe's; None where that could not be tried.
    """

    diff: str = ""
    root: str = ""
    why_not: str | None = None
    snippet: str = ""
    notes: tuple[str, ...] = ()
    same: bool | None = None
    by_hand: bool = False  # as in Recipe


def make_patch(script: Path, arguments: Sequence[str], recipe: Recipe, seed: int) -> Patched:
    """The patch for this script, rehearsed."""
    root = root_of(script)
    by_hand = recipe.fingerprint if recipe.by_hand else None
    recorder = record_script(script, root, arguments=arguments, seed=seed, by_hand=by_hand)
    try:
        facts = read_facts(recorder, recipe)
        patch = patch_source(read_sources(facts), facts)
    except UnvanishError as error:
        return Patched(root=str(root), why_not=error.mistake)
    if patch.why_not is not None:
        return Patched(root=str(root), why_not=patch.why_not, snippet=patch.snippet, notes=patch.notes)
    same = _rehearsed(script, root, arguments, recipe, facts, patch.files, seed)
    text = patch.diff.decode("utf-8", "surrogateescape")
    return Patched(diff=text, root=str(root), notes=patch.notes, same=same, by_hand=recipe.by_hand)


def root_of(script: Path) -> Path:
    """Where the diff's paths begin: the script's repository, else its folder."""
    folder = script.resolve().parent
    return next((p for p in (folder, *folder.parents) if (p / ".git").exists()), folder)


def _rehearsed(
    script: Path,
    root: Path,
    arguments: Sequence[str],
    recipe: Recipe,
    facts: Facts,
    files: Any,
    seed: int,
) -> bool | None:
    plan = list(recipe.prescriptions)
    now = facts.optimizers[0].rates[0] if facts.optimizers else 0.0
    if recipe.learning_rate is not None and now > 0 and not math.isclose(now, recipe.learning_rate):
        factor = recipe.learning_rate / now
        plan.insert(0, Prescription(treatment="learning_rate", parameters={"factor": factor}))
    try:
        # what else starts from the system's noise starts alike for both
        with shifted_seeds(0):
            treated = losses_treated(
                script,
                plan,
                recipe.fingerprint,
                steps=STEPS,
                seed=seed,
                arguments=arguments,
                by_hand=recipe.by_hand,
            )
        with shifted_seeds(0):
            patched = losses_patched(
                script, root, files, steps=STEPS, seed=seed, arguments=arguments, by_hand=recipe.by_hand
            )
    except Exception:  # noqa: BLE001 - the script may raise anything
        return None
    if not treated or len(treated) != len(patched):
        return False
    return all(_close(a, b) for a, b in zip(treated, patched, strict=True))


def _close(one: float, other: float) -> bool:
    both = math.isfinite(one) and math.isfinite(other)
    return abs(one - other) <= CLOSE * max(1.0, abs(one)) if both else one is other or str(one) == str(other)


def main() -> None:
    """Read a request from one file, write the answer to another."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.chdir(request["directory"])
    folders = folders_of(request["script"], request["directory"], arguments=request["arguments"])
    isolate(Path(request["scratch"]), folders)
    with contextlib.redirect_stdout(sys.stderr):
        made = make_patch(
            Path(request["script"]),
            tuple(request["arguments"]),
            load_recipe(request["recipe"]),
            int(request["seed"]),
        )
    Path(sys.argv[2]).write_text(json.dumps(asdict(made)), encoding="utf-8", errors="surrogateescape")


if __name__ == "__main__":
    main()
