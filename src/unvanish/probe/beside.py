"""torch.compile: a traced step's compiled calls are made once more, eagerly, beside the training.

Hooks inside of compiled code would break its graphs or never fire. So nothing of ours is there: at a traced step
the call of a compiled module is noted from outside, what arrives at its outputs in the real backward pass is
noted, and when that is over the module runs again as it is written, on the same inputs and weights, and is
measured. Its operations then take the place of the opaque compiled ones in the graph of the real loss.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probe.backward import Leaf, Node, Tracing, _unit_dim
from unvanish.probe.discover import unwrap
from unvanish.probe.forward import ForwardWatch
from unvanish.probe.hidden import hidden
from unvanish.probe.incidents import out_of_memory, words
from unvanish.probe.noted import CompiledCall, Source, note, number_of, returned
from unvanish.probe.second_pass import (
    Fault,
    Pass,
    SecondPassError,
    compiled_backward_graphs,
    run_again,
    why_not,
)
from unvanish.probe.splice import Crossing, splice

WHAT = "backprop signal by operation"
_INSTEAD = "; of it only the loss, gradients and updates were measured"


class Beside:
    """Sees the calls of compiled modules at traced steps, and measures them after the backward pass."""

    def __init__(self, watch: ForwardWatch, on_fault: Fault, say: Callable[[str, str], None]) -> None:
        """`watch` is the one that is armed at traced steps; `say(what, why)` tells, once, what was not measured."""
        self._watch = watch
        watch.on_compiled = self.call
        self._on_fault = on_fault
        self._say = say
        self._calls: list[CompiledCall] = []
        self._writes: set[int] = (
            set()
        )  # modules (by id) that write into their inputs: these are copied at once
        self._given_up: str | None = None
        self._met = False
        self._handler: Any = None
        self._region: dict[
            int, CompiledCall
        ] = {}  # by index in the tracing: the operations of compiled calls
        self._crossings: list[Crossing] = []
        self._handles: list[Any] = []
        self._outside: dict[int, Node] = {}  # by autograd's number: the other operations
        self._ordered: list[Node] = []

    # --- dynamo --------------------------------------------------------------------------------------------

    def meet(self, *ours: Callable[..., Any]) -> None:
        """Keep what is ours out of what dynamo compiles, functions too, which we do not see being called.

        While it compiles, nn.Module.__call__ is torch's own; `ours` are functions of ours that compiled code may
        call eagerly, they are not compiled (what they call is, or not, as before). Call it again when a script
        compiles something: nothing is to do before dynamo is loaded, and loading it takes a second.
        """
        if self._met or "torch._dynamo" not in sys.modules:
            return
        self._met = True
        for function in ours:
            torch.compiler.disable(function, recursive=False)
        self._handler = sys.modules["torch._dynamo"].callback.callback_handler
        self._handler.register_start_callback(self._starts)
        self._handler.register_end_callback(self._ends)

    def part(self) -> None:
        """Dynamo hears of us no more."""
        with contextlib.suppress(ValueError, AttributeError):  # torch._dynamo.reset() has thrown them out
            self._handler.remove_start_callback(self._starts)
            self._handler.remove_end_callback(self._ends)

    # without dynamo, which would want to compile them, and wait for itself
    @hidden
    def _starts(self, *_: Any) -> None:
        self._watch.step_aside()

    @hidden
    def _ends(self, *_: Any) -> None:
        self._watch.step_back()

    # --- the forward pass ----------------------------------------------------------------------------------

    def call(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Make the call of a compiled module, and note it."""
        call = noted = None
        try:
            call = self._watch.enter(module)
        except Exception as error:
            self._failed(error)
        try:
            if call is not None:
                noted = self._note(call, module, args, kwargs)
            with self._watch.aside():
                output = original(module, *args, **kwargs)
        finally:
            if call is not None:
                self._watch.leave()
        if noted is not None and call is not None:
            self._returned(noted, output)
        return output

    def _note(self, call: Any, module: nn.Module, args: Any, kwargs: Any) -> CompiledCall:
        inner = unwrap(module)
        try:
            refused = self._given_up or why_not(inner)
            if refused is None:
                noted = note(call, inner, args, kwargs, copies=id(inner) in self._writes)
            else:
                noted = CompiledCall(call=call, module=inner, refused=refused)
        except Exception as error:
            noted = CompiledCall(call=call, module=inner, refused=self._failed(error))
        self.forget()
        self._calls.append(noted)
        return noted

    def _returned(self, noted: CompiledCall, output: Any) -> None:
        try:
            returned(noted, output)
        except Exception as error:
            noted.refused = self._failed(error)
        noted.call.last = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]

    def forget(self) -> None:
        """Let go of the calls that the watch has forgotten."""
        if self._calls:
            known = {id(c) for c in self._watch.calls}
            self._calls = [c for c in self._calls if id(c.call) in known]

    # --- the backward pass ---------------------------------------------------------------------------------

    def begin(self, tracing: Tracing, loss: Tensor, gradient: Any) -> Tracing | None:
        """Before a backward pass, `tracing` not armed yet: find the compiled operations and their borders.

        `gradient` is what the script gave backward() for the loss, if anything. None: this pass can't be traced.
        """
        if compiled_backward_graphs():
            self._not_traced("compiled autograd is on, and hooks would become part of what it compiles")
            return None
        self._clear()
        if self._calls:
            self._find(tracing)
        if any(
            n.name == "CompiledFunction" and _weighty(n) and n.index not in self._region
            for n in tracing.nodes
        ):
            self._clear()
            self._not_traced(
                "torch.compile was given a function that has the model inside; compile the model instead: "
                "model = torch.compile(model)"
            )
            return None
        if not self._region:
            return tracing
        refused = next((c.refused for c in self._region.values() if c.refused), None)
        if refused is None and not self._borders(tracing, loss, gradient):
            refused = "tensors leave it by other ways than its return value"
        if refused is not None:
            self._clear()
            self._not_traced(f"torch.compile is in use, and the model can't be run beside it: {refused}")
            return None
        return tracing

    def end(self, tracing: Tracing, *, done: bool, retained: bool) -> Tracing | None:
        """After it, `tracing` disarmed: run the compiled calls again; None where that did not work.

        `done` is False where the backward pass itself failed.
        `retained`: the script keeps the graph, so that a later backward pass may come through the same calls.
        """
        calls = list({id(c): c for c in self._region.values()}.values())
        if not calls:
            self._clear()
            return tracing
        try:
            if not done:
                return None
            return self._measure(tracing, calls)
        except SecondPassError as error:
            self._not_traced(f"torch.compile is in use, and the model can't be run beside it: {error}")
            return None
        except Exception as error:
            if out_of_memory(error):
                self._given_up = "there is not enough memory for a second pass"
            self._failed(error)
            return None
        finally:
            self._clear()
            for noted in calls:
                noted.forget_gradients()
            if not retained:
                self._calls = [c for c in self._calls if c not in calls]

    def _measure(self, tracing: Tracing, calls: list[CompiledCall]) -> Tracing:
        passes: list[Pass] = []
        for noted in calls:
            changed = noted.changed()
            if changed is not None:
                self._writes.add(id(noted.module))
                raise SecondPassError(changed)
            if noted.gradients:
                passes.append(run_again(noted, self._on_fault, self._unit_dim_of_input))
        if any(p.random for p in passes):
            self._say(
                "the dropout masks of the compiled model",
                "traced passes ran beside it on the same batch and weights, with random numbers drawn anew",
            )
        outside = [n for n in tracing.nodes if n.index not in self._region]
        return splice(tracing, outside, self._outside, self._crossings, passes)

    # --- finding the compiled operations -------------------------------------------------------------------

    def _find(self, tracing: Tracing) -> None:
        self._ordered = tracing.nodes
        spans = sorted(((c.call.first, c.call.last, c) for c in self._calls), key=lambda s: s[0])
        at = 0
        for node in tracing.nodes:  # in the order of their numbers
            number = number_of(node.handle)
            while at < len(spans) and spans[at][1] <= number:
                at += 1
            if at < len(spans) and spans[at][0] <= number:
                self._region[node.index] = spans[at][2]
            else:
                self._outside[number] = node

    def _borders(self, tracing: Tracing, loss: Tensor, gradient: Any) -> bool:
        """Hook every edge that leads from outside into a compiled call; False where one is not an output of it."""
        for noted in self._region.values():
            noted.forget_gradients()
        for node in tracing.nodes:
            if not self._borders_of(node):
                return False
        root = number_of(loss.grad_fn)
        last = self._region_of(tracing, root)
        if last is not None:
            index = last.outputs.get((root, loss.output_nr))
            if index is None:
                return False
            if isinstance(gradient, list | tuple) and len(gradient) == 1:
                gradient = gradient[0]
            last.arrived(index, gradient if isinstance(gradient, Tensor) else torch.ones_like(loss))
        self._cut_off(tracing)
        return True

    def _borders_of(self, node: Node) -> bool:
        mine = self._region.get(node.index)
        wanted: list[tuple[int, CompiledCall, int]] = []
        for position, parent in node.parents:
            theirs = self._region.get(parent)
            if theirs is None or theirs is mine:
                continue
            above, output = node.handle.next_functions[position]
            index = theirs.outputs.get((number_of(above), output))
            if index is None:
                return False
            wanted.append((position, theirs, index))
            if mine is None:
                self._crossings.append(Crossing(node, position, theirs, index))
        if wanted:
            self._handles.append(node.handle.register_hook(self._catch(wanted)))
        return True

    def _cut_off(self, tracing: Tracing) -> None:
        """Take the compiled operations out of what is measured in the real backward pass."""
        for node in tracing.nodes:
            if node.index in self._region:  # nothing of it is kept: the second pass takes its place
                node.consumers += 2  # so that what each operation hands to it is measured by itself
                node.leaves, node.parents = [], []
            elif node.unit_dim is not None and self._behind_compiled(node, tracing.nodes):
                node.unit_dim = None

    def _region_of(self, tracing: Tracing, number: int) -> CompiledCall | None:
        return next((self._region.get(n.index) for n in tracing.nodes if number_of(n.handle) == number), None)

    def _catch(self, wanted: list[tuple[int, CompiledCall, int]]) -> Callable[[Any, Any], None]:
        def hook(grad_inputs: Any, _: Any) -> None:
            try:
                for position, noted, index in wanted:
                    if grad_inputs[position] is not None:
                        noted.arrived(index, grad_inputs[position])
            except Exception as error:
                self._on_fault("backward", error)

        return hook

    def _behind_compiled(self, node: Node, ordered: list[Node]) -> bool:
        """Whether a gate's units were made inside a compiled call, so that we don't know where they are."""
        for _ in range(12):
            if node.index in self._region:
                return True
            if node.leaves or not node.parents:
                return False
            node = ordered[node.parents[0][1]]
        return False

    def _unit_dim_of_input(self, noted: CompiledCall, index: int) -> int | None:
        """Which dimension of a compiled call's input counts units; None where that is not known."""
        source: Source | None = noted.sources[index]
        made_by = self._outside.get(source.number) if source is not None else None
        if made_by is None or self._behind_compiled(made_by, self._ordered):
            return None
        return _unit_dim(made_by, self._ordered)

    # --- telling -------------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> str:
        self._on_fault("torch.compile, second pass", error)
        return words(error)

    def _not_traced(self, why: str) -> None:
        self._say(WHAT, why + _INSTEAD)

    def _clear(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._crossings, self._region, self._outside, self._ordered = [], [], {}, {}, []


def _weighty(node: Node) -> bool:
    leaves: list[Leaf] = node.leaves
    return any(x.parameter.dim() > 1 for x in leaves)
