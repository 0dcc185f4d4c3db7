"""Make a compiled module's call once more, eagerly and measured, and leave everything as it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from unvanish.probe import through_time
from unvanish.probe.backward import Leaf, Node, Tracing, Walker, places_of
from unvanish.probe.chance import Targets, targets_of
from unvanish.probe.forward import Call, ForwardWatch
from unvanish.probe.noted import CompiledCall, RandomState, mapped, number_of, tensors_in
from unvanish.probe.unchanged import attributes_kept

Fault = Callable[[str, Exception], None]
_ALWAYS_SHARED = ("FSDPModule", "FullyShardedDataParallel", "DTensor")
_SHARED = (*_ALWAYS_SHARED, "SyncBatchNorm")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{name}" for name in _HOOKS)


class SecondPassError(Exception):
    """The call can't be measured by making it once more; the text says why."""


@dataclass(slots=True, kw_only=True)
class Pass:
    """A second pass: its operations, and how they hang together with the rest of the graph."""

    noted: CompiledCall
    nodes: list[Node]  # in execution order
    parents: list[list[tuple[int, Node]]]  # of each of them, those inside the pass: (edge, operation)
    calls: list[Call | None]
    outputs: dict[int, Node | Leaf | int]  # which output -> what made it; an int: that input, handed through
    entries: list[tuple[Node, int, int]]  # (operation, its edge, which differentiable input it leads to)
    sources: list[int]  # the differentiable inputs, as positions in `noted.inputs`
    random: bool = False  # whether random numbers were drawn, others than in the compiled call
    targets: tuple[Targets, ...] = ()  # where the module's one output is the loss
    targets_nodes: tuple[Node | None, ...] = ()


def why_not(module: nn.Module) -> str | None:
    """Why a module must not be run a second time; None where it may."""
    for part in (*module.modules(), *module.parameters()):
        if any(c.__name__ in (_ALWAYS_SHARED if _alone() else _SHARED) for c in type(part).__mro__):
            return "its parts talk to other processes, and a second pass would need all of them at once"
    hooks = [(type(m).__name__, h) for m in module.modules() for n in _HOOKS for h in getattr(m, n).values()]
    hooks += [("every module", h) for n in _GLOBAL_HOOKS for h in getattr(torch_module, n, {}).values()]
    for name, hook in hooks:
        if not _home(hook).startswith("torch."):
            return f"the script has placed a hook on {name}, and a second pass would call it once more"
    return None


def run_again(
    noted: CompiledCall, on_fault: Fault, unit_dim_of_input: Callable[[CompiledCall, int], int | None]
) -> Pass:
    """The pass beside: forward from the noted call, backward from the noted gradients.

    `unit_dim_of_input` says which dimension counts units in the n-th input. Raises whatever goes wrong; the
    module, its parameters' gradients and hooks, its buffers and all random states are as before in any case.
    """
    wanted = sorted(noted.gradients)
    with _as_it_was(noted) as drawn:
        leaves, output, calls = _forward(noted, on_fault)
        found = tensors_in(output)
        kept = [i for i in wanted if i < len(found) and found[i].requires_grad]
        if not kept:
            raise SecondPassError("its outputs want no gradient when it runs eagerly")
        arriving = [noted.gradients[i] for i in kept]
        root = _UnvanishJoin.apply(arriving, *(found[i] for i in kept))  # type: ignore[no-untyped-call]
        tracing = Walker().walk(root, calls, on_fault)
        if tracing is None:
            raise SecondPassError("its graph is too large")
        result = _taken_apart(noted, tracing, kept, unit_dim_of_input)
        result.targets = targets_of(found[kept[0]]) if len(kept) == 1 else ()
        at = places_of(tracing, result.targets)
        result.targets_nodes = tuple(None if i is None else tracing.nodes[i] for i in at)
        _backward(noted, tracing, root, leaves)
        result.random = drawn()
    return result


# --- forward and backward -----------------------------------------------------------------------------------


class _UnvanishEnter(torch.autograd.Function):
    """Copies the inputs and marks in the graph where the module begins."""

    @staticmethod
    def forward(_: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.clone() for t in inputs)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients


class _UnvanishJoin(torch.autograd.Function):
    """One root over all outputs, which sends to each the gradient that arrived there in the real backward pass."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *outputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.gradients)


def _forward(noted: CompiledCall, on_fault: Fault) -> tuple[list[Tensor], Any, list[Call]]:
    wants = [i for i, source in enumerate(noted.sources) if source is not None]
    leaves = [noted.inputs[i].detach().requires_grad_() for i in wants]
    entered = _UnvanishEnter.apply(*leaves) if leaves else ()  # type: ignore[no-untyped-call]
    copies: dict[int, Tensor] = dict(zip((id(noted.inputs[i]) for i in wants), entered, strict=True))

    def fresh(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.clone()
        return copies[id(tensor)]

    args, kwargs = mapped((noted.args, noted.kwargs), fresh)
    watch = ForwardWatch(on_fault)
    watch.on_compiled = lambda _, module, args, kwargs: _uncompiled(watch, module, args, kwargs)
    watch.arm()
    try:
        output = noted.module(*args, **kwargs)
        return leaves, output, watch.calls
    finally:
        watch.disarm()


def _uncompiled(watch: ForwardWatch, module: nn.Module, args: Any, kwargs: Any) -> Any:
    inner = module._modules.get("_orig_mod")
    if inner is not None:
        return inner(*args, **kwargs)
    call = watch.enter(module)
    try:
        output = module._call_impl(*args, **kwargs)
    finally:
        if call is not None:
            watch.leave()
    if call is not None:
        watch.look(call, args, output)
    return output


def _backward(noted: CompiledCall, tracing: Tracing, root: Tensor, leaves: list[Tensor]) -> None:
    """To the parameters and inputs, without a word to their .grad, their hooks or a reducer."""
    wanted = {id(t): t for t in leaves}
    wanted |= {id(p): p for p in noted.module.parameters() if p.requires_grad}
    wanted |= {id(x.parameter): x.parameter for node in tracing.nodes for x in node.leaves}
    hooked = [(h, dict(h)) for h in (p._backward_hooks for p in wanted.values()) if h]
    try:
        for hooks, _ in hooked:
            hooks.clear()
        tracing.arm()
        through_time.arm(tracing)
        torch.autograd.grad(root, list(wanted.values()), allow_unused=True)
    finally:
        tracing.disarm()
        for hooks, before in hooked:
            hooks.update(before)


def _taken_apart(
    noted: CompiledCall,
    tracing: Tracing,
    outputs: list[int],
    unit_dim_of_input: Callable[[CompiledCall, int], int | None],
) -> Pass:
    """The operations without the two marks of ours."""
    join = tracing.nodes[-1]
    enter = next((n for n in tracing.nodes if n.name == "_UnvanishEnter"), None)
    inside = [n for n in tracing.nodes if n is not join and n is not enter]
    if number_of(tracing.nodes[0].handle) < noted.call.last:
        raise SecondPassError("tensors of the graph reach it by other ways than its arguments")
    sources = [i for i, source in enumerate(noted.sources) if source is not None]
    made: dict[int, Node | Leaf | int] = {outputs[x.position]: x for x in join.leaves}
    for position, parent in join.parents:
        above = tracing.nodes[parent]
        made[outputs[position]] = _edge(join, position) if above is enter else above
    parents = [[(p, tracing.nodes[i]) for p, i in n.parents if tracing.nodes[i] is not enter] for n in inside]
    entries: list[tuple[Node, int, int]] = []
    if enter is not None:
        enter.consumers += 2  # so that what each operation hands back to an input is measured by itself
        for node in inside:
            _follow_units(node, tracing.nodes, enter, lambda n: unit_dim_of_input(noted, sources[n]))
            entries += [(node, p, _edge(node, p)) for p, parent in node.parents if parent == enter.index]
    return Pass(
        noted=noted,
        nodes=inside,
        parents=parents,
        calls=[tracing.calls[n.index] for n in inside],
        outputs=made,
        entries=entries,
        sources=sources,
    )


def _edge(node: Node, position: int) -> int:
    """Which output of the operation above an edge leads to."""
    return int(node.handle.next_functions[position][1])


def _follow_units(
    node: Node, ordered: list[Node], enter: Node, unit_dim: Callable[[int], int | None]
) -> None:
    """A gate right behind an input has its units where the operation before the module has them."""
    current = node
    while node.unit_dim is not None and current.parents:
        above = ordered[current.parents[0][1]]
        if above is enter:
            node.unit_dim = unit_dim(_edge(current, current.parents[0][0]))
        if above is enter or above.leaves or "Norm" in above.name or above.name.endswith(("mm", "Linear")):
            return
        current = above


# --- leaving everything as it was ---------------------------------------------------------------------------


@contextlib.contextmanager
def _as_it_was(noted: CompiledCall) -> Iterator[Callable[[], bool]]:
    """As it was at the call, and afterwards as it was before: random states, buffers, attributes, autocast.

    Gives a function that says whether random numbers were drawn, others than in the compiled call.
    """
    before, after = noted.before, noted.after
    devices = [d for d, _ in before.devices] if before is not None else []
    now = RandomState.now(devices)

    def drawn() -> bool:
        if before is None or after is None:
            return False
        state = RandomState.now(devices)
        return not state.same(before) and not state.same(after)

    with contextlib.ExitStack() as stack:
        stack.callback(now.set)
        stack.enter_context(attributes_kept(noted.module, noted.buffers))
        for device, enabled, dtype in noted.autocast:
            stack.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False))
        stack.enter_context(_no_compiler())
        stack.enter_context(torch.enable_grad())
        if before is not None:
            before.set()
        yield drawn


def _no_compiler() -> contextlib.AbstractContextManager[Any]:
    """Compiled functions inside of the module run as they are written, too (torch 2.6 and later)."""
    stance: Any = getattr(torch.compiler, "set_stance", None)
    return stance("force_eager") if stance is not None else contextlib.nullcontext()


def _home(hook: Any) -> str:
    """The python module that a hook comes from."""
    while hasattr(hook, "func"):  # functools.partial
        hook = hook.func
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return f"{home}."


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def compiled_backward_graphs() -> bool:
    """Whether compiled autograd is on: hooks of ours would become part of what it compiles."""
    module = sys.modules.get("torch._dynamo.compiled_autograd")
    return bool(getattr(module, "compiled_autograd_enabled", False))
