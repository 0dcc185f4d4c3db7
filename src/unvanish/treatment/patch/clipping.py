"""Gradients are clipped in front of the optimizer's step."""

from __future__ import annotations

import libcst as cst

from unvanish.schema.treatment import Prescription
from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import StepFact
from unvanish.treatment.patch.rates import number
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree


def clip_gradients(draft: Draft, prescription: Prescription) -> None:
    """Clip the total norm (or each value) of the model's gradients in front of every step of its optimizer.

    Raises:
        PatchError: several optimizers, a step that takes a closure, or one where the model has no name.
    """
    facts = draft.facts
    if len(facts.optimizers) != 1:
        raise PatchError("several optimizers train the model, and which steps to clip before is not clear")
    if not facts.steps:
        raise PatchError("no optimizer step was seen")
    for step in facts.steps:
        _clip_before(draft, step, prescription)


def _clip_before(draft: Draft, step: StepFact, prescription: Prescription) -> None:
    if step.site is None:
        raise PatchError("the optimizer's step is made by library code")
    tree, call = draft.call(step.site)
    place = tree.place(call)
    if step.closure or (call.args and not step.scaled):
        raise PatchError(f"the step in {place} computes the gradients itself (a closure)", place=place)
    if not step.names:
        raise PatchError(f"the model has no name where the step is ({place})", place=place)
    lines = []
    if step.scaled and isinstance(call.func, cst.Attribute) and not _unscaled(tree, call):
        lines.append(f"{tree.code(call.func.value)}.unscale_({tree.code(call.args[0].value)})")
    function, limit = _clip_call(draft, tree, prescription)
    lines.append(f"{function}({step.names[0]}.parameters(), {limit})")
    draft.edits(tree).before(call, lines)


def _clip_call(draft: Draft, tree: Tree, prescription: Prescription) -> tuple[str, str]:
    """(function, limit) as this file writes them."""
    given = prescription.parameters
    key, name = ("value", "clip_grad_value_") if "value" in given else ("norm", "clip_grad_norm_")
    limit = given.get(key)
    text = number(float(limit)) if isinstance(limit, (int, float)) else "1.0"
    return draft.spelling(tree).write(f"torch.nn.utils.{name}"), text


def _unscaled(tree: Tree, call: cst.Call) -> bool:
    """Whether the same function unscales the gradients before."""
    scope = tree.scope(call)
    return any(tree.start(a) < tree.start(call) for a in tree.attributes("unscale_", scope))
