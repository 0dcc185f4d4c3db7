"""The learning rate and the clipping of gradients: at the optimizer's call, and at its step."""

from __future__ import annotations

import ast
import math

import libcst as cst

from unvanish.schema.treatment import Prescription
from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import OptimizerFact, StepFact
from unvanish.treatment.patch.origin import Accept, Origin
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, argument

# torch's own, which take the rate in the second place
_TORCHS = frozenset(
    {
        "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop",
        "LBFGS", "SparseAdam", "Adafactor", "Muon",
    }
)  # fmt: skip


def scale_rates(draft: Draft, factor: float) -> None:
    """Multiply the rate of every optimizer of the model: the literal where it is written, else the expression.

    Raises:
        PatchError: an optimizer is built by library code, or its rates are not written in its call.
    """
    found: list[tuple[Tree, cst.BaseExpression, Origin | None, float]] = []
    for optimizer in draft.facts.optimizers:
        found += _rates_of(draft, optimizer, factor)
    covered = draft.origins.covered(origin for _, _, origin, _ in found if origin is not None)
    for tree, node, origin, rate in found:
        if origin is not None and (covered or not origin.trail):
            draft.edits(origin.tree).replace_node(origin.node, _number(rate * factor))
        else:
            _multiply(draft, tree, node, factor)


def _rates_of(
    draft: Draft, optimizer: OptimizerFact, factor: float
) -> list[tuple[Tree, cst.BaseExpression, Origin | None, float]]:
    """The expressions that rates come from, with their origin and value; a rate left out is written at once."""
    tree, call = _call_of(draft, optimizer)
    outer = [site for site, _ in optimizer.outer]
    nodes = [(node, optimizer.rates[place]) for place, node in _group_rates(tree, call, optimizer)]
    if not math.isfinite(optimizer.default_rate):
        raise PatchError(
            f"the optimizer in {tree.place(call)} has no rate of its own", place=tree.place(call)
        )
    given = argument(call, 1 if optimizer.kind in _TORCHS else 10**6, "lr")
    if given is not None:
        nodes.append((given.value, optimizer.default_rate))
    elif any(arg.star for arg in call.args):
        raise PatchError(f"the rate in {tree.place(call)} is not written there", place=tree.place(call))
    elif len(nodes) < len(optimizer.rates):
        rate = _number(optimizer.default_rate * factor)
        draft.edits(tree).behind(tree.close(call.args[-1].value), f", lr={rate}")
    origins = [draft.origins.find(tree, node, _is(rate), outer) for node, rate in nodes]
    return [(tree, node, origin, rate) for (node, rate), origin in zip(nodes, origins, strict=True)]


def _call_of(draft: Draft, optimizer: OptimizerFact) -> tuple[Tree, cst.Call]:
    if optimizer.site is None:
        where = optimizer.outer[0][0] if optimizer.outer else None
        place = f"{where.file}:{where.line}" if where is not None else ""
        raise PatchError("the optimizer is built by library code", place=place)
    return draft.call(optimizer.site)


def _group_rates(
    tree: Tree, call: cst.Call, optimizer: OptimizerFact
) -> list[tuple[int, cst.BaseExpression]]:
    """(group, expression) for each "lr" in the call's parameter groups."""
    first = argument(call, 0, "params")
    groups = first.value if first is not None else None
    found = []
    if isinstance(groups, cst.List):
        for place, element in enumerate(groups.elements):
            value = _entry(element.value, "lr")
            if value is not None:
                found.append((place, value))
    elif isinstance(groups, cst.ListComp):
        value = _entry(groups.elt, "lr")
        if value is not None:  # one expression for all groups: it is multiplied, whatever they come to
            return [(0, value)] * len(optimizer.rates) if len(set(optimizer.rates)) == 1 else [(0, value)]
    explained = {place for place, _ in found}
    for place, rate in enumerate(optimizer.rates):
        if place not in explained and not math.isclose(rate, optimizer.default_rate):
            raise PatchError(
                f"the rates of the parameter groups are not written in {tree.place(call)}",
                place=tree.place(call),
            )
    return found


def _entry(node: cst.CSTNode, key: str) -> cst.BaseExpression | None:
    if isinstance(node, cst.Dict):
        for element in node.elements:
            name = element.key if isinstance(element, cst.DictElement) else None
            if isinstance(name, cst.SimpleString) and name.evaluated_value == key:
                return element.value
    return None


def _is(rate: float) -> Accept:
    """Accepts the number itself, written out."""
    return lambda tree, node: _value(tree, node) == rate


def _value(tree: Tree, node: cst.BaseExpression) -> float | None:
    if not isinstance(node, (cst.Integer, cst.Float, cst.UnaryOperation)):
        return None
    value = ast.literal_eval(tree.code(node))
    return float(value) if isinstance(value, (int, float)) else None


def _number(value: float) -> str:
    """A float as python writes it, rid of the last digits' noise."""
    return repr(float(f"{value:.12g}"))


def _multiply(draft: Draft, tree: Tree, node: cst.BaseExpression, factor: float) -> None:
    """lr -> lr * 0.3, in parentheses where it has to be."""
    tight = (cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.Integer, cst.Float)
    product = isinstance(node, cst.BinaryOperation) and isinstance(node.operator, (cst.Multiply, cst.Divide))
    bare = isinstance(node, tight) or product or bool(node.lpar)
    before, behind = ("", "") if bare else ("(", ")")
    draft.edits(tree).wrap(tree.start(node), tree.close(node), before, f"{behind} * {_number(factor)}")


# --- clipping ---------------------------------------------------------------------------------------------------


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
    lines.append(f"{clip_call(draft, tree, prescription)[0]}({step.names[0]}.parameters(), "
                 f"{clip_call(draft, tree, prescription)[1]})")  # fmt: skip
    draft.edits(tree).before(call, lines)


def clip_call(draft: Draft, tree: Tree, prescription: Prescription) -> tuple[str, str]:
    """(function, limit) as this file writes them."""
    limit = prescription.parameters.get("value")
    name = "clip_grad_norm_" if limit is None else "clip_grad_value_"
    limit = prescription.parameters.get("norm", 1.0) if limit is None else limit
    number = _number(float(limit)) if isinstance(limit, (int, float)) else "1.0"
    return draft.spelling(tree).write(f"torch.nn.utils.{name}"), number


def _unscaled(tree: Tree, call: cst.Call) -> bool:
    """Whether the same function unscales the gradients before."""
    scope = tree.scope(call)
    return any(tree.start(a) < tree.start(call) for a in tree.attributes("unscale_", scope))
