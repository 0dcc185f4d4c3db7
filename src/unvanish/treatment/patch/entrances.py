"""The data is standardised in front of the first layers: by a module that measures it on the first batch."""

from __future__ import annotations

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Change, Entrance
from unvanish.treatment.patch.reach import refuse_counted
from unvanish.treatment.patch.spots import Spot, add_before, spot_of
from unvanish.treatment.patch.swapping import all_born_at
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, is_self

_METHODS = ("__init__", "forward")


def standardise_inputs(draft: Draft, change: Change) -> None:
    """Place all standardisers.

    Raises:
        PatchError: where the data comes in is not plainly written.
    """
    for entrance in change.entrances:
        if not entrance.layer:
            _at_the_door(draft, entrance)
        else:
            _in_front(draft, entrance)


def _in_front(draft: Draft, entrance: Entrance) -> None:
    part = draft.facts.parts[entrance.layer]
    births = draft.facts.births([entrance.layer])
    if isinstance(births, str):
        raise PatchError(births)
    site = next(iter(births))
    tree, call = draft.call(site)
    spot = spot_of(tree, call)
    built = _built(draft, spot, entrance)
    if part.holder == "torch.nn.Sequential":
        holder = entrance.layer.rpartition(".")[0]
        fault = draft.attempt(lambda: refuse_counted(draft, holder, spot))
        alone = fault is None and draft.facts.born.get(site) == (entrance.layer,)
        if alone and add_before(draft, spot, built):
            return
        raise fault or _unwritten(tree, call)
    all_born_at(draft, site, [entrance.layer], "sees the data")
    called = [s for s in draft.facts.calls_of(entrance.layer) if s is not None]
    if spot.kind != "attribute" or len(called) != 1:
        raise _unwritten(tree, call)
    where, one = draft.call(called[0])
    if (
        where is not tree
        or not is_self(one.func, part.name)
        or not one.args
        or one.args[0].keyword is not None
    ):
        raise _unwritten(where, one)
    name = draft.free_name(tree, f"{part.name}_standard")
    draft.edits(tree).lines_after(tree.statement(call, shared=True), [f"self.{name} = {built}"])
    draft.edits(where).wrap_node(one.args[0].value, f"self.{name}(", ")")


def _unwritten(tree: Tree, node: cst.CSTNode) -> PatchError:
    place = tree.place(node)
    return PatchError(f"how the data comes to {place} is not plainly written", place=place)


def _at_the_door(draft: Draft, entrance: Entrance) -> None:
    """A first line of the model's own forward."""
    wanted = draft.facts.parts[""].kind.rpartition(".")[2]
    owners = [(t, c) for t in draft.trees() for c in t.all(cst.ClassDef) if c.name.value == wanted]
    if len(owners) != 1 or draft.facts.parts[""].kind.startswith("torch."):
        raise PatchError(f"the class {wanted} is not in the sources")
    tree, owner = owners[0]
    methods = {
        f.name.value: f
        for f in tree.all(cst.FunctionDef)
        if tree.scope(f) is owner and f.name.value in _METHODS
    }
    started = [c for c in tree.all(cst.Call) if "__init__" in methods and tree.inside(c, methods["__init__"])
               and tree.code(c.func).endswith("__init__")]  # fmt: skip
    if "forward" not in methods or len(started) != 1:
        raise PatchError(f"the class {wanted} is not plainly written", place=tree.place(owner))
    name = draft.free_name(tree, "standardise")
    spot = Spot("other", tree, started[0], started[0])
    line = f"self.{name} = {_built(draft, spot, entrance)}"
    draft.edits(tree).lines_after(tree.statement(started[0]), [line])
    first = _first_statement(methods["forward"])
    if first is None:
        raise PatchError(f"the forward of {wanted} is not plainly written", place=tree.place(owner))
    draft.edits(tree).lines_before(first, [f"{entrance.name} = self.{name}({entrance.name})"])


def _first_statement(function: cst.FunctionDef) -> cst.BaseStatement | None:
    """Behind the docstring."""
    if not isinstance(function.body, cst.IndentedBlock):
        return None
    for statement in function.body.body:
        small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
        if not (isinstance(small, cst.Expr) and isinstance(small.value, cst.SimpleString)):
            return statement
    return None


def _built(draft: Draft, spot: Spot, entrance: Entrance) -> str:
    """The call that builds the module; its class is added where there is none yet."""
    spelling = draft.spelling(spot.tree)
    torch, module = spelling.write("torch.zeros").removesuffix(".zeros"), spelling.write("torch.nn.Module")
    lines = [line.replace("<torch>", torch).replace("<Module>", module) for line in _CLASS]
    name = draft.define(spot.tree, spot.node, "Standardise", lines)
    axis = "" if entrance.axis == -1 else f", axis={entrance.axis}"
    return f"{name}({entrance.features}{axis})"


_CLASS = (
    "class {name}(<Module>):",
    '    """(x - mean) / deviation of each feature, both measured on the first training batch and kept."""',
    "",
    "    def __init__(self, features, axis=-1):",
    "        super().__init__()",
    "        self.axis = axis",
    '        self.register_buffer("mean", <torch>.zeros([features] + [1] * (-axis - 1)))',
    '        self.register_buffer("deviation", <torch>.zeros_like(self.mean))',
    "",
    "    def forward(self, x):",
    "        if self.training and not self.deviation.any():",
    "            rows = x.detach().movedim(self.axis, -1).reshape(-1, x.shape[self.axis]).double()",
    "            mean, deviation = rows.mean(0), rows.std(0, unbiased=False)",
    "            constant = deviation <= 4 * <torch>.finfo(x.dtype).eps * mean.abs()",
    "            self.mean.copy_(mean.reshape(self.mean.shape))",
    "            self.deviation.copy_(deviation.masked_fill(constant, 1.0).reshape(self.mean.shape))",
    "        return (x - self.mean) / self.deviation",
)
