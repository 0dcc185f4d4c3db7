"""From an autograd graph to a net of units: every operation's own derivatives, by calling its backward function.

A node of autograd's graph is a function: given a gradient for its outputs it gives those for its inputs. Called with
one unit's gradient at a time it gives the operation's derivatives, whatever the operation is. Those of a link are
first tried in the forms that are small (unit by unit, rearranged, the same for all samples), and each is checked by
one call with random numbers: what does not give the same is taken for another form, or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.paths.net import Array, Link, Net, Place
from unvanish.probe.backward import Node, Tracing

MOST_NUMBERS = 3e7  # derivatives that are held
MOST_CALLS = 50_000  # of backward functions
TOO_LARGE = "with this batch the net is too large to be followed unit by unit; a batch of one sample may do"
_ACCUMULATE = "AccumulateGrad"


class NoPathsError(Exception):
    """The paths can't be followed; the text says why."""


class MixedError(NoPathsError):
    """An operation mixes the samples of a batch, so that they can't be followed one by one."""


Key = tuple[int, int]  # (operation, which of its outputs)


@dataclass(slots=True)
class Backprop:
    """One backward pass made by hand. `arrived`: by place, dL/d(it); `handed`: by operation, by edge."""

    arrived: dict[Key, Tensor]
    handed: dict[int, list[Tensor | None]]


def backprop(nodes: Sequence[Node], root: Any) -> Backprop:
    """Call every node once, the loss first. What is handed to parameters is left alone."""
    arrived: dict[Key, Tensor] = {}
    handed: dict[int, list[Tensor | None]] = {}
    top = next(n for n in nodes if n.handle is root)
    arrived[top.index, 0] = torch.ones_like(_blank(top.handle, 0))
    for node in reversed(nodes):
        given = [arrived.get((node.index, nr)) for nr in range(_outputs(node.handle))]
        if all(g is None for g in given):
            continue
        with torch.no_grad():
            out = call(
                node.handle, [_blank(node.handle, nr) if g is None else g for nr, g in enumerate(given)]
            )
        handed[node.index] = out
        for position, parent in node.parents:
            part, nr = out[position], int(node.handle.next_functions[position][1])
            if part is not None:
                key = (parent, nr)
                arrived[key] = arrived[key] + part if key in arrived else part
    return Backprop(arrived, handed)


def call(handle: Any, gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """A node's backward function; what was broadcast going forward is summed, as autograd does between nodes."""
    function = handle if callable(handle) else handle.apply
    out = function(*gradients)
    return [
        _as_taken(part, above, nr)
        for part, (above, nr) in zip(
            out if isinstance(out, tuple) else (out,), handle.next_functions, strict=False
        )
    ]


def _as_taken(part: Tensor | None, above: Any, nr: int) -> Tensor | None:
    if part is None or above is None:
        return part
    shape = tuple(above._input_metadata[nr].shape)
    return part if tuple(part.shape) == shape else part.sum_to_size(shape)


def _outputs(handle: Any) -> int:
    return len(handle._input_metadata)


def _blank(handle: Any, nr: int) -> Tensor:
    meta = handle._input_metadata[nr]
    return torch.zeros(tuple(meta.shape), dtype=meta.dtype, device=meta.device)


def starts_of(nodes: Sequence[Node], parameter: Tensor, index: tuple[int, ...]) -> dict[int, list[Tensor]]:
    """dz/dw of one element, by operation that it enters: of each of its outputs."""
    found: dict[int, list[Tensor]] = {}
    for node in nodes:
        for leaf in node.leaves:
            if leaf.parameter is parameter:
                new = _local(node, leaf.position, index)
                old = found.get(node.index)
                found[node.index] = new if old is None else [a + b for a, b in zip(old, new, strict=True)]
    return found


def _local(node: Node, position: int, index: tuple[int, ...]) -> list[Tensor]:
    """The backward function is linear in what it is given, so its own derivative is what is wanted."""
    given = [_blank(node.handle, nr).requires_grad_() for nr in range(_outputs(node.handle))]
    with torch.enable_grad():
        element = _to_leaf(node.handle, position, given)[index]
        if not element.requires_grad:
            raise NoPathsError(f"{node.name} does not say how its output depends on the weight")
        parts: Sequence[Tensor | None] = torch.autograd.grad(element, given, allow_unused=True)
    return [torch.zeros_like(g) if p is None else p.detach() for p, g in zip(parts, given, strict=True)]


def _to_leaf(handle: Any, position: int, given: Sequence[Tensor]) -> Tensor:
    """The gradient that reaches the parameter itself, through the transposes and views before it."""
    out = call(handle, given)[position]
    above, nr = handle.next_functions[position]
    while above.name().rsplit("::", 1)[-1] != _ACCUMULATE:
        if out is None:
            break
        gradients = [out if i == nr else _blank(above, i) for i in range(_outputs(above))]
        out = call(above, gradients)[0]
        above, nr = above.next_functions[0]
    if out is None:
        raise NoPathsError("nothing is handed to the weight")
    return out


def captured(
    tracing: Tracing, done: Backprop, starts: dict[int, list[Tensor]], output: int | None, samples: int
) -> Net:
    """The net between the operations that the weight enters and the model's output.

    `samples`: of the batch, which are followed one by one; 1: the batch as a whole is one sample. What the rest of
    the graph hands to a place (the loss, as a rule) is its end.
    """
    return _Capture(tracing.nodes, done, starts, output, samples).net()


class _Capture:
    def __init__(
        self,
        nodes: Sequence[Node],
        done: Backprop,
        starts: dict[int, list[Tensor]],
        output: int | None,
        samples: int,
    ) -> None:
        self.nodes = nodes
        self.done = done
        self.starts = starts
        self.samples = samples
        self.inside = _inside(nodes, set(starts), output)
        self.places: dict[Key, int] = {}
        self.list: list[Place] = []
        self.numbers = 0.0
        self.calls = 0
        self.generator = torch.Generator().manual_seed(0)

    def net(self) -> Net:
        for index in sorted(self.inside):
            handle = self.nodes[index].handle
            for nr in range(_outputs(handle)):
                if (index, nr) in self.done.arrived:
                    shape = tuple(handle._input_metadata[nr].shape)
                    size = int(np.prod(shape))
                    if size % self.samples or (shape and shape[0] % self.samples):
                        raise MixedError(self.nodes[index].name)
                    self.places[index, nr] = len(self.list)
                    self.list.append(Place(operation=index, shape=shape))
        for node in self.nodes:
            for position, parent in node.parents:
                key = (parent, int(node.handle.next_functions[position][1]))
                if key in self.places:
                    self._edge(node, position, key)
        begun = {
            self.places[index, nr]: self._units(part)
            for index, parts in self.starts.items()
            for nr, part in enumerate(parts)
            if (index, nr) in self.places
        }
        return Net(samples=self.samples, places=self.list, starts=begun)

    def _units(self, tensor: Tensor) -> Array:
        return np.asarray(tensor.detach().double().reshape(self.samples, -1).cpu().numpy())

    def _edge(self, node: Node, position: int, key: Key) -> None:
        parent = self.places[key]
        if node.index in self.inside:
            for nr in range(_outputs(node.handle)):
                if (node.index, nr) in self.places:
                    self._link(node, position, nr, parent, self.places[node.index, nr])
            return
        out = self.done.handed.get(node.index)
        part = None if out is None else out[position]
        if part is not None:
            place = self.list[parent]
            end = self._units(part)
            place.end = end if place.end is None else place.end + end

    # --- one link ------------------------------------------------------------------------------------------

    def _link(self, node: Node, position: int, nr: int, parent: int, child: int) -> None:
        def back(gradient: Tensor) -> Array | None:
            self.calls += 1
            if self.calls > MOST_CALLS:
                raise NoPathsError(TOO_LARGE)
            meta = node.handle._input_metadata[nr]
            wanted = gradient.reshape(tuple(meta.shape)).to(meta.dtype).to(meta.device)
            given = [wanted if i == nr else _blank(node.handle, i) for i in range(_outputs(node.handle))]
            with torch.no_grad():
                out = call(node.handle, given)[position]
            return None if out is None else self._units(out)

        m = int(np.prod(self.list[child].shape)) // self.samples
        n = int(np.prod(self.list[parent].shape)) // self.samples
        probe = torch.randn(self.samples, m, generator=self.generator, dtype=torch.float64)
        truth = back(probe)
        if truth is None or not truth.size:
            return
        signal = np.asarray(probe.numpy())
        eps = 1e-9 if node.handle._input_metadata[nr].dtype == torch.float64 else 1e-4
        for form in (self._each, self._chosen, self._shared, self._full):
            link = form(back, (parent, child), m, n)
            if link is not None and _same(link.back(signal), truth, eps):
                self.numbers += link.values.size
                self.list[parent].onward.append(link)
                return
        raise MixedError(node.name)

    def _each(
        self, back: Callable[[Tensor], Array | None], ends: tuple[int, int], m: int, n: int
    ) -> Link | None:
        if m != n:
            return None
        values = back(torch.ones(self.samples, m, dtype=torch.float64))
        return (
            None
            if values is None or values.shape[1] != n
            else Link(parent=ends[0], child=ends[1], kind="each", values=values)
        )

    def _chosen(
        self, back: Callable[[Tensor], Array | None], ends: tuple[int, int], m: int, n: int
    ) -> Link | None:
        numbers = torch.arange(1, m + 1, dtype=torch.float64).expand(self.samples, m).contiguous()
        found = back(numbers)
        if (
            found is None
            or found.shape[1] != n
            or not np.array_equal(found, np.rint(found))
            or (found < 0).any()
            or (found > m).any()
        ):
            return None
        units = found[0].astype(np.int64) - 1
        return Link(parent=ends[0], child=ends[1], kind="chosen", values=np.ones((1, 1)), units=units)

    def _shared(
        self, back: Callable[[Tensor], Array | None], ends: tuple[int, int], m: int, n: int
    ) -> Link | None:
        """A sample each for as many units at once: the derivatives of a weight are the same for all samples."""
        if self.samples == 1:
            return None
        self._room(m * n)
        values = np.zeros((1, m, n))
        for first in range(0, m, self.samples):
            units = range(first, min(m, first + self.samples))
            given = torch.zeros(self.samples, m, dtype=torch.float64)
            given[range(len(units)), list(units)] = 1.0
            out = back(given)
            if out is None:
                return None
            values[0, first : first + len(units)] = out[: len(units)]
        return Link(parent=ends[0], child=ends[1], kind="full", values=values)

    def _full(
        self, back: Callable[[Tensor], Array | None], ends: tuple[int, int], m: int, n: int
    ) -> Link | None:
        self._room(self.samples * m * n)
        values = np.zeros((self.samples, m, n))
        for unit in range(m):
            given = torch.zeros(self.samples, m, dtype=torch.float64)
            given[:, unit] = 1.0
            out = back(given)
            if out is None:
                return None
            values[:, unit] = out
        return Link(parent=ends[0], child=ends[1], kind="full", values=values)

    def _room(self, more: float) -> None:
        if self.numbers + more > MOST_NUMBERS:
            raise NoPathsError(TOO_LARGE)


def _same(mine: Array, truth: Array, eps: float) -> bool:
    scale = max(float(np.abs(truth).max()), 1e-300)
    return bool(np.isfinite(mine).all() and np.abs(mine - truth).max() <= eps * scale)


def _inside(nodes: Sequence[Node], starts: set[int], output: int | None) -> set[int]:
    """From the starts on, up to the model's output; a start that does not lead there stands alone."""
    after = set(starts)
    for node in nodes:
        if any(parent in after for _, parent in node.parents):
            after.add(node.index)
    before: set[int] = set() if output is None else {output}
    for node in reversed(nodes):
        if node.index in before:
            before.update(parent for _, parent in node.parents)
    return (after & before) | starts
