"""The learning rate: at the optimizer's call, or where the number that it gets is written."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, replace

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import OptimizerFact, Site
from unvanish.treatment.patch.origin import Accept, Origin
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, argument, dotted

# torch's own, which take the rate in the second place
_TORCHS = frozenset(
    {
        "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop",
        "LBFGS", "SparseAdam", "Adafactor", "Muon",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Rate:
    """An expression that gives a rate; `origin` is where its number is written, None where it is to be multiplied.

    `merged`: the expression is a mapping that is handed over with two stars, and has the rate as one of its entries.
    """

    tree: Tree
    node: cst.BaseExpression
    value: float
    origin: Origin | None = None
    merged: bool = False


def scale_rates(draft: Draft, factor: float) -> None:
    """Multiply the rate of every optimizer of the model: the literal where it is written, else the expression.

    Raises:
        PatchError: an optimizer is built by library code, or its rates are not written in its call; there is none.
    """
    if not draft.facts.optimizers:
        raise PatchError("the learning rate is a number in the script's own update of the weights")
    found = [rate for optimizer in draft.facts.optimizers for rate in _rates_of(draft, optimizer, factor)]
    covered = draft.origins.covered(rate.origin for rate in found if rate.origin is not None)
    for rate in found:
        if rate.origin is not None and (covered or not rate.origin.trail):
            draft.edits(rate.origin.tree).replace_node(rate.origin.node, number(rate.value * factor))
        elif rate.merged:
            name = rate.tree.code(rate.node)
            draft.edits(rate.tree).replace_node(
                rate.node, f'{{**{name}, "lr": {name}["lr"] * {number(factor)}}}'
            )
        else:
            _multiply(draft, rate, factor)


def _rates_of(draft: Draft, optimizer: OptimizerFact, factor: float) -> list[_Rate]:
    """All rates of an optimizer; one that is left out is written at once."""
    tree, call = _call_of(draft, optimizer)
    outer = [site for site, _ in optimizer.outer]
    if not math.isfinite(optimizer.default_rate):
        raise _unwritten(tree, call)
    groups = _group_rates(draft, tree, call, optimizer)
    rates = [rate for place, rate in groups.items() if place < 0 or optimizer.ours[place]]
    plain = {optimizer.ours[place] for place in range(len(optimizer.rates)) if place not in groups}
    if len(plain) > 1 and -1 not in groups:
        raise PatchError(
            f"the rate in {tree.place(call)} is also that of another model", place=tree.place(call)
        )
    if True not in plain or -1 in groups:
        return [_followed(draft, rate, tree, outer) for rate in rates]
    given = argument(call, 1 if optimizer.kind in _TORCHS else 10**6, "lr")
    stars = [arg.value for arg in call.args if arg.star == "**"]
    if given is not None:
        rates.append(_Rate(tree, given.value, optimizer.default_rate))
    elif len(stars) == 1 and dotted(stars[0]) is not None:
        rates.append(_in_mapping(draft, tree, stars[0], optimizer.default_rate))
    elif any(arg.star for arg in call.args):
        raise _unwritten(tree, call)
    else:
        text = number(optimizer.default_rate * factor)
        draft.edits(tree).behind(tree.close(call.args[-1].value), f", lr={text}")
    return [_followed(draft, rate, tree, outer) for rate in rates]


def _followed(draft: Draft, rate: _Rate, tree: Tree, outer: list[Site]) -> _Rate:
    """With the place where its number is written, if there is one."""
    if rate.merged or math.isnan(rate.value):
        return rate
    calls = outer if rate.tree is tree else []
    return replace(rate, origin=draft.origins.find(rate.tree, rate.node, _is(rate.value), calls))


def _unwritten(tree: Tree, call: cst.Call) -> PatchError:
    place = tree.place(call)
    return PatchError(f"the rate of the optimizer in {place} is not written there", place=place)


def _call_of(draft: Draft, optimizer: OptimizerFact) -> tuple[Tree, cst.Call]:
    if optimizer.site is None:
        where = optimizer.outer[0][0] if optimizer.outer else None
        place = f"{where.file}:{where.line}" if where is not None else ""
        raise PatchError("the optimizer is built by library code", place=place)
    return draft.call(optimizer.site)


def _in_mapping(draft: Draft, tree: Tree, node: cst.BaseExpression, value: float) -> _Rate:
    """config = {"lr": 0.1, ...} that is handed over as **config: its entry, where nobody else looks at it."""
    origin = draft.origins.find(tree, node, lambda _, n: isinstance(n, cst.Dict))
    entry = None if origin is None else _entry(origin.node, "lr")
    plain = origin is not None and entry is not None and _is(value)(origin.tree, entry)
    if origin is not None and entry is not None and plain and draft.origins.covered([origin]):
        return _Rate(origin.tree, entry, value)
    return _Rate(tree, node, value, merged=True)


def _group_rates(draft: Draft, tree: Tree, call: cst.Call, optimizer: OptimizerFact) -> dict[int, _Rate]:
    """A rate for each "lr" in the call's parameter groups, which may stand in a variable; -1: one for all groups."""
    first = argument(call, 0, "params")
    origin = None if first is None else draft.origins.find(tree, first.value, _is_list)
    found: dict[int, _Rate] = {}
    if origin is not None and isinstance(origin.node, cst.List):
        for place, element in enumerate(origin.node.elements):
            value = _entry(element.value, "lr")
            if value is not None and place < len(optimizer.rates):
                found[place] = _Rate(origin.tree, value, optimizer.rates[place])
    elif origin is not None and isinstance(origin.node, cst.ListComp):
        value = _entry(origin.node.elt, "lr")
        if value is not None:  # one expression for all groups: it is multiplied, whatever they come to
            return {-1: _Rate(origin.tree, value, math.nan)}
    for place, rate in enumerate(optimizer.rates):
        if place not in found and not math.isclose(rate, optimizer.default_rate):
            raise _unwritten(tree, call)
    if found and origin is not None and origin.trail and not draft.origins.covered([origin]):
        raise _unwritten(tree, call)
    return found


def _is_list(_: Tree, node: cst.BaseExpression) -> bool:
    return isinstance(node, (cst.List, cst.ListComp))


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


def number(value: float) -> str:
    """A float as python writes it, rid of the last digits' noise."""
    return repr(float(f"{value:.12g}"))


def _multiply(draft: Draft, rate: _Rate, factor: float) -> None:
    """lr -> lr * 0.3, in parentheses where it has to be."""
    tree, node = rate.tree, rate.node
    tight = (cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.Integer, cst.Float)
    product = isinstance(node, cst.BinaryOperation) and isinstance(node.operator, (cst.Multiply, cst.Divide))
    bare = isinstance(node, tight) or product or bool(node.lpar)
    before, behind = ("", "") if bare else ("(", ")")
    draft.edits(tree).wrap(tree.start(node), tree.close(node), before, f"{behind} * {number(factor)}")
