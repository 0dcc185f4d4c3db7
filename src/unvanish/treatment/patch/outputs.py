"""Another end of the model, and parameters that the optimizer was not given."""

from __future__ import annotations

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Appended, Change
from unvanish.treatment.patch.functions import swap_functions
from unvanish.treatment.patch.reach import refuse_reached
from unvanish.treatment.patch.spots import behind
from unvanish.treatment.patch.swapping import all_born_at, swap_modules
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, dotted

_FUNCTIONS = {"Sigmoid": "torch.sigmoid", "LogSoftmax": "torch.log_softmax"}


def change_output(draft: Draft, change: Change) -> None:
    """Swap what makes the output, or put it behind the last layer.

    Raises:
        PatchError: that is not plainly written.
    """
    swap_modules(draft, change.swaps)
    swap_functions(draft, change.functions)
    for new in change.appended:
        _append(draft, new)


def _append(draft: Draft, new: Appended) -> None:
    part = draft.facts.parts[new.layer]
    if part.holder == "torch.nn.Sequential" and _at_end(draft, new):
        return
    births = draft.facts.births([new.layer])
    if isinstance(births, str):
        raise PatchError(births)
    tree, call = draft.call(next(iter(births)))
    called = [s for s in draft.facts.calls_of(new.layer) if s is not None]
    if len(called) != 1 or new.kind not in _FUNCTIONS:
        raise PatchError(f"where forward calls {new.layer} is not in the sources", place=tree.place(call))
    where, one = draft.call(called[0])
    name = draft.spelling(where).write(_FUNCTIONS[new.kind])
    draft.edits(where).wrap_node(one, f"{name}(", f", {new.arguments})" if new.arguments else ")")


def _at_end(draft: Draft, new: Appended) -> bool:
    """nn.Sequential(..., last) -> nn.Sequential(..., last, nn.Sigmoid())."""
    holder = new.layer.rpartition(".")[0]
    births = draft.facts.births([holder])
    if isinstance(births, str) or draft.facts.children(holder)[-1] != new.layer:
        return False
    site = next(iter(births))
    all_born_at(draft, site, [holder], "makes the output")
    tree, call = draft.call(site)
    if draft.spelling(tree).meaning(call.func) != "torch.nn.Sequential" or not call.args:
        return False
    last = call.args[-1].value
    if len(call.args) == 1 and not call.args[0].star and _may_be_mapping(last):
        return False
    refuse_reached(draft, [holder])
    name = draft.spelling(tree).write(f"torch.nn.{new.kind}")
    draft.edits(tree).behind(
        *behind(tree, tree.line_start(tree.start(last)), tree.close(last), f"{name}({new.arguments})")
    )
    return True


def _may_be_mapping(node: cst.BaseExpression) -> bool:
    """Whether a Sequential's only argument may hold names and modules."""
    if isinstance(node, cst.Call):
        return "Dict" in (dotted(node.func) or "")
    return isinstance(node, (cst.Dict, cst.Name))


def reconnect(draft: Draft, change: Change) -> None:
    """Adam(model.head.parameters()) -> Adam(model.parameters()), where nothing is frozen.

    Raises:
        PatchError: what is left out is not plainly written.
    """
    facts = draft.facts
    if facts.frozen:
        raise PatchError(f"{facts.frozen[0]} is frozen, and where that is done is not plainly written")
    if len(facts.optimizers) != 1 or change.prescription.target != "*" or facts.optimizers[0].site is None:
        raise PatchError("what the optimizer is to train is not plainly written")
    optimizer = facts.optimizers[0]
    tree, call = draft.call(facts.optimizers[0].site)
    part = _part_of(tree, call, optimizer.names)
    if part is None:
        place = tree.place(call)
        raise PatchError(f"what the optimizer in {place} trains is not plainly written", place=place)
    node, model = part
    draft.edits(tree).replace_node(node, model)


def _part_of(tree: Tree, call: cst.Call, names: tuple[str, ...]) -> tuple[cst.CSTNode, str] | None:
    """model.head in Adam(model.head.parameters(), ...), with the model's name."""
    if not call.args or not isinstance(call.args[0].value, cst.Call):
        return None
    func = call.args[0].value.func
    if not isinstance(func, cst.Attribute) or func.attr.value != "parameters":
        return None
    base = dotted(func.value) or tree.code(func.value)
    model = next((n for n in names if base.startswith((n + ".", n + "["))), None)
    return None if model is None else (func.value, model)
