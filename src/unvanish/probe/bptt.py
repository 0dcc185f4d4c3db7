"""Backpropagation through time, written out: what a fused recurrent kernel does between its time steps.

A fused kernel hands out the gradients of its inputs and weights, never those of the hidden states in between. Here
they are computed once more from the kernel's inputs, weights and arriving gradients. All that can be done for all
time steps at once is; the loops hold what depends on the step before, half a dozen small operations a step.

Shapes: T time steps, N samples, I inputs, H hidden units, P values that a layer emits (H, or fewer with a
projection), G gates (4 for an LSTM, 3 for a GRU, 1 for a plain RNN). Call it without grad mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CellKind = Literal["RNN_RELU", "RNN_TANH", "LSTM", "GRU"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The weights of one layer and direction, as torch.nn has them (gates in the order i f g o, or r z n)."""

    kind: CellKind
    w_ih: Tensor  # [G*H, I]
    w_hh: Tensor  # [G*H, P]
    b_ih: Tensor | None = None  # [G*H]
    b_hh: Tensor | None = None
    w_hr: Tensor | None = None  # [P, H], an LSTM's projection


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """One call of a fused layer, or of several layers, and the gradients that arrived at what it gave.

    `cells[layer][direction]`; `reverse` says of each direction whether it runs from the last step to the first.
    States and their gradients are by layer and direction. None: no initial cell state (only an LSTM has one), no
    gradient arrived. `active`: which steps are within their sample's sequence; None = all.
    """

    cells: Sequence[Sequence[Cell]]
    reverse: Sequence[bool]
    x: Tensor  # [T, N, I]
    h0: Tensor  # [layers, directions, N, P]
    c0: Tensor | None  # [layers, directions, N, H]
    outputs: Tensor | None  # [T, N, directions*P], of the last layer; None = not known
    d_outputs: Tensor | None  # as `outputs`
    d_h: Tensor | None  # as `h0`, of the states at the end
    d_c: Tensor | None
    active: Tensor | None = None  # [T, N] bool


def through_time(call: Recurrence) -> list[list[Tensor]]:
    """dL/dh_t for every time step, by layer and direction: [T, N, P] each, in the order of the data.

    It is the whole gradient of the state: what comes from the layers above, and what comes back through later steps.
    """
    entries, emitted = _forward(call)
    width = emitted[-1][0].shape[-1]
    directions = len(call.reverse)
    arriving = call.d_outputs
    if arriving is None:
        arriving = call.x.new_zeros((*call.x.shape[:2], width * directions))
    found: list[list[Tensor]] = []
    for layer in reversed(range(len(call.cells))):
        below = torch.zeros_like(entries[layer]) if layer else None
        here: list[Tensor] = []
        for direction, (cell, reverse) in enumerate(zip(call.cells[layer], call.reverse, strict=True)):
            total, before_gates = _backward(
                cell,
                _Way(
                    x=_turned(entries[layer], reverse),
                    h0=call.h0[layer, direction],
                    c0=None if call.c0 is None else call.c0[layer, direction],
                    active=None if call.active is None else _turned(call.active, reverse),
                ),
                _turned(emitted[layer][direction], reverse),
                _turned(arriving.chunk(directions, -1)[direction], reverse),
                None if call.d_h is None else call.d_h[layer, direction],
                None if call.d_c is None else call.d_c[layer, direction],
            )
            here.append(_turned(total, reverse))
            if below is not None:
                below += _turned(before_gates, reverse) @ cell.w_ih
        found.append(here)
        if below is not None:
            arriving = below
    return found[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """What one direction of one layer runs over, in the order in which it does."""

    x: Tensor  # [T, N, I]
    h0: Tensor  # [N, P]
    c0: Tensor | None  # [N, H]
    active: Tensor | None  # [T, N]

    def mask(self) -> Tensor | None:
        """[T, N, 1], 1 at active steps; None where all are."""
        return None if self.active is None else self.active.unsqueeze(-1).to(self.x.dtype)


def _turned(values: Tensor, reverse: bool) -> Tensor:
    return values.flip(0) if reverse else values


# --- forward ------------------------------------------------------------------------------------------------


def _forward(call: Recurrence) -> tuple[list[Tensor], list[list[Tensor]]]:
    """What enters each layer, and what each of its directions emits; the latter of the top from the call itself."""
    entries, emitted = [call.x], list[list[Tensor]]()
    for layer, cells in enumerate(call.cells):
        if layer == len(call.cells) - 1 and call.outputs is not None:
            emitted.append(list(call.outputs.chunk(len(cells), -1)))
            break
        here = []
        for direction, (cell, reverse) in enumerate(zip(cells, call.reverse, strict=True)):
            way = _Way(
                x=_turned(entries[layer], reverse),
                h0=call.h0[layer, direction],
                c0=None if call.c0 is None else call.c0[layer, direction],
                active=None if call.active is None else _turned(call.active, reverse),
            )
            here.append(_turned(_emitted(cell, way), reverse))
        emitted.append(here)
        entries.append(torch.cat(here, -1))
    return entries, emitted


def _emitted(cell: Cell, way: _Way) -> Tensor:
    """[T, N, P], step by step; zeros where a step is not active."""
    from_below = F.linear(way.x, cell.w_ih, cell.b_ih)
    state, memory = way.h0, way.c0
    mask = way.mask()
    out: list[Tensor] = []
    for t, below in enumerate(from_below):
        before = F.linear(state, cell.w_hh, cell.b_hh)
        made, kept = _step(cell, below, before, state, memory)
        if mask is None:
            out.append(made)
        else:  # a sample whose sequence is over, or has not begun, keeps its state
            made, kept = torch.lerp(state, made, mask[t]), _kept(memory, kept, mask[t])
            out.append(made * mask[t])
        state, memory = made, kept
    return torch.stack(out)


def _kept(memory: Tensor | None, new: Tensor | None, mask: Tensor) -> Tensor | None:
    return None if memory is None or new is None else torch.lerp(memory, new, mask)


def _step(
    cell: Cell, below: Tensor, before: Tensor, state: Tensor, memory: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if cell.kind == "LSTM":
        i, f, g, o = (below + before).chunk(4, -1)
        carried = 0 if memory is None else f.sigmoid() * memory
        new = carried + i.sigmoid() * g.tanh()
        made = o.sigmoid() * new.tanh()
        return (made if cell.w_hr is None else F.linear(made, cell.w_hr)), new
    if cell.kind == "GRU":
        (x_r, x_z, x_n), (h_r, h_z, h_n) = below.chunk(3, -1), before.chunk(3, -1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        return torch.lerp((x_n + r * h_n).tanh(), state, z), None
    total = below + before
    return (total.tanh() if cell.kind == "RNN_TANH" else total.relu()), None


# --- backward -----------------------------------------------------------------------------------------------


def _backward(
    cell: Cell, way: _Way, emitted: Tensor, arriving: Tensor, last_h: Tensor | None, last_c: Tensor | None
) -> tuple[Tensor, Tensor]:
    """dL/dh_t [T, N, P], and dL/d(what the gates get from below) [T, N, G*H]; all in the order of the way."""
    first = way.h0.unsqueeze(0)
    if way.active is None:
        before = torch.cat((first, emitted[:-1]))
    else:  # where the step before is no step of the sample, its state is still the first one
        known = torch.where(way.active[:-1].unsqueeze(-1), emitted[:-1], first)
        before = torch.cat((first, known))
    carry = torch.zeros_like(way.h0) if last_h is None else last_h
    run = {"LSTM": _lstm, "GRU": _gru}.get(cell.kind, _plain)
    total, gates = run(cell, way, before, emitted, arriving, carry, last_c)
    mask = way.mask()
    return (total if mask is None else total * mask), gates


def _lstm(
    cell: Cell,
    way: _Way,
    before: Tensor,
    _: Tensor,
    arriving: Tensor,
    carry: Tensor,
    last_c: Tensor | None,
) -> tuple[Tensor, Tensor]:
    gates = F.linear(way.x, cell.w_ih, cell.b_ih) + F.linear(before, cell.w_hh, cell.b_hh)
    i, f, g, o = gates.chunk(4, -1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    mask = way.mask()
    if mask is not None:
        i, f = i * mask, torch.lerp(torch.ones_like(f), f, mask)
    memory = torch.zeros_like(f[0]) if way.c0 is None else way.c0
    memories = [memory]
    for new, forget in zip(i * g, f, strict=True):
        memory = torch.addcmul(new, forget, memory)
        memories.append(memory)
    squashed = torch.stack(memories[1:]).tanh()
    reach = o * (1 - squashed.square())  # d(o tanh c)/dc
    out_gate = squashed * o * (1 - o)
    if mask is not None:
        reach, out_gate = reach * mask, out_gate * mask
    factors = torch.cat(
        (g * i * (1 - i), torch.stack(memories[:-1]) * f * (1 - f), i * (1 - g.square()), out_gate), -1
    )
    total = arriving.clone()
    before_gates = torch.empty_like(factors)
    d_memory = torch.zeros_like(memory) if last_c is None else last_c
    steps = zip(total, before_gates, factors, reach, f, strict=True)
    rows = [(*step, None if mask is None else 1 - mask[t]) for t, step in enumerate(steps)]
    for state, into_gates, factor, reached, forget, idle in reversed(rows):
        state.add_(carry)
        made = state if cell.w_hr is None else state @ cell.w_hr
        d_memory = torch.addcmul(d_memory, made, reached)
        torch.mul(torch.cat((d_memory, d_memory, d_memory, made), -1), factor, out=into_gates)
        carry = into_gates @ cell.w_hh
        if idle is not None:
            carry = torch.addcmul(carry, state, idle)
        d_memory = d_memory * forget
    return total, before_gates


def _gru(
    cell: Cell,
    way: _Way,
    before: Tensor,
    _: Tensor,
    arriving: Tensor,
    carry: Tensor,
    __: Tensor | None,
) -> tuple[Tensor, Tensor]:
    x_r, x_z, x_n = F.linear(way.x, cell.w_ih, cell.b_ih).chunk(3, -1)
    h_r, h_z, h_n = F.linear(before, cell.w_hh, cell.b_hh).chunk(3, -1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    new = (1 - z) * (1 - n.square())
    # h' = (1 - z) n + z h: per gate, what one unit of dL/dh' becomes before its nonlinearity
    to_r, to_z = new * h_n * r * (1 - r), (before - n) * z * (1 - z)
    keep = z
    mask = way.mask()
    if mask is not None:
        to_r, to_z, new = to_r * mask, to_z * mask, new * mask
        keep = torch.lerp(torch.ones_like(z), z, mask)
    total = _gated(cell, arriving, carry, torch.cat((to_r, to_z, new * r), -1), keep)
    return total, torch.cat((total * to_r, total * to_z, total * new), -1)


def _plain(
    cell: Cell,
    way: _Way,
    _: Tensor,
    emitted: Tensor,
    arriving: Tensor,
    carry: Tensor,
    __: Tensor | None,
) -> tuple[Tensor, Tensor]:
    slope = 1 - emitted.square() if cell.kind == "RNN_TANH" else (emitted > 0).to(emitted.dtype)
    mask = way.mask()
    keep = None if mask is None else (1 - mask).expand_as(slope)
    slope = slope if mask is None else slope * mask
    total = _gated(cell, arriving, carry, slope, keep)
    return total, total * slope


def _gated(cell: Cell, arriving: Tensor, carry: Tensor, factors: Tensor, keep: Tensor | None) -> Tensor:
    """The recurrence of a cell without a memory: each gate gets a multiple of dL/dh, `keep` of it passes by."""
    total = arriving.clone()
    gates = factors.shape[-1] // arriving.shape[-1]
    rows = list(zip(total, factors, total if keep is None else keep, strict=True))
    for state, factor, kept in reversed(rows):
        state.add_(carry)
        wide = state if gates == 1 else torch.cat((state,) * gates, -1)
        carry = (wide * factor) @ cell.w_hh
        if keep is not None:
            carry = torch.addcmul(carry, state, kept)
    return total
