"""The source patch, asked for in a process of its own, and what is to be said of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from unvanish.launch.isolation import scratch_folder
from unvanish.remedy.options import Options, environment
from unvanish.verify.trial import Target

MAKER = "unvanish.launch.patching"
SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePatch:
    """A unified diff for `git apply` (empty = there is none), and what the user should know of it."""

    diff: bytes = b""
    notes: tuple[str, ...] = ()


UNPATCHED = SourcePatch(
    notes=(
        (
            "no source patch: the weights are tensors that no module holds; by hand, before the optimizer is built:\n"
            "w.data.normal_(std=gain / fan_in ** 0.5)  # each weight, of as many inputs; the recipe has the gain"
        ),
    )
)


def patch_for(target: Target, recipe: Path, options: Options) -> SourcePatch:
    """The recipe as a change of the script's source. It never fails: where there is none, the notes say why."""
    if target.is_module:
        return SourcePatch(notes=("no source patch: that is written for scripts alone",))
    with tempfile.TemporaryDirectory() as folder, scratch_folder() as scratch:
        request, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        request.write_text(
            json.dumps(
                {
                    "script": str(Path(target.directory, target.program)),
                    "arguments": list(target.arguments),
                    "directory": target.directory,
                    "recipe": str(recipe),
                    "seed": options.seed or 0,
                    "scratch": str(scratch),
                }
            ),
            encoding="utf-8",
        )
        words = [sys.executable, "-m", MAKER, str(request), str(answer)]
        try:
            process = subprocess.run(
                words,
                capture_output=True,
                check=False,
                timeout=SECONDS,
                env=environment(),
                cwd=target.directory,
            )
        except subprocess.TimeoutExpired:
            return SourcePatch(
                notes=(f"no source patch: the script took more than {SECONDS:.0f} s to begin",)
            )
        if not answer.exists():
            lines = process.stderr.decode("utf-8", "replace").strip().splitlines()
            return SourcePatch(
                notes=(f"no source patch: {lines[-1] if lines else 'the script ended early'}",)
            )
        told = json.loads(answer.read_text(encoding="utf-8", errors="surrogateescape"))
    return _said(told)


def _said(told: dict[str, object]) -> SourcePatch:
    if told["why_not"] is not None:
        by_hand = f"; by hand:\n{told['snippet']}" if told["snippet"] else ""
        return SourcePatch(notes=(f"no source patch: {told['why_not']}{by_hand}",))
    notes = [str(note) for note in told["notes"]]  # type: ignore[attr-defined]  # a list of texts
    notes.append(f"the source patch is for `git apply` in {told['root']}")
    if told["same"] is None:
        notes.append("whether the patched script does the same as the recipe could not be tried")
    elif not told["same"] and told["by_hand"]:
        notes.append(
            "the patched script's losses differ from the recipe's: it draws other random numbers, or it updates a"
            " list of parameters that it makes beforehand, in which the recipe's new norms are not"
        )
    elif not told["same"]:
        notes.append(
            "the patched script draws other random numbers than the recipe, so that its losses differ"
        )
    return SourcePatch(diff=str(told["diff"]).encode("utf-8", "surrogateescape"), notes=tuple(notes))
