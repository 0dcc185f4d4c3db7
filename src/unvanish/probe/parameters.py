"""The always-on tier: every parameter, its gradient and its update at every step, in a few foreach copies.

The training thread only copies the same few elements of every tensor into a ring of slots; the writer's thread
makes numbers of them, in numpy (see samples.py), and gives the slots back. Nothing waits for a device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.probe.local import is_there, local_gradient, local_tensor, localize
from unvanish.probe.stride import stride_for
from unvanish.schema.run import PARAMETER_STATISTICS, SNAPSHOT_QUANTILES

SAMPLE = 256  # elements looked at per tensor and step
TOTAL = 131_072  # elements looked at per step, over all tensors
RING_BYTES = 6 * 2**20
MOST_SLOTS = 64
_COLUMNS = {name: i for i, name in enumerate(PARAMETER_STATISTICS)}
JOINED_ON = ("cuda",)  # devices where one large copy beats many small ones
_AT_ONCE = 4  # steps reduced together: their samples fit into a core's cache


class SecondMoment(NamedTuple):
    """Adam's second moment of one row, as the optimizer has it: a sample, its beta, how many steps it was made of."""

    row: int
    sample: Tensor
    beta: float
    made: float | Tensor
    eps: float


@dataclass(slots=True)
class Look:
    """What was seen of one step, to be reduced later.

    `slot` is where; `before` the weights before the step, by device.
    `before` empty = they are those after the step before; `compare`: they should be, see whether they are;
    `bare` are the rows without a (dense) gradient; `sparse` the
    summed entries of sparse gradients; `scale` what fused optimizers divide the gradient by; `second` Adam's second
    moments, with what corrects their bias and Adam's eps.
    """

    slot: int
    before: list[Tensor]
    compare: bool = False
    bare: list[int] = field(default_factory=list)
    sparse: list[tuple[int, Tensor]] = field(default_factory=list)
    scale: Tensor | None = None
    second: list[SecondMoment] = field(default_factory=list)


class ParameterRing:
    """Looks at the same elements of every readable parameter of one model.

    One [slots x parameters x width] array each for the gradients and for the weights after the step, filled by
    one foreach copy a step; small tensors leave the rest of their row zero, which is not counted. Parameters that
    can't be read so (meta, quantised) give NaN.
    """

    def __init__(self, parameters: Sequence[Tensor], *, width: int | None = None) -> None:
        """`parameters` in the order of the rows; `width` elements are looked at in each (SAMPLE by default)."""
        self.parameters = list(parameters)
        places = [localize(p) for p in parameters]
        self.numels = [place.tensor.numel() for place in places]  # of what this process holds
        readable = [i for i, place in enumerate(places) if place.summed and is_readable(place.tensor)]
        self.width = width or max(64, min(SAMPLE, TOTAL // max(1, len(readable))))
        self.counts = [0] * len(self.parameters)
        self._groups = [
            _Group(device, [i for i in readable if places[i].tensor.device == device], self)
            for device in dict.fromkeys(places[i].tensor.device for i in readable)
        ]
        slot_bytes = sum(g.slot_bytes for g in self._groups)
        slots = max(2, min(MOST_SLOTS, RING_BYTES // max(1, slot_bytes)))
        for group in self._groups:
            group.allocate(slots)
        self._slots = slots if self._groups else 0
        self._free: deque[int] = deque(range(self._slots))
        self._versions: list[int] = []
        self.followed = False  # the last step was looked at
        self._always = False  # the script changes weights between steps in ways that leave no version behind
        self.wide = any(g.dtype == torch.float64 for g in self._groups)
        self.on_cpu = all(
            g.device.type == "cpu" for g in self._groups
        )  # can be read without waiting for a device

    @property
    def devices(self) -> list[torch.device]:
        """Where the parameters are."""
        return [g.device for g in self._groups]

    @property
    def looked_at(self) -> list[int]:
        """Elements per row that the statistics look at."""
        return self.counts

    @property
    def low(self) -> bool:
        """Whether most slots wait to be reduced."""
        return len(self._free) < self._slots // 2

    # --- the training thread -----------------------------------------------------------------------------

    def take_slot(self) -> int | None:
        """A free slot, or None while the writer lags behind (the step is then not looked at)."""
        try:
            return self._free.popleft()
        except IndexError:
            self.followed = False
            return None

    def give_back(self, slot: int) -> None:
        """A slot that is not needed any more."""
        self._free.append(slot)

    def release(self, look: Look) -> None:
        """A look that is not needed any more; a second time does nothing."""
        slot, look.slot = look.slot, -1
        if slot >= 0:
            self.give_back(slot)

    def let_go(self) -> None:
        """The model is gone: only what was seen of it remains to be reduced."""
        self.parameters = []
        for group in self._groups:
            group.let_go()

    def skip(self) -> None:
        """This step is not looked at."""
        self.followed = False

    def look_before(self, slot: int, *, surely: bool = False) -> Look:
        """The weights before the step, where they may differ from those after the last look; `surely`: always."""
        same = self.followed and self._now() == self._versions
        if same and not surely and not self._always:
            return Look(slot, [])
        return Look(slot, [g.weights_now() for g in self._groups], compare=same)

    def look_gradients(
        self, look: Look, grad_scale: Tensor | None, *, sparse: bool, rows: frozenset[int] | None = None
    ) -> None:
        """The gradients that the step will use: of all rows, or of those that this optimizer steps.

        `sparse`: those of sparse layout too, which takes longer.
        """
        look.scale = None if grad_scale is None else grad_scale.detach().clone()
        bare: list[int] = []
        with torch.no_grad():  # a gradient of create_graph=True must not pull the ring into its graph
            for group in self._groups:
                bare += group.read_gradients(look.slot, rows)
        look.bare += bare
        if sparse:
            for row in bare:
                gradient = self.parameters[row].grad
                if gradient is not None and gradient.layout is torch.sparse_coo:
                    look.sparse.append((row, _copied(gradient.detach().coalesce().values().reshape(-1))))

    def look_after(self, look: Look, optimizer: Any = None) -> None:
        """The weights after the step; with an optimizer, its second moments too."""
        for group in self._groups:
            group.read_weights(look.slot)
        if optimizer is not None:
            look.second += _second_moments(optimizer, self.parameters, self.looked_at)
        self._versions = self._now()
        self.followed = True

    def norms(self, look: Look) -> list[float]:
        """The L2 norm of each row's gradient sample (NaN: none), at once. On the CPU: elsewhere it would wait."""
        norms = [math.nan] * len(self.numels)
        for group in self._groups:
            found = torch.linalg.vector_norm(group.gradients[look.slot], dim=1).tolist()
            for row, norm in zip(group.rows, found, strict=True):
                norms[row] = norm
        for row in look.bare:
            norms[row] = math.nan
        return norms

    def _now(self) -> list[int]:
        """Tells whether anyone has changed a weight, in place or by giving it new storage."""
        tensors = [p for group in self._groups for p in group.pieces()]
        return [p._version for p in tensors] + [p.data_ptr() for p in tensors]

    # --- the writer's thread -----------------------------------------------------------------------------

    def reduce(
        self, looks: Sequence[Look], keep: Collection[int] = ()
    ) -> tuple[NDArray[np.float64], dict[int, Any]]:
        """Statistics [looks x PARAMETER_STATISTICS x parameters]; the slots are given back.

        And the weights [parameters x width] from before the looks in `keep`, for `spread`.
        """
        out = np.full((len(looks), len(PARAMETER_STATISTICS), len(self.numels)), np.nan)
        weights = {i: np.zeros((len(self.numels), self.width)) for i in keep}
        try:
            with np.errstate(all="ignore"):  # NaN and Inf are numbers to us, not a warning
                for start in range(0, len(looks), _AT_ONCE):
                    some = slice(start, start + _AT_ONCE)
                    wanted = {i - start: w for i, w in weights.items() if start <= i < start + _AT_ONCE}
                    for number, group in enumerate(self._groups):
                        group.reduce(number, looks[some], out[some], wanted)
                for i, look in enumerate(looks):
                    self._special(look, out[i])
        finally:
            for look in looks:
                self.release(look)
        return out, weights

    def spread(self, weights: Any) -> list[tuple[float, tuple[float, ...]]]:
        """Per parameter: L2 norm and quantiles of weights that `reduce` gave."""
        return quantiles(weights, self.counts, self.numels)

    def _special(self, look: Look, table: NDArray[np.float64]) -> None:
        for row in look.bare:
            table[[0, 1, 2, 3, _COLUMNS["first_order"]], row] = math.nan
        for row, values in look.sparse:
            found = np.abs(values.cpu().numpy()).astype(np.float64)
            numel = self.numels[row]
            table[:4, row] = (
                math.sqrt(float(found @ found) / numel),
                found.max(initial=0.0),
                1 - np.count_nonzero(found) / numel,
                np.count_nonzero(~np.isfinite(found)) / numel,
            )
        for second in look.second:
            correction = 1 - second.beta ** float(second.made or 1)
            root = np.sqrt(second.sample.cpu().numpy().astype(np.float64) / correction)
            table[_COLUMNS["adam_suppression"], second.row] = np.mean(root / (root + second.eps))

    def notice(self, before: NDArray[Any], after: NDArray[Any]) -> None:
        """The weights after a step and before the next: where they differ, both are looked at from now on."""
        self._always = self._always or not np.array_equal(before, after, equal_nan=True)


class _Group:
    """The parameters of one device: the rows of one array."""

    def __init__(self, device: torch.device, rows: list[int], ring: ParameterRing) -> None:
        self.device = device
        self.rows = rows
        self.width = ring.width
        self.tensors = [ring.parameters[i] for i in rows]
        pieces = self.pieces()
        self.dtype = torch.float64 if any(t.dtype in _WIDE for t in pieces) else torch.float32
        self._ring = ring
        self._spread = any(p is not t for p, t in zip(pieces, self.tensors, strict=True))
        self._plans = [_Plan.of(t, ring.width) for t in pieces]
        for i, plan in zip(rows, self._plans, strict=True):
            ring.counts[i] = plan.count
        self._complex = [n for n, t in enumerate(pieces) if t.is_complex()]
        self._numels = np.array([t.numel() for t in pieces], dtype=np.float64)
        self._counts = np.maximum(1, [p.count for p in self._plans]).astype(np.float64)
        self._pointers: list[int] = []
        self._sources: list[Tensor] = []
        self._last: NDArray[np.float64] | None = None  # the weights after the last look

    def pieces(self) -> list[Tensor]:
        """The tensors themselves; of those that are sharded, what this process holds."""
        return [local_tensor(t) for t in self.tensors]

    @property
    def columns(self) -> int:
        """Numbers kept per row: a complex element takes two."""
        return self.width * (2 if self._complex else 1)

    @property
    def slot_bytes(self) -> int:
        """Memory of one slot."""
        return 2 * len(self.rows) * self.columns * (8 if self.dtype == torch.float64 else 4)

    def allocate(self, slots: int) -> None:
        """Make the arrays, and the places in them that tensors are copied to."""
        shape = (slots, len(self.rows), self.columns)
        self.gradients, self.weights = (
            torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2)
        )
        self._before = torch.zeros(shape[1:], dtype=self.dtype, device=self.device)
        self._gradient_rows = [self._places(self.gradients[s]) for s in range(slots)]
        self._weight_rows = [self._places(self.weights[s]) for s in range(slots)]
        self._before_rows = self._places(self._before)
        self._joins = self.device.type in JOINED_ON and not self._complex and not self._spread
        self._zeros: dict[
            torch.dtype, list[Tensor]
        ] = {}  # a row of them, and what each row's sample leaves over

    def _places(self, matrix: Tensor) -> list[Tensor]:
        return [matrix[n, : plan.length].view(plan.shape) for n, plan in enumerate(self._plans)]

    def let_go(self) -> None:
        """Hold no tensor of the model any more."""
        self.tensors, self._sources = [], []

    def weights_now(self) -> Tensor:
        """A copy of the weights' sample, [rows x columns]."""
        self._copy_weights(self._before, self._before_rows)
        return self._before.clone()

    def read_weights(self, slot: int) -> None:
        """Look at the weights as they are."""
        self._copy_weights(self.weights[slot], self._weight_rows[slot])

    def _copy_weights(self, matrix: Tensor, places: list[Tensor]) -> None:
        tensors = self.pieces() if self._spread else self.tensors
        pointers = [t.data_ptr() for t in tensors]
        if pointers != self._pointers:  # the first time, and when the script gave a parameter new storage
            self._sources = [plan.see(t.detach()) for plan, t in zip(self._plans, tensors, strict=True)]
            # what had to be copied would be stale at the next step
            own = all(map(_shares_memory, self._sources, tensors))
            self._pointers = pointers if own else []
        if not self._joined(matrix, self._sources):
            torch._foreach_copy_(places, self._sources)

    def _joined(self, matrix: Tensor, sources: Sequence[Tensor | None]) -> bool:
        """Fill the whole matrix [rows x columns] by one launch of a kernel; False where that can't be.

        A foreach copy of strided views launches a kernel for each of them, which takes milliseconds on a GPU.
        """
        if not self._joins:
            return False
        kinds = {s.dtype for s in sources if s is not None}
        if len(kinds) != 1:
            return False
        (kind,) = kinds
        if kind not in self._zeros:
            zeros = torch.zeros(self.columns, dtype=kind, device=self.device)
            self._zeros[kind] = [zeros, *(zeros[plan.length :] for plan in self._plans)]
        nothing, *rests = self._zeros[kind]
        parts: list[Tensor] = []
        for source, rest in zip(sources, rests, strict=True):
            if source is None:
                parts.append(nothing)
            else:
                parts += (source if source.dim() == 1 else source.reshape(-1), rest)
        if kind == matrix.dtype:
            torch.cat(parts, out=matrix.view(-1))
        else:
            matrix.view(-1).copy_(torch.cat(parts))
        return True

    def read_gradients(self, slot: int, rows: frozenset[int] | None) -> list[int]:
        """Look at the gradients (of some rows); gives those of them that have no dense one."""
        bare: list[int] = []
        seen: list[Tensor | None] = [None] * len(self.tensors)
        for n, (tensor, plan) in enumerate(zip(self.tensors, self._plans, strict=True)):
            if rows is not None and self.rows[n] not in rows:
                continue
            gradient = local_gradient(tensor) if self._spread else tensor.grad
            if gradient is None or gradient.layout is not torch.strided:
                bare.append(self.rows[n])
                continue
            seen[n] = gradient if plan.plain else plan.see(gradient)
        if rows is None and self._joined(self.gradients[slot], seen):
            return bare
        there = [(to, s) for to, s in zip(self._gradient_rows[slot], seen, strict=True) if s is not None]
        if there:
            torch._foreach_copy_([to for to, _ in there], [s for _, s in there])
        return bare

    def reduce(
        self,
        number: int,
        looks: Sequence[Look],
        out: NDArray[np.float64],
        weights: dict[int, NDArray[np.float64]],
    ) -> None:
        """Write this group's columns of `out` and its rows of `weights` (by look). `number`: which group it is."""
        slots = [look.slot for look in looks]
        gradients = self._wide(self.gradients, slots)
        after = self._wide(self.weights, slots)
        before = self._before_each(number, looks, after)
        for i, look in enumerate(looks):
            if look.scale is not None:
                gradients[i] /= float(look.scale)
        self._last = after[-1].copy()
        for i, kept in weights.items():
            kept[self.rows] = before[i].real
        for column, values in enumerate(
            self._statistics(gradients, before, np.subtract(after, before, out=after))
        ):
            out[:, column, self.rows] = values

    def _wide(self, matrix: Tensor, slots: list[int]) -> NDArray[Any]:
        values = matrix.numpy()[slots] if matrix.device.type == "cpu" else matrix[slots].cpu().numpy()
        wide = values.astype(np.float64)
        return wide.view(np.complex128) if self._complex else wide

    def _before_each(self, number: int, looks: Sequence[Look], after: NDArray[Any]) -> NDArray[Any]:
        before = np.empty_like(after)
        for i, look in enumerate(looks):
            last = after[i - 1] if i else self._last
            if look.before:
                seen = look.before[number].cpu().numpy().astype(np.float64)
                before[i] = seen.view(np.complex128) if self._complex else seen
            else:
                before[i] = after[i] if last is None else last
            if look.compare and last is not None:
                self._ring.notice(before[i], last)
        return before

    def _statistics(
        self, gradients: NDArray[Any], before: NDArray[Any], update: NDArray[Any]
    ) -> list[NDArray[np.float64]]:
        counts, empty = self._counts, self.width - self._counts
        squares = _squares(gradients)
        finite = np.isfinite(squares).all()
        broken = np.zeros_like(squares) if finite else np.count_nonzero(~np.isfinite(gradients), axis=2)
        return [
            np.sqrt(squares / counts),
            np.abs(gradients).max(2),
            (self.width - np.count_nonzero(gradients, axis=2) - empty) / counts,
            broken / counts,
            np.sqrt(_squares(before) / counts),
            np.sqrt(_squares(update) / counts),
            np.count_nonzero(update, axis=2) / counts,
            -np.einsum("npw,npw->np", gradients.conj(), update).real * (self._numels / counts),
        ]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which elements of one tensor are looked at: every `stride`-th in the order of its memory."""

    count: int  # elements
    length: int  # numbers (two for a complex element)
    shape: tuple[int, ...]  # of the place that they are copied to
    stride: int
    order: tuple[int, ...] | None  # the dimensions in the order of memory; None = as they come
    plain: bool  # all of it, just as it is
    is_complex: bool

    @staticmethod
    def of(tensor: Tensor, width: int) -> _Plan:
        numel = tensor.numel()
        order = None
        if not tensor.is_contiguous():
            order = tuple(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
        shape = tensor.shape if order is None else tuple(tensor.shape[d] for d in order)
        stride = stride_for(shape, width) if numel > width else 1
        count = -(-numel // stride)
        plain = numel <= width and order is None and not tensor.is_complex()
        length = count * (2 if tensor.is_complex() else 1)
        place = tuple(tensor.shape) if plain else (count, 2) if tensor.is_complex() else (count,)
        return _Plan(count, length, place, stride, order, plain, tensor.is_complex())

    def see(self, tensor: Tensor) -> Tensor:
        """The elements: a view of a dense tensor, a copy of others."""
        if self.order is not None:
            tensor = tensor.permute(self.order)
        if self.plain:
            return tensor
        if tensor.is_contiguous():
            seen = tensor.as_strided((self.count,), (self.stride,))
        else:
            seen = tensor.reshape(-1)[:: self.stride]
        return torch.view_as_real(seen) if self.is_complex else seen


def _shares_memory(view: Tensor, tensor: Tensor) -> bool:
    return view.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


def _squares(values: NDArray[Any]) -> NDArray[np.float64]:
    """Sums of squared magnitudes over the last axis."""
    if np.iscomplexobj(values):
        return _squares(values.real) + _squares(values.imag)
    squares: NDArray[np.float64] = np.einsum("npw,npw->np", values, values)
    return squares


def _copied(values: Tensor) -> Tensor:
    """A copy in a format that numpy has: it knows no bfloat16."""
    wide = torch.float32 if values.dtype in (torch.bfloat16, torch.float16) else values.dtype
    return values.to(wide, copy=True)


def _second_moments(
    optimizer: Any, parameters: Sequence[Tensor], counts: Sequence[int]
) -> list[SecondMoment]:
    """Of the parameters that an Adam steps. Nothing waits for a device: the step count may lie on it."""
    rows = {id(p): i for i, p in enumerate(parameters)}
    out = []
    for group in optimizer.param_groups:
        betas, eps = group.get("betas"), group.get("eps")
        if not isinstance(betas, list | tuple) or not isinstance(eps, float):
            continue
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            second = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
            row = rows.get(id(parameter))
            if row is None or not isinstance(second, Tensor) or isinstance(betas[1], Tensor):
                continue
            made = state.get("step")
            made = local_tensor(made).detach().clone() if isinstance(made, Tensor) else float(made or 1)
            second = local_tensor(second)  # of a sharded one the whole would be asked of the other processes
            sample = second.detach().reshape(-1)
            sample = _copied(sample[:: stride_for(second.shape, max(1, counts[row]))])
            out.append(SecondMoment(row, sample, betas[1], made, eps))
    return out


def quantiles(
    weights: NDArray[np.float64], counts: Sequence[int], numels: Sequence[int]
) -> list[tuple[float, tuple[float, ...]]]:
    """Per row: (estimated L2 norm of the whole tensor, quantiles at SNAPSHOT_QUANTILES), NaN where not finite."""
    norms, levels = [math.nan] * len(counts), [(math.nan,) * len(SNAPSHOT_QUANTILES)] * len(counts)
    for count in set(counts) - {0}:  # rows of the same length in one go
        rows = [i for i, n in enumerate(counts) if n == count]
        values = np.sort(weights[rows, :count], axis=1)  # numpy's quantile() takes five times as long
        at = np.array(SNAPSHOT_QUANTILES) * (count - 1)
        low = at.astype(int)
        share = at - low
        with np.errstate(all="ignore"):  # weights that are NaN or Inf are numbers to us, not a warning
            above = values[:, np.minimum(low + 1, count - 1)]
            found = np.where(share > 0, values[:, low] * (1 - share) + above * share, values[:, low])
            found[np.isnan(values[:, -1])] = math.nan  # sorted to the end
            size = np.linalg.norm(values, axis=1).tolist()
        for i, norm, row in zip(rows, size, found.tolist(), strict=True):
            norms[i], levels[i] = norm * math.sqrt(numels[i] / count), tuple(row)
    return list(zip(norms, levels, strict=True))


_WIDE = (torch.float64, torch.complex128)


def is_readable(tensor: Tensor) -> bool:
    """Whether the elements of a plain tensor can be looked at."""
    plain = type(tensor) is torch.nn.Parameter or type(tensor) is Tensor
    return plain and (tensor.is_floating_point() or tensor.is_complex()) and is_there(tensor)
