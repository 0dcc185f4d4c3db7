"""Measure a net that has not trained: one forward pass, then random signals sent back from its outputs.

Loss-free: the signal at the outputs is Gaussian noise, so that what is measured is the net alone. Nothing of the
model is changed by it: not .grad, buffers, attributes, hooks, mode, nor any random state.
"""

from __future__ import annotations

import contextlib
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.diagnose.facts import Facts, facts_of
from unvanish.errors import CaptureError
from unvanish.probe import through_time
from unvanish.probe.architecture import Weights, describe, weigh
from unvanish.probe.backward import Node, Tracing, Walker, places_of
from unvanish.probe.chance import chance_loss, targets_of
from unvanish.probe.explore import MAX_NODES, explore
from unvanish.probe.forward import Call, ForwardWatch
from unvanish.probe.noted import tensors_in
from unvanish.probe.once import describe_model
from unvanish.probe.samples import to_numpy
from unvanish.probe.sites import Sited, output_operation, site
from unvanish.probe.unchanged import attributes_kept
from unvanish.schema.call import Batch
from unvanish.schema.graph import Operation, OperationStats, Trace
from unvanish.schema.run import PARAMETER_STATISTICS, ModelInfo, ModelRun
from unvanish.treatment.draw import quiet_rng

PROBES = 4  # random signals: 1.3 % of scatter between one four and the next
SAMPLE = 1 << 16  # elements looked at per tensor
LARGE = 2_000_000  # parameters: of the signals in larger nets FEWER elements are looked at
FEWER = 1 << 13
DEFAULT_SW2 = 1 / 3  # fan_in Var W of nn.Linear and convolutions: uniform, bound sqrt(1 / fan_in)
WEIGHED = 1 << 17  # elements of a weight that its variance is taken of
_MOST_OUTPUTS = 8

Autocast = tuple[tuple[str, bool, torch.dtype], ...]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured. `places` are the operations of `run.architecture`, `variances` the spread of their outputs.

    `flow` holds the facts of the loss-free signal; `at_loss` those of one real backward pass, where there is a loss.
    `gradients`: rms of each parameter's gradient under that loss, None = no gradient arrives.
    """

    run: ModelRun
    flow: Facts
    places: tuple[int, ...]
    variances: tuple[float | None, ...]
    at_loss: Facts | None = None
    gradients: Mapping[str, float | None] | None = None
    bare: bool = False  # on the meta device: nothing could be measured


def measure(
    model: nn.Module,
    batch: Batch,
    *,
    info: ModelInfo | None = None,
    loss: Callable[[Any], Any] | None = None,
    probes: int = PROBES,
    seed: int = 0,
    autocast: Autocast = (),
) -> Measured:
    """Run `batch` through the model once and send `probes` random signals back; with `loss` also the real one.

    Raises:
        CaptureError: the model fails on the batch, or nothing that it gives wants a gradient.
    """
    info = info or describe_model(model)
    bare = any(p.is_meta for p in model.parameters())
    with as_it_was(model, autocast):
        output, calls = _forward(model, batch)
        work = _Work(model=model, info=info, calls=calls, bare=bare)
        real = None if loss is None or bare else work.real(_loss_of(loss, output))
        return work.finish(_outputs(output), probes, seed, real)


@dataclass(kw_only=True)
class _Work:
    """One forward pass, and what is read off it."""

    model: nn.Module
    info: ModelInfo
    calls: list[Call]
    bare: bool

    def __post_init__(self) -> None:
        self._walker = Walker()
        self._elements = FEWER if sum(p.numel for p in self.info.parameters) > LARGE else SAMPLE
        self._paths = {id(m): path for path, m in self.model.named_modules()}
        self._names = {id(p): own for own, p in self.model.named_parameters()}
        if self.bare:  # what went through it has shapes, and no numbers
            for call in self.calls:
                call.output = call.entry = call.rows = None

    def real(self, loss: Tensor) -> tuple[Sited, Trace, Mapping[str, float | None]]:
        """One backward pass from the loss: its trace, and the size of every parameter's gradient."""
        targets = targets_of(loss, [p for call in self.calls for p in call.predictions])
        tracing = self._walk(loss)
        wanted = {own: p for own, p in self.model.named_parameters() if p.requires_grad}
        grads = self._backward(tracing, loss, list(wanted.values()))
        sited = site(tracing, self._paths, self._names, {})
        trace = _trace(sited, [sited.numbers(exponents=False).stats], float(loss.detach()))
        sizes = {own: None if g is None else _rms(g) for own, g in zip(wanted, grads, strict=True)}
        at = places_of(tracing, targets)
        return sited, replace(trace, chance=chance_loss(targets, at, trace.stats) if at else None), sizes

    def finish(
        self,
        outputs: Sequence[Tensor],
        probes: int,
        seed: int,
        real: tuple[Sited, Trace, Mapping[str, float | None]] | None,
    ) -> Measured:
        """The random signals, and all of it put together."""
        generator = torch.Generator().manual_seed(seed)
        stats: list[Sequence[OperationStats]] = []
        sited: Sited | None = None
        weights: dict[int, Weights] = {}
        for _ in range(1 if self.bare else probes):
            root = _root(outputs, generator)
            tracing = self._walk(root)
            if sited is None:
                named = site(tracing, self._paths, self._names, {})
                operations = named.graph.operations
                if self.bare:
                    weights = _assumed(named.nodes, operations)
                else:
                    weights = weigh(named.nodes, operations, {}, WEIGHED)
            if not self.bare:
                self._backward(tracing, root, _light(tracing))
            sited = site(tracing, self._paths, self._names, {})
            stats.append(sited.numbers(exponents=False).stats)
        if sited is None:
            raise CaptureError("no signal was sent back", "ask for at least one probe")
        entries = [None] * len(sited.nodes) if self.bare else sited.numbers(exponents=False).entries
        layers = describe(sited, weights, entries)
        if self.bare:
            layers = tuple(replace(s, input_second_moment=1.0) for s in layers)
        run = _run(self.info, sited, _trace(sited, stats, math.nan), layers)
        places = tuple(sorted(weights))
        at_loss = None if real is None else facts_of(_run(self.info, real[0], real[1], layers))
        return Measured(
            run=run,
            flow=facts_of(run),
            places=places,
            variances=tuple(
                _variance(sited, place, spec.norm) for place, spec in zip(places, layers, strict=True)
            ),
            at_loss=at_loss,
            gradients=None if real is None else real[2],
            bare=self.bare,
        )

    def _walk(self, root: Tensor) -> Tracing:
        tracing = self._walker.walk(root, self.calls, _ignore, self._elements)
        if tracing is None:
            raise CaptureError(
                "nothing that the model gives depends on a parameter that wants a gradient"
                if root.grad_fn is None
                else f"the graph of one forward pass has more than {MAX_NODES:,} operations",
                "check that its parameters have requires_grad=True"
                if root.grad_fn is None
                else "hand in a batch of fewer time steps",
            )
        return tracing

    def _backward(self, tracing: Tracing, root: Tensor, wanted: list[Tensor]) -> Sequence[Tensor | None]:
        """Towards `wanted`, without a word to .grad or to the hooks that the user has on parameters."""
        hooked = [(h, dict(h)) for h in (p._backward_hooks for p in self.model.parameters()) if h]
        try:
            for hooks, _ in hooked:
                hooks.clear()
            tracing.arm()
            through_time.arm(tracing)
            return torch.autograd.grad(root, wanted, retain_graph=True, allow_unused=True)
        finally:
            tracing.disarm()
            for hooks, before in hooked:
                hooks.update(before)


# --- forward --------------------------------------------------------------------------------------------------


def _forward(model: nn.Module, batch: Batch) -> tuple[Any, list[Call]]:
    watch = ForwardWatch(_ignore)
    watch.size = SAMPLE
    watch.arm()
    try:
        return model(*batch.args, **batch.kwargs), watch.calls
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise CaptureError(
            f"the model fails on the batch ({said[:300]})", "hand in a batch as the training loop does"
        ) from error
    finally:
        watch.disarm()


def _outputs(output: Any) -> list[Tensor]:
    """What a signal can be sent back from: the tensors that are not made on the way to another one."""
    found = [t for t in tensors_in(output) if t.grad_fn is not None and t.dtype.is_floating_point]
    found = [t for t in found if t.numel() > 1] or found
    ends: dict[Any, Tensor] = {}
    for tensor in found[:_MOST_OUTPUTS]:
        ends.setdefault(tensor.grad_fn, tensor)
    if len(ends) > 1:
        explored = {end: explore(end) for end in ends}
        inner = {h for e in explored.values() if e is not None for h in e.handles[1:]}
        ends = {end: t for end, t in ends.items() if end not in inner}
    if not ends:
        raise CaptureError(
            "the model gives no tensor that wants a gradient",
            "check that its parameters have requires_grad=True, and that forward returns its output",
        )
    return list(ends.values())


def _root(outputs: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    parts = []
    for tensor in outputs:
        noise = torch.randn(tensor.shape, generator=generator) if not tensor.is_meta else tensor.detach()
        parts.append((tensor * noise.to(device=tensor.device, dtype=tensor.dtype)).sum().float())
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]


def _loss_of(loss: Callable[[Any], Any], output: Any) -> Tensor:
    value: Any
    try:
        value = loss(output)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise CaptureError(
            f"the loss function fails on the model's output ({said[:300]})",
            "it is called as loss_fn(output, target) for a batch (input, target), else as loss_fn(output)",
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or value.grad_fn is None:
        shape = (
            f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        )
        raise CaptureError(f"the loss function gives {shape}", "return one number that depends on the output")
    return value


def _light(tracing: Tracing) -> list[Tensor]:
    """The smallest parameter of every operation: each is reached, and few weight gradients are computed."""
    chosen = {
        id(least): least
        for node in tracing.nodes
        if node.leaves
        for least in [min((x.parameter for x in node.leaves), key=Tensor.numel)]
    }
    return list(chosen.values())


def moved_first(model: nn.Module, batch: Batch, *, seed: int = 0, autocast: Autocast = ()) -> tuple[str, ...]:
    """Names of the weights that start at zero and are the first to move: a signal from the outputs reaches them."""
    zero = {n: p for n, p in model.named_parameters() if p.requires_grad and _is_zero(n, p)}  # none on "meta"
    if not zero:
        return ()
    with as_it_was(model, autocast):
        output, _ = _forward(model, batch)
        root = _root(_outputs(output), torch.Generator().manual_seed(seed))
        gradients: Sequence[Tensor | None] = torch.autograd.grad(root, list(zero.values()), allow_unused=True)
    return tuple(n for n, g in zip(zero, gradients, strict=True) if g is not None and bool((g != 0).any()))


def _is_zero(name: str, parameter: Tensor) -> bool:
    bias = name.rsplit(".", 1)[-1].startswith("bias")
    return (
        not bias
        and not parameter.is_meta
        and parameter.numel() > 0
        and not bool((parameter.detach() != 0).any())
    )


# --- numbers --------------------------------------------------------------------------------------------------


def _trace(sited: Sited, stats: Sequence[Sequence[OperationStats]], loss: float) -> Trace:
    return Trace(
        model=0,
        step=0,
        backward=0,
        graph=sited.graph.key,
        loss=loss,
        stats=tuple(_together(same) for same in zip(*stats, strict=True)),
        output=output_operation(sited.graph, [node.count or 2 for node in sited.nodes]),
        through_time=sited.through_time(),
    )


def _together(same: Sequence[OperationStats]) -> OperationStats:
    """One operation's numbers of several probes: root mean squares."""

    def over(values: Sequence[float | None]) -> float | None:
        known: list[float] = [v for v in values if v is not None]
        return math.sqrt(math.fsum(v * v for v in known) / len(known)) if known else None

    first = same[0]
    return replace(
        first,
        norm=over([s.norm for s in same]) or 0.0,
        nonfinite=max(s.nonfinite for s in same),
        zeros=min(s.zeros for s in same),
        edge_norms=tuple(over(v) for v in zip(*(s.edge_norms for s in same), strict=True)),
        parameter_norms=tuple(over(v) for v in zip(*(s.parameter_norms for s in same), strict=True)),
    )


def _run(info: ModelInfo, sited: Sited, trace: Trace, layers: Any) -> ModelRun:
    return ModelRun(
        info=info,
        steps=array("q"),
        seconds=array("d"),
        losses=array("d"),
        parameter_steps=array("q"),
        parameter_stats={name: array("d") for name in PARAMETER_STATISTICS},
        snapshots=(),
        graphs={sited.graph.key: sited.graph},
        traces=(trace,),
        architecture=layers,
    )


def _variance(sited: Sited, place: int, norm: str) -> float | None:
    """Of a layer's output: over all elements; under a batch norm over the batch, the mean of the units' own."""
    output = sited.modules[place][0]
    if output is None:
        return None
    values = to_numpy([output.part])[0].astype(np.float64)
    shape = output.part.shape
    with np.errstate(all="ignore"):
        if norm == "batch" and len(shape) > 1 and values.size == output.numel:
            unit = 1 if len(shape) > 2 else len(shape) - 1
            others = tuple(d for d in range(len(shape)) if d != unit)
            value = float(values.reshape(shape).var(axis=others).mean())
        else:
            value = float(values.var())
    return value if math.isfinite(value) and value > 0 else None


def _assumed(nodes: Sequence[Node], operations: Sequence[Operation]) -> dict[int, Weights]:
    """Of weights that are not there: what torch's default init draws, [sw2, sb2, centring error, variety]."""
    out: dict[int, Weights] = {}
    for node, operation in zip(nodes, operations, strict=True):
        heavy = [x for x in node.leaves if x.parameter.dim() > 1]
        if operation.kind != "weight" or len(heavy) != 1 or operation.name.endswith(("Embedding", "Rnn")):
            continue
        shape = heavy[0].parameter.shape
        plain_matrix = not heavy[0].transposed and len(shape) == 2 and operation.name in ("Mm", "Addmm", "Mv")
        fan_out = shape[-1] if plain_matrix else shape[0]
        fan_in = max(1, heavy[0].parameter.numel() // max(1, fan_out))
        bias = DEFAULT_SW2 / fan_in if len(node.leaves) > 1 else 0.0
        numbers = torch.tensor([DEFAULT_SW2, bias, 1.0, 1.0], dtype=torch.float64)
        out[operation.index] = Weights(fan_in, fan_out, numbers)
    return out


def _rms(gradient: Tensor) -> float:
    return float(gradient.detach().double().square().mean().sqrt()) if gradient.numel() else 0.0


# --- leaving everything as it was -----------------------------------------------------------------------------


@contextlib.contextmanager
def as_it_was(model: nn.Module, autocast: Autocast) -> Iterator[None]:
    """Afterwards the model's buffers and attributes and all random states are as before."""
    stance: Any = getattr(torch.compiler, "set_stance", None)
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_rng(model))
        stack.enter_context(attributes_kept(model))
        stack.enter_context(stance("force_eager") if stance is not None else contextlib.nullcontext())
        for device, enabled, dtype in autocast:
            stack.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False))
        stack.enter_context(torch.enable_grad())
        yield


def _ignore(where: str, error: Exception) -> None:
    """A number that could not be taken is missing, and nothing else."""
