"""Scripts that are recorded once, the plans that they are patched by, and git."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from pathlib import Path

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import JsonValue, Prescription
from unvanish.treatment.patch.facts import Facts
from unvanish.treatment.patch.patch import Patch, patch_source, read_sources
from unvanish.treatment.patch.reading import read_facts
from unvanish.treatment.patch.record import Recorder
from unvanish.treatment.patch.rehearsal import losses_patched, losses_treated, record_script
from unvanish.treatment.recipe import fingerprint

SCRIPTS = Path(__file__).parent / "scripts"
STEPS = 5
Plan = tuple[Prescription, ...]


def of(treatment: str, target: str = "*", **parameters: JsonValue) -> Plan:
    return (Prescription(treatment=treatment, target=target, parameters=parameters),)  # type: ignore[arg-type]


RELU_HE = of("activation", kind="relu") + of("init", scheme="he")


@functools.cache
def recorded(script: Path) -> Recorder:
    return record_script(script, script.parent)


def facts_for(script: Path, plan: Plan) -> Facts:
    return read_facts(recorded(script), plan)


def patched(script: Path, plan: Plan) -> Patch:
    facts = facts_for(script, plan)
    return patch_source(read_sources(facts), facts)


def text_of(patch: Patch) -> str:
    """The only file's new text; fails with the reason where there is none."""
    assert patch.why_not is None, patch.why_not
    (raw,) = patch.files.values()
    return raw.decode()


def patch_text(tmp_path: Path, text: str | bytes, plan: Plan, name: str = "script.py") -> Patch:
    script = tmp_path / name
    script.write_bytes(text if isinstance(text, bytes) else text.encode())
    recorder = record_script(script, tmp_path)
    facts = read_facts(recorder, plan)
    return patch_source(read_sources(facts), facts)


def treated(script: Path, plan: Plan, seed: int = 0) -> list[float] | None:
    """The losses with surgery; None where it refuses."""
    try:
        mark = fingerprint(recorded(script).roots[0].model)
        return losses_treated(script, plan, mark, steps=STEPS, seed=seed)
    except SurgeryError:
        return None


def after(script: Path, patch: Patch, seed: int = 0) -> list[float]:
    return losses_patched(script, script.parent, patch.files, steps=STEPS, seed=seed)


def git_apply(folder: Path, diff: bytes, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What real git makes of the files by the diff."""
    for path, raw in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    (folder / "the.diff").write_bytes(diff)
    command = ["git", "-c", "core.autocrlf=false", "apply", "-p1", "--whitespace=nowarn", "the.diff"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return {path: (folder / path).read_bytes() for path in files}
