"""What stands around a call that builds a module: a list, an append, an attribute; and how to add a neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.tree import Tree, argument, dotted, is_self

Kind = Literal["element", "pair", "append", "add_module", "attribute", "comprehension", "return", "other"]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a module's call (or the variable that holds it) goes.

    `node` is what stands there; `holder` the list, tuple or call around it ("element", "pair"), the append or
    add_module call, the assignment ("attribute"), the comprehension. `name` is the attribute, or the list's name.
    """

    kind: Kind
    tree: Tree
    node: cst.CSTNode
    holder: cst.CSTNode
    name: str = ""


def spot_of(tree: Tree, node: cst.CSTNode) -> Spot:
    """What the module that this expression gives is put into."""
    parent = tree.parents[node]
    if isinstance(parent, cst.Arg) and isinstance(tree.parents[parent], cst.Call):
        return _argument(tree, node, parent, tree.parents[parent])
    if isinstance(parent, cst.Element):
        return _element(tree, node, parent)
    if isinstance(parent, (cst.ListComp, cst.GeneratorExp)) and parent.elt is node:
        return Spot("comprehension", tree, node, parent)
    if isinstance(parent, cst.Return):
        return Spot("return", tree, node, parent)
    if isinstance(parent, cst.Assign) and len(parent.targets) == 1:
        return _target(tree, node, parent, parent.targets[0].target)
    if isinstance(parent, cst.AnnAssign):
        return _target(tree, node, parent, parent.target)
    return Spot("other", tree, node, parent)


def _argument(tree: Tree, node: cst.CSTNode, arg: cst.Arg, call: cst.CSTNode) -> Spot:
    if not isinstance(call, cst.Call) or arg.star or arg.keyword is not None:
        return Spot("other", tree, node, call)
    method = call.func.attr.value if isinstance(call.func, cst.Attribute) else ""
    base = dotted(call.func.value) if isinstance(call.func, cst.Attribute) else None
    if method == "append" and base is not None and len(call.args) == 1:
        return Spot("append", tree, node, call, base)
    if method in ("add_module", "register_module") and base is not None and len(call.args) == 2:
        return Spot("add_module", tree, node, call, base)
    if dotted(call.func) == "setattr" and len(call.args) == 3 and call.args[2] is arg:
        return Spot("add_module", tree, node, call, dotted(call.args[0].value) or "")
    return Spot("element", tree, node, call, dotted(call.func) or "")


def _element(tree: Tree, node: cst.CSTNode, element: cst.Element) -> Spot:
    holder = tree.parents[element]
    above = tree.parents[holder]
    if isinstance(holder, cst.Tuple):
        first = holder.elements[0].value
        named = len(holder.elements) == 2 and isinstance(first, (cst.SimpleString, cst.FormattedString))
        if named and holder.elements[1] is element and isinstance(above, (cst.Element, cst.Arg)):
            return Spot("pair", tree, node, holder)
        if isinstance(above, cst.Assign) and above.value is holder and len(above.targets) == 1:
            targets = above.targets[0].target
            place = list(holder.elements).index(element)
            if isinstance(targets, cst.Tuple) and len(targets.elements) == len(holder.elements):
                return _target(tree, node, above, targets.elements[place].value)
    name = ""
    if isinstance(above, (cst.Assign, cst.AugAssign, cst.AnnAssign)):
        target = above.targets[0].target if isinstance(above, cst.Assign) else above.target
        name = dotted(target) or ""
    elif isinstance(above, cst.Arg):
        call = tree.parents[above]
        if (
            isinstance(call, cst.Call)
            and isinstance(call.func, cst.Attribute)
            and call.func.attr.value == "extend"
        ):
            name = dotted(call.func.value) or ""
    return Spot("element", tree, node, holder, name)


def _target(tree: Tree, node: cst.CSTNode, assign: cst.CSTNode, target: cst.CSTNode) -> Spot:
    if is_self(target):
        return Spot("attribute", tree, node, assign, (dotted(target) or "").removeprefix("self."))
    if isinstance(target, cst.Name):
        # a variable that is used once, for the very purpose
        scope = tree.scope(node)
        uses = [
            n for n in tree.uses(target.value, scope)
            if n is not target and isinstance(tree.parents[n], (cst.Element, cst.Arg, cst.Assign, cst.Return))
            and not isinstance(tree.parents[n], cst.AssignTarget)
        ]  # fmt: skip
        spots = [spot_of(tree, n) for n in uses]
        known = [s for s in spots if s.kind in ("element", "pair", "append", "add_module", "attribute")]
        placed = [s for s in known if s.kind != "element" or not isinstance(s.holder, cst.Call)]
        if len(placed) == 1:
            return placed[0]
    return Spot("other", tree, node, assign)


def width_text(tree: Tree, call: cst.Call, spot: Spot, base: str) -> str | None:
    """How a neighbour can write the layer's number of outputs; None where only the number itself can stand there.

    `base` is the layer's class of torch.nn. Only torch's own call is known to have the outputs in the second place.
    """
    name = "out_features" if base == "torch.nn.Linear" else "out_channels"
    if spot.node is not call and isinstance(spot.node, cst.Name):
        return f"{spot.node.value}.{name}"
    given = argument(call, 1, name)
    own = (dotted(call.func) or "").rpartition(".")[2] == base.rpartition(".")[2]
    return tree.code(given.value) if own and given is not None and _is_simple(given.value) else None


def _is_simple(node: cst.CSTNode) -> bool:
    """Whether an expression gives the same when it is written twice."""
    if isinstance(node, (cst.Name, cst.Integer)):
        return True
    if isinstance(node, cst.Attribute):
        return _is_simple(node.value)
    if isinstance(node, cst.BinaryOperation):
        return _is_simple(node.left) and _is_simple(node.right) and not node.lpar
    if isinstance(node, cst.Subscript):
        return _is_simple(node.value) and all(
            isinstance(s.slice, cst.Index) and _is_simple(s.slice.value) for s in node.slice
        )
    return False


def add_behind(draft: Draft, spot: Spot, text: str) -> bool:
    """Put a module right behind the one of this spot, in the same container; False where that has no plain form."""
    tree, edits = spot.tree, draft.edits(spot.tree)
    if spot.kind == "element":
        edits.behind(*behind(tree, tree.line_start(tree.start(spot.node)), tree.close(spot.node), text))
        return True
    if spot.kind == "append" and isinstance(spot.holder, cst.Call):
        edits.lines_after(tree.statement(spot.holder, shared=True), [f"{spot.name}.append({text})"])
        return True
    if spot.kind == "add_module" and isinstance(spot.holder, cst.Call):
        *before, named, _ = spot.holder.args  # setattr has the module itself in front
        name = suffixed(tree, named.value)
        if name is None:
            return False
        front = "".join(f"{tree.code(arg.value)}, " for arg in before)
        line = f"{tree.code(spot.holder.func)}({front}{name}, {text})"
        edits.lines_after(tree.statement(spot.holder, shared=True), [line])
        return True
    if spot.kind == "pair" and isinstance(spot.holder, cst.Tuple):
        name = suffixed(tree, spot.holder.elements[0].value)
        if name is None:
            return False
        end = tree.close(spot.holder)
        edits.behind(*behind(tree, tree.line_start(tree.start(spot.holder)), end, f"({name}, {text})"))
        return True
    return False


def add_before(draft: Draft, spot: Spot, text: str) -> bool:
    """Put a module right in front of the one of this spot, in the same container; False: that has no plain form."""
    tree, edits = spot.tree, draft.edits(spot.tree)
    if spot.kind == "append" and isinstance(spot.holder, cst.Call):
        edits.before(spot.holder, [f"{spot.name}.append({text})"])
        return True
    if spot.kind != "element":
        return False
    start = tree.start(spot.node)
    margin = tree.text[tree.line_start(start) : start]
    apart = f",{tree.newline}{margin}" if not margin.strip() else ", "
    edits.wrap(start, tree.end(spot.node), f"{text}{apart}", "")
    return True


def behind(tree: Tree, first: int, end: int, text: str) -> tuple[int, str]:
    """(offset, text) of a new element: on a line of its own where its neighbour stands on one."""
    margin = tree.text[first:end][: len(tree.text[first:end]) - len(tree.text[first:end].lstrip(" \t"))]
    rest = tree.text[end : tree.line_end(end)]
    alone = rest.startswith(",") and not rest[1:].partition("#")[0].strip()
    begins = tree.text[first + len(margin) : end]
    if alone and "\n" not in begins and begins.count("(") == begins.count(")"):
        return tree.line_end(end), f"{tree.newline}{margin}{text},"
    return end, f", {text}"


def suffixed(tree: Tree, node: cst.CSTNode) -> str | None:
    """The name of a neighbour: "fc1" -> "fc1_norm", as a text of python."""
    if isinstance(node, (cst.SimpleString, cst.FormattedString)):
        code = tree.code(node)
        quote = code[-1]
        return None if code.endswith(quote * 3) else f"{code[:-1]}_norm{quote}"
    if isinstance(node, cst.Name):
        return f'{node.value} + "_norm"'
    return None
