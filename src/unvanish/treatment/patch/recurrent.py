"""Gated recurrent cells: another class where the layer is built, and a function that opens the gates."""

from __future__ import annotations

import libcst as cst

from unvanish.treatment.patch.draft import Draft
from unvanish.treatment.patch.facts import Change
from unvanish.treatment.patch.inits import moment_of
from unvanish.treatment.patch.swapping import swap_modules
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree

_GATES = {"GRU": 3, "LSTM": 4, "GRUCell": 3, "LSTMCell": 4}


def gate_recurrent(draft: Draft, change: Change) -> None:
    """nn.RNN(...) -> nn.GRU(...), and the gates' biases set before the optimizer is built.

    Raises:
        PatchError: the layer's results are not taken apart in a way that fits an LSTM's.
    """
    for swap in change.swaps:
        if swap.new == "LSTMCell":
            raise PatchError(f"{swap.path} would need a second state, which forward has to carry along")
        births = draft.facts.births([swap.path])
        if isinstance(births, str):
            raise PatchError(births)
        for site in births:
            _without_nonlinearity(draft, *draft.call(site))
        if swap.new == "LSTM":
            for called in draft.facts.calls_of(swap.path):
                if called is None:
                    raise PatchError(f"where forward calls {swap.path} is not in the sources")
                _two_states(draft, *draft.call(called))
    swap_modules(draft, change.swaps)
    _open_gates(draft, change)
    if change.swaps:
        draft.note(
            "the gated layers draw more numbers when they are built than the plain ones did, so that the data order "
            "and the weights are others than in the trials"
        )


def _without_nonlinearity(draft: Draft, tree: Tree, call: cst.Call) -> None:
    for place, arg in enumerate(call.args):
        if arg.keyword is not None and arg.keyword.value == "nonlinearity":
            if place == 0:
                raise PatchError(f"the call in {tree.place(call)} is not understood", place=tree.place(call))
            draft.edits(tree).replace(tree.close(call.args[place - 1].value), tree.close(arg.value), "")


def _two_states(draft: Draft, tree: Tree, call: cst.Call) -> None:
    """out, h = self.rnn(x) -> out, (h, _) = self.rnn(x)."""
    place = tree.place(call)
    assign = tree.parents[call]
    if len(call.args) == 1 and isinstance(assign, cst.Assign) and len(assign.targets) == 1:
        target = assign.targets[0].target
        if isinstance(target, cst.Tuple) and len(target.elements) == 2:
            state = target.elements[1].value
            if isinstance(state, cst.Name):
                if state.value != "_":
                    draft.edits(tree).wrap_node(state, "(", ", _)")
                return
    if len(call.args) == 1 and isinstance(assign, cst.Subscript) and tree.code(assign).endswith("[0]"):
        return
    raise PatchError(f"the states in {place} are not taken apart in a way that fits an LSTM", place=place)


def _open_gates(draft: Draft, change: Change) -> None:
    moment = moment_of(draft)
    spelling = draft.spelling(moment.tree)
    given = change.prescription.parameters.get("forget_bias", 1.0)
    bias = float(given) if isinstance(given, (int, float)) else 1.0
    kinds = [k for k in _GATES if _has(draft, change, k)]
    names = [spelling.write(f"torch.nn.{k}") for k in kinds]
    asked = names[0] if len(names) == 1 else f"({', '.join(names)})"
    torch = spelling.write("torch.no_grad").removesuffix(".no_grad")
    lines = [
        f"@{torch}.no_grad()",
        "def {name}(model):",
        f'    """The gates of recurrent layers begin at a bias of {bias:g} (Jozefowicz et al. 2015)."""',
        "    for layer in model.modules():",
        f"        if isinstance(layer, {asked}):",
        "            for name, value in layer.named_parameters():",
        '                if name.startswith("bias_hh"):  # the second gate: forget (LSTM), update (GRU)',
        "                    gate = slice(layer.hidden_size, 2 * layer.hidden_size)",
        f'                    value[gate] = {bias!r} - layer.get_parameter(name.replace("_hh", "_ih"))[gate]',
    ]
    if change.swaps and len({_GATES[k] for k in kinds}) == 1:
        init = spelling.write("torch.nn.init")
        lines += [
            '                elif name.startswith("weight_hh"):',
            f"                    for part in value.chunk({_GATES[kinds[0]]}):",
            f"                        {init}.orthogonal_(part)",
        ]
    name = draft.define(moment.tree, moment.call, "open_gates", lines)
    moment.put(draft, [f"{name}({moment.model})"])


def _has(draft: Draft, change: Change, kind: str) -> bool:
    target = change.prescription.target
    there = {s.new for s in change.swaps}
    for path, part in draft.facts.parts.items():
        inside = target in ("*", path) or path.startswith(target + ".")
        if part.base == f"torch.nn.{kind}":
            if not inside:
                raise PatchError("only some recurrent layers of the model are treated")
            return True
    return kind in there
