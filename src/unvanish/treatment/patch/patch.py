"""A treatment as a unified diff of the user's source, or what to write by hand and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst

from unvanish.treatment.patch.by_hand import snippet_for
from unvanish.treatment.patch.call_skips import place_call_skips
from unvanish.treatment.patch.clipping import clip_gradients
from unvanish.treatment.patch.depth import drop_layers
from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.entrances import standardise_inputs
from unvanish.treatment.patch.facts import Change, Facts
from unvanish.treatment.patch.functions import swap_functions
from unvanish.treatment.patch.inits import place_init
from unvanish.treatment.patch.norms import place_norms
from unvanish.treatment.patch.outputs import change_output, reconnect
from unvanish.treatment.patch.rates import scale_rates
from unvanish.treatment.patch.recurrent import gate_recurrent
from unvanish.treatment.patch.skips import place_skips
from unvanish.treatment.patch.swapping import swap_modules
from unvanish.treatment.patch.text import PatchError, diff

_RENAMES = ("batchnorm", "layernorm", "groupnorm", "residual", "simplify")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """`files` are the new bytes of each changed file by its path; `diff` is for `git apply` in the root folder.

    `why_not` is None, or one sentence on why there is no diff; `snippet` then is what to write by hand, with the
    place. `notes` say what a user should know of the diff, one sentence each.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    diff: bytes = b""
    why_not: str | None = None
    snippet: str = ""
    notes: tuple[str, ...] = ()


def patch_source(sources: Mapping[str, bytes | str], facts: Facts) -> Patch:
    """The diff that does in the source what the recipe does to the model. Nothing is run, nothing is written.

    `sources` are the files by their paths relative to `facts.root` (see read_sources). All changes are made, or
    none: where one of them is not understood, the patch says why, and what to write by hand.
    """
    change: Change | None = None
    try:
        draft = Draft(sources, facts)
        renamed = any(c.prescription.treatment in _RENAMES for c in facts.changes)
        for change in facts.changes:
            _make(draft, change, renamed=renamed)
        change = None
        _note_loop(draft)
        if facts.learning_rate is not None and facts.optimizers:
            now = facts.optimizers[0].rates[0]
            if now > 0 and now != facts.learning_rate:
                scale_rates(draft, facts.learning_rate / now)
        return _finished(draft)
    except PatchError as error:
        return Patch(why_not=error.mistake, snippet=snippet_for(facts, change, error))


def _note_loop(draft: Draft) -> None:
    """Say so where the model is built in a loop: the recipe treats the first that trains, the source all."""
    birth = draft.facts.parts[""].birth
    for site in () if birth is None else (birth.site, *birth.outer):
        try:
            tree, call = draft.call(site)
        except PatchError:
            continue
        for around in tree.around(call):
            if isinstance(around, (cst.For, cst.While)):
                draft.note(f"{tree.place(call)} is in a loop: every model that it builds is treated")
            if isinstance(around, (cst.FunctionDef, cst.ClassDef)):
                break


def read_sources(facts: Facts) -> dict[str, bytes]:
    """The files that were seen to run, as they are now."""
    return {path: (Path(facts.root) / path).read_bytes() for path in facts.digests}


def _finished(draft: Draft) -> Patch:
    before, after = {}, {}
    for path, (source, text) in draft.texts().items():
        before[path] = source.encoded(source.text)
        after[path] = source.encoded(text)
        if text != source.text:
            try:
                compile(after[path], path, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                raise PatchError(f"the changed {path} would be no python", place=f"{path}:1") from error
    changed = {path: raw for path, raw in after.items() if raw != before[path]}
    if not changed:
        raise PatchError("nothing in the source would change")
    return Patch(files=changed, diff=diff(before, after), notes=tuple(draft.notes))


def _make(draft: Draft, change: Change, *, renamed: bool) -> None:
    if change.refused is not None:
        raise PatchError(change.refused)
    if change.only_here is not None:
        draft.note(f"the model itself can't be treated so ({change.only_here}): the patch was not tried out")
    treatment = change.prescription.treatment
    if treatment == "init":
        place_init(draft, change, renamed=renamed)
        return
    maker = _MAKERS.get(treatment)
    if maker is None:
        raise PatchError(f"{treatment} has no form in the source that a program should write")
    maker(draft, change)


def _activation(draft: Draft, change: Change) -> None:
    swap_modules(draft, change.swaps)
    swap_functions(draft, change.functions)


def _norms(draft: Draft, change: Change) -> None:
    if change.prescription.parameters.get("at") == "norms":
        swap_modules(draft, change.swaps)
        return
    draft.norms = change.norms
    place_norms(draft, change.norms)


def _residual(draft: Draft, change: Change) -> None:
    place_skips(draft, change.skips, change.uneven)
    place_call_skips(draft, change.call_skips)


def _rate(draft: Draft, change: Change) -> None:
    factor = change.prescription.parameters.get("factor")
    if not isinstance(factor, (int, float)):
        raise PatchError("where the script raises its rate can't be told")
    scale_rates(draft, float(factor))


_MAKERS: dict[str, Callable[[Draft, Change], None]] = {
    "activation": _activation,
    "output": change_output,
    "reconnect": reconnect,
    "inputs": standardise_inputs,
    "gated_rnn": gate_recurrent,
    "simplify": drop_layers,
    "batchnorm": _norms,
    "layernorm": _norms,
    "groupnorm": _norms,
    "residual": _residual,
    "learning_rate": _rate,
    "clip": lambda draft, change: clip_gradients(draft, change.prescription),
}
