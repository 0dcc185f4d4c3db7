"""The gradient of one weight, as a sum over the paths from the loss through named units: exact, or said why not."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.paths.capture import Backprop, MixedError, NoPathsError, backprop, captured, starts_of
from unvanish.paths.net import Net, Place
from unvanish.paths.search import Complete, Partial, strongest, totals_of
from unvanish.probe.backward import Node, Tracing
from unvanish.probe.batch import LossFunction
from unvanish.probe.discover import unwrap
from unvanish.probe.example import kept
from unvanish.probe.forward import Call
from unvanish.probe.once import model_output, names_of, walked, watched_loss
from unvanish.probe.sites import site
from unvanish.schema.explanation import PathStep, ScalarPath, ScalarPaths
from unvanish.schema.graph import Operation

SHOWN = 5
_MATRICES = frozenset("Addmm Mm Mv Linear".split())


def follow_model(
    model: nn.Module,
    batch: Any,
    loss_fn: LossFunction | None,
    parameter: str,
    index: tuple[int, ...],
    wanted: int = SHOWN,
) -> ScalarPaths:
    """The paths to one weight of a model at hand: on a copy in float64, where one can be made."""
    model = unwrap(model)
    wide = _in_float64(model, batch, loss_fn)
    if wide is not None:
        with contextlib.suppress(
            Exception
        ):  # a net that can't run in float64; the call below says what is wrong
            return _follow_model(*wide, parameter, index, wanted)
    return _follow_model(model, batch, loss_fn, parameter, index, wanted)


def _follow_model(
    model: nn.Module,
    batch: Any,
    loss_fn: LossFunction | None,
    parameter: str,
    index: tuple[int, ...],
    wanted: int,
) -> ScalarPaths:
    with kept(model, loss_fn), torch.enable_grad():
        loss, calls = watched_loss(model, batch, loss_fn)
        found = dict(model.named_parameters())[parameter]
        return follow(loss, calls, names_of(model), (parameter, found), index, wanted)


def _in_float64(
    model: nn.Module, batch: Any, loss_fn: LossFunction | None
) -> tuple[nn.Module, Any, Any] | None:
    if all(p.dtype == torch.float64 for p in model.parameters()):
        return None
    try:
        made = copy.deepcopy(model).double()
        loss = copy.deepcopy(loss_fn).double() if isinstance(loss_fn, nn.Module) else loss_fn
    except Exception:  # noqa: BLE001 - what can't be copied is followed as it is
        return None
    return made, _wide(batch), loss


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {k: _wide(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_wide(v) for v in value))
    return type(value)(_wide(v) for v in value) if isinstance(value, tuple | list) else value


def follow(
    loss: Tensor,
    calls: list[Call],
    names: tuple[Mapping[int, str], Mapping[int, str]],
    target: tuple[str, Tensor],
    index: tuple[int, ...],
    wanted: int = SHOWN,
) -> ScalarPaths:
    """The same of a loss whose graph is there. `names`: paths by id of the module, names by id of the parameter."""
    name, parameter = target
    parts: Sequence[Tensor | None] = torch.autograd.grad(
        loss, parameter, retain_graph=True, allow_unused=True
    )
    whole = parts[0]
    gradient = 0.0 if whole is None else float(whole[index])
    weight = float(parameter.detach()[index])
    plain = ScalarPaths(parameter=name, index=index, weight=weight, gradient=gradient, samples=1)
    if whole is None:
        return replace(plain, note="the loss does not depend on it")
    tracing, _ = walked(loss, calls)
    graph = site(tracing, *names, {}).graph
    counts = [sum(math.prod(m.shape) for m in n.handle._input_metadata) for n in tracing.nodes]
    try:
        starts = starts_of(tracing.nodes, parameter, index)
        done = backprop(tracing.nodes, loss.grad_fn)
    except Exception as error:  # noqa: BLE001 - an operation that can't be called by itself
        return replace(plain, note=_why(error))
    try:
        net = _net(tracing, done, starts, model_output(graph, counts))
    except Exception as error:  # noqa: BLE001 - as above
        return replace(plain, note=_why(error), steps=_by_layers(done, starts, gradient))
    return _answer(plain, net, _Labels(net, graph.operations, index, _plain(tracing.nodes)), wanted)


def _net(tracing: Tracing, done: Backprop, starts: dict[int, list[Tensor]], output: int | None) -> Net:
    mixer = ""
    for samples in _splits(tracing.nodes, starts, output):
        try:
            return captured(tracing, done, starts, output, samples)
        except MixedError as error:
            mixer = str(error)
    raise NoPathsError(f"the derivatives of {mixer} could not be taken unit by unit")


def _why(error: Exception) -> str:
    if isinstance(error, NoPathsError):
        return str(error)
    return f"its paths could not be followed ({type(error).__name__}: {error})"


def _splits(nodes: Sequence[Node], starts: Mapping[int, Any], output: int | None) -> list[int]:
    """Into how many samples the batch may be split: as all shapes allow; else not at all."""
    last = max(starts, default=0) if output is None else output
    firsts = [
        int(m.shape[0]) if len(m.shape) else 1
        for node in nodes
        if min(starts, default=0) <= node.index <= last
        for m in node.handle._input_metadata
    ]
    several = math.gcd(*firsts) if firsts else 1
    return [several, 1] if several > 1 else [1]


def _by_layers(
    done: Backprop, starts: Mapping[int, Sequence[Tensor]], gradient: float
) -> tuple[PathStep, ...]:
    """|dL/dz| of the layer, the part of it at the units that the weight feeds, and what enters there."""
    whole, part = 0.0, 0.0
    for index, parts in starts.items():
        for nr, local in enumerate(parts):
            arrived = done.arrived.get((index, nr))
            if arrived is not None:
                whole += float(arrived.double().square().sum())
                part += float(torch.where(local != 0, arrived.double(), 0.0).square().sum())
    signal, own = math.sqrt(whole), math.sqrt(part)
    if not signal > 0 or not own > 0:
        return ()
    return (
        PathStep(label="signal at its layer (the product of the table above)", value=signal),
        PathStep(label="its unit's part of that", value=own / signal),
        PathStep(label="what enters there, as far as it goes along with the signal", value=gradient / own),
    )


def _answer(plain: ScalarPaths, net: Net, labels: _Labels, wanted: int) -> ScalarPaths:
    totals = totals_of(net)
    total = sum(float((v * totals.signed[p]).sum()) for p, v in net.starts.items())
    absolute = sum(float((np.abs(v) * totals.absolute[p]).sum()) for p, v in net.starts.items())
    count = sum(float(((v != 0).any(0) * totals.paths[p]).sum()) for p, v in net.starts.items())
    best, surely = strongest(net, totals, wanted)
    covered = sum(c.product for c in best)
    paths = tuple(ScalarPath(product=c.product, route=labels.route(c), steps=labels.steps(c)) for c in best)
    sizes = sum(_absolute(net, c) for c in best)
    mixed = net.samples == 1 and _rows(net) > 1
    notes = []
    if mixed:
        notes.append(
            "an operation mixes the samples of the batch (or their order changes), so that a unit's number has its "
            "place in the batch first"
        )
    if not surely:
        notes.append("there may be stronger paths than these: not all that could be were looked at")
    return replace(
        plain,
        samples=net.samples,
        total=total,
        count=count,
        paths=paths,
        covered=covered,
        absolute=absolute,
        share=sizes / absolute if absolute > 0 else 0.0,
        surely=surely,
        mixed=mixed,
        note="; ".join(notes),
    )


def _rows(net: Net) -> int:
    return max((p.shape[0] for p in net.places if len(p.shape) > 1), default=1)


def _absolute(net: Net, complete: Complete) -> float:
    """The sizes of a path's products, sample by sample, added up."""
    end = net.places[complete.last.place].end
    return 0.0 if end is None else float(np.abs(complete.last.value * end[:, complete.last.unit]).sum())


class _Labels:
    """What the factors of a path are called."""

    def __init__(
        self, net: Net, operations: Sequence[Operation], index: tuple[int, ...], plain: frozenset[int]
    ) -> None:
        """`plain`: operations whose weight is [inputs, units], as in x @ w, and not turned round."""
        self.plain = plain
        self.turns = _turns(operations)
        self.net = net
        self.operations = operations
        self.index = index

    def route(self, complete: Complete) -> tuple[str, ...]:
        """The units of the weighted layers that it runs through, from the loss to the weight, and both its ends."""
        stations: list[str] = []
        current: Partial | None = complete.last
        while current is not None:
            ends = current is complete.last or current.before is None
            if ends or self._operation(current.place).kind == "weight":
                stations.append(f"{self._name(current.place)}[{self._unit(current.place, current.unit)}]")
            current = current.before
        return tuple(stations)

    def steps(self, complete: Complete) -> tuple[PathStep, ...]:
        """From the loss to the weight."""
        last = complete.last
        end = self.net.places[last.place].end
        if end is None:
            return ()
        steps = [
            PathStep(
                label=f"dL/d({self._name(last.place)}[{self._unit(last.place, last.unit)}])",
                value=_rms(end[:, last.unit]),
            )
        ]
        current: Partial | None = last
        while current is not None and current.before is not None and current.link is not None:
            values = current.link.derivative(current.before.unit, current.unit)
            if not bool((values == 1.0).all()):
                steps.append(PathStep(label=self._hop(current.before, current), value=_rms(values)))
            current = current.before
        if current is not None:
            local = self.net.starts[current.place][:, current.unit]
            operation = self._operation(current.place)
            where = f"{self._name(current.place)}[{self._unit(current.place, current.unit)}]"
            matrix = operation.name in _MATRICES and len(self.index) == 2
            entry = self.index[0 if operation.index in self.plain else 1] if matrix else 0
            label = f"input[{entry}] of {self._name(current.place)}" if matrix else f"d({where})/dw"
            steps.append(PathStep(label=label, value=_rms(local)))
        return tuple(steps)

    def _operation(self, place: int) -> Operation:
        return self.operations[self.net.places[place].operation]

    def _name(self, place: int) -> str:
        """The layer's, with "@t" behind it where its weight is used many times, at time step t."""
        operation = self._operation(place)
        turn = self.turns.get(operation.index)
        at = "" if turn is None else f"@{turn}"
        if operation.module:
            return operation.module + at
        named = [p for p in operation.parameters if p and not p.rsplit(".", 1)[-1].startswith("bias")]
        return (named[0].removesuffix(".weight") if named else operation.name) + at

    def _hop(self, before: Partial, after: Partial) -> str:
        operation = self._operation(after.place)
        new, old = self._unit(after.place, after.unit), self._unit(before.place, before.unit)
        if operation.kind == "weight":
            name = self._name(after.place)
            if "," in new + old:
                return f"weight {name}[{new} <- {old}]"
            return (
                f"weight {name}[{old},{new}]"
                if operation.index in self.plain
                else f"weight {name}[{new},{old}]"
            )
        if operation.kind == "activation":
            return f"{operation.name}'[{new}]"
        where = f"{operation.module} " if operation.module else ""
        return f"{where}{operation.name}[{new}]" if new == old else f"{where}{operation.name}[{new} <- {old}]"

    def _unit(self, place: int, unit: int) -> str:
        shape = _unit_shape(self.net.places[place], self.net.samples)
        return ",".join(str(int(i)) for i in np.unravel_index(unit, shape)) if shape else "0"


def _turns(operations: Sequence[Operation]) -> dict[int, int]:
    """By operation, the how manieth use of its weight it is, from 1; of weights that are used more than once."""
    uses: dict[str, list[int]] = {}
    for operation in operations:
        for name in operation.parameters[:1]:  # the weight comes first
            if name and operation.kind == "weight":
                uses.setdefault(name, []).append(operation.index)
    return {index: n + 1 for found in uses.values() if len(found) > 1 for n, index in enumerate(found)}


def _plain(nodes: Sequence[Node]) -> frozenset[int]:
    return frozenset(
        node.index
        for node in nodes
        if node.name in ("Mm", "Addmm", "Mv")
        and not any(x.transposed for x in node.leaves if x.parameter.dim() == 2)
    )


def _unit_shape(place: Place, samples: int) -> tuple[int, ...]:
    if samples == 1:
        shape = place.shape
        return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    rest = place.shape[0] // samples
    return (rest, *place.shape[1:]) if rest > 1 else place.shape[1:]


def _rms(values: Any) -> float:
    """The number itself where there is one for all samples, signed where all have the same sign."""
    size = float(np.sqrt(np.mean(np.square(values))))
    return -size if bool((np.asarray(values) <= 0).all()) else size
