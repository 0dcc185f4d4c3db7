"""The gradient between the time steps of fused recurrent layers, which autograd's graph shows as one operation.

oneDNN runs nn.LSTM on the CPU with one operation per layer and direction, cuDNN every nn.RNN, nn.GRU and nn.LSTM with
a single one. At a traced step, just before such an operation runs backward, what it has saved and what arrives
at it are read, and the backward pass through its time steps is made beside it (see bptt.py), for some of the
samples. Layers that are unrolled (all else) are measured operation by operation, like everything.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probe.backward import InTime, Node, StateNorms, Tracing
from unvanish.probe.bptt import Cell, CellKind, Recurrence, through_time
from unvanish.probe.forward import Call
from unvanish.probe.incidents import out_of_memory
from unvanish.probe.samples import TRACE_SAMPLE

WHAT = "gradient between the time steps of fused recurrent layers"
PACKED_AWAY = (
    "what they save for the backward pass goes through hooks (checkpointing, save_on_cpu), and reading it would "
    "call these once more"
)
NO_MASKS = (
    "the dropout masks between the layers are known to cuDNN alone: for these layers it was computed as if there "
    "were none"
)
NO_MEMORY = "there is not enough memory for it"

# Of the batch, the first ones: what counts is the ratio from step to step. With 8 an LSTM of 64 units over 100 steps
# takes 6 ms on one core, beside 10 for its own two passes over a batch of 32; with 16 it took 13.
MOST_SAMPLES = 8
MOST_STATES = 2**19  # T x N x H; an array of so many float64 has 4 MB, and an LSTM needs some twenty-five
MOST_CALLS = (
    64  # in one pass: a script may call its layers chunk by chunk, and each call has rows in the record
)
MOST_STEPS = 4096  # beyond, T rounds of half a dozen small operations would be felt even at a traced step
MANY_CALLS = f"of more than {MOST_CALLS} calls in one backward pass, the last {MOST_CALLS} were looked at"
_KINDS: tuple[CellKind, ...] = ("RNN_RELU", "RNN_TANH", "LSTM", "GRU")  # as cuDNN and oneDNN number them
_DOUBLE = ("cpu", "cuda")  # where float64 is: what underflows in float32 keeps its size then
_SUFFIX = re.compile(r"_l(\d+)(_reverse)?$")


def arm(tracing: Tracing) -> None:
    """Hook the fused recurrent operations of a pass that is measured in full; `tracing.disarm` takes that back."""
    if tracing.lean:
        return
    by_call: dict[int, tuple[Call, list[Node]]] = {}
    for node in tracing.nodes:
        call = tracing.calls[node.index] if node.name in _READERS else None
        if call is not None and isinstance(call.module, nn.RNNBase):
            by_call.setdefault(id(call), (call, []))[1].append(node)
    most = MOST_SAMPLES if tracing.size <= TRACE_SAMPLE else None
    done: set[int] = set()
    for call, nodes in by_call.values():
        for node, layer in zip(nodes, _layers(call.module, nodes), strict=True):
            if call.hooked:
                node.in_time = InTime(why=PACKED_AWAY)
            elif layer is not None:
                prehook = _prehook(node, call, layer, most, done, tracing.on_fault)
                handle = node.handle.register_prehook(prehook)
                tracing.handles.append(handle)


def untold(tracing: Tracing) -> list[str]:
    """Why some of it was not measured, or not exactly; each reason once."""
    found = [n.in_time.why for n in tracing.nodes if n.in_time is not None and n.in_time.why is not None]
    return list(dict.fromkeys(found))


def _layers(module: nn.Module, nodes: Sequence[Node]) -> list[int | None]:
    """Which layer each operation of one call begins with; None where that can't be told."""
    names = {id(p): name for name, p in module._parameters.items()}
    directions = 2 if getattr(module, "bidirectional", False) else 1
    whole = len(nodes) == directions * getattr(module, "num_layers", 0)  # else frozen ones have no operation
    out: list[int | None] = []
    for place, node in enumerate(nodes):
        if node.name == "CudnnRnn":
            out.append(0)
            continue
        found = [_SUFFIX.search(names.get(id(leaf.parameter), "")) for leaf in node.leaves]
        known = [int(match.group(1)) for match in found if match is not None]
        out.append(known[0] if known else place // directions if whole else None)
    return out


def _prehook(
    node: Node,
    call: Call,
    layer: int,
    most: int | None,
    done: set[int],
    on_fault: Callable[[str, Exception], None],
) -> Callable[[Any], None]:
    """`done`: the calls (by id) of this pass that were measured, the last ones first, as the gradient comes."""

    def prehook(grad_outputs: Sequence[Tensor | None]) -> None:
        try:
            if len(done) >= MOST_CALLS and id(call) not in done:
                node.in_time = InTime(why=MANY_CALLS)
                return
            node.in_time = measure(node.name, node.handle, grad_outputs, layer, most)
            if node.in_time is not None and node.in_time.states:
                done.add(id(call))
        except Exception as error:
            if out_of_memory(error):
                node.in_time = InTime(why=NO_MEMORY)
            else:
                on_fault("backward through time", error)

    return prehook


def measure(
    name: str,
    handle: Any,
    gradients: Sequence[Tensor | None],
    layer: int = 0,
    most: int | None = MOST_SAMPLES,
) -> InTime | None:
    """The norms of dL/dh_t of all layers and directions of one fused operation, about to run backward.

    `name` is the operation's, `gradients` arrive at its outputs; `layer` is its first one's number. `most`: samples
    to look at; None = all, whatever it takes.
    """
    with torch.no_grad(), _plainly(handle._saved_input.device):
        call, samples, why = _READERS[name](handle, [_plain(g) for g in gradients], most)
        if call is None:
            return None if why is None else InTime(why=why)
        looked_at = call.x.shape[1]
        factor = math.sqrt(samples / looked_at)
        norms = [
            StateNorms(
                layer=layer + number,
                reverse=reverse,
                norms=_norms(total) * factor,
                samples=looked_at if looked_at < samples else None,
            )
            for number, totals in enumerate(through_time(call))
            for reverse, total in zip(call.reverse, totals, strict=True)
        ]
    return InTime(states=tuple(norms), why=why)


@contextlib.contextmanager
def _plainly(device: torch.device) -> Iterator[None]:
    """Without autocast, where a script runs the backward pass under it."""
    if torch.is_autocast_enabled(device.type):
        with torch.autocast(device.type, enabled=False):
            yield
    else:
        yield


def _norms(total: Tensor) -> Tensor:
    """L2 norm over samples and units of [T, N, P], by step. Scaled, so that no square underflows."""
    sizes = total.abs().amax((1, 2))
    safe = torch.where((sizes > 0) & sizes.isfinite(), sizes, 1.0)
    norms = (total / safe[:, None, None]).square().sum((1, 2)).sqrt() * safe
    return torch.where(sizes.isfinite(), norms, sizes)


# --- reading the operations ---------------------------------------------------------------------------------

Read = tuple[
    Recurrence | None, int, str | None
]  # (None: not measured; samples of the batch; what is to be said)


def _plain(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None or tensor.numel() == 0 else tensor.detach()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64 if tensor.device.type in _DOUBLE else torch.float32)


def _maybe_wide(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _wide(tensor)


def _too_long(steps: int, most: int | None) -> str | None:
    if most is not None and steps > MOST_STEPS:
        return f"sequences of more than {MOST_STEPS} steps take too long"
    return None


def _fewer(most: int | None, samples: int, steps: int, width: int) -> int:
    """How many samples are looked at."""
    return samples if most is None else max(1, min(most, samples, MOST_STATES // (steps * width)))


def _one_layer(handle: Any, gradients: Sequence[Tensor | None], most: int | None) -> Read:
    """oneDNN: one layer of an LSTM in one direction, the input [T, N, I] whatever the module's batch_first."""
    x = handle._saved_input
    steps, samples, width = x.shape[0], x.shape[1], int(handle._saved_hidden_size)
    kind = _KINDS[int(handle._saved_mode)]
    why = _too_long(steps, most)
    if steps < 2 or not samples or why is not None or kind != "LSTM":
        return None, samples, why
    n = _fewer(most, samples, steps, width)
    biased = bool(handle._saved_has_biases)
    cell = Cell(
        kind=kind,
        w_ih=_wide(handle._saved_weight0),
        w_hh=_wide(handle._saved_weight1),
        b_ih=_wide(handle._saved_weight2) if biased else None,
        b_hh=_wide(handle._saved_weight3) if biased else None,
    )
    d_out, d_h, d_c = gradients[:3]

    def state(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else _wide(tensor.reshape(1, 1, samples, width)[:, :, :n])

    h0, c0 = state(handle._saved_hx_), state(handle._saved_cx_)
    call = Recurrence(
        cells=((cell,),),
        reverse=(bool(handle._saved_reverse),),
        x=_wide(x[:, :n]),
        h0=_wide(x.new_zeros(1, 1, n, width)) if h0 is None else h0,
        c0=c0,
        outputs=_wide(handle._saved_result0[:, :n]),
        d_outputs=_maybe_wide(None if d_out is None else d_out[:, :n]),
        d_h=state(d_h),
        d_c=state(d_c),
    )
    return call, samples, None


def _all_layers(handle: Any, gradients: Sequence[Tensor | None], most: int | None) -> Read:
    """cuDNN: all layers and directions, the input as the module got it: [N, T, I] with batch_first, or packed."""
    lengths = torch.tensor([int(b) for b in handle._saved_batch_sizes], device="cpu")

    def steps_first(tensor: Tensor) -> Tensor:
        if len(lengths):
            return torch._VF._pad_packed_sequence(tensor, lengths, False, 0.0, len(lengths))[0]
        return tensor.transpose(0, 1) if handle._saved_batch_first else tensor

    given = handle._saved_input.detach()
    x = steps_first(given)
    steps, samples = x.shape[:2]
    width, kind = int(handle._saved_hidden_size), _KINDS[int(handle._saved_mode)]
    why = _too_long(steps, most)
    if steps < 2 or not samples or why is not None:
        return None, samples, why
    n = _fewer(most, samples, steps, width)
    layers, directions = int(handle._saved_num_layers), 2 if handle._saved_bidirectional else 1
    projected = bool(handle._saved_proj_size)
    cells = _cells(kind, handle._saved_weight, int(handle._saved_weight_stride0), directions, projected)

    def state(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return _wide(tensor.reshape(layers, directions, samples, -1)[:, :, :n])

    d_out = gradients[0]
    h0 = state(handle._saved_hx)
    emitted = int(handle._saved_proj_size) or width
    active = None
    if len(lengths):
        active = (torch.arange(n, device="cpu") < lengths.unsqueeze(1)).to(x.device, non_blocking=True)
    masked = handle._saved_train and handle._saved_dropout > 0 and layers > 1
    call = Recurrence(
        cells=cells,
        reverse=(False, True)[:directions],
        x=_wide(x[:, :n]),
        h0=_wide(x.new_zeros(layers, directions, n, emitted)) if h0 is None else h0,
        c0=state(handle._saved_cx) if kind == "LSTM" else None,
        outputs=_wide(steps_first(handle._saved_result0.detach())[:, :n]),
        d_outputs=None if d_out is None else _wide(steps_first(d_out)[:, :n]),
        d_h=state(gradients[1]),
        d_c=state(gradients[2]) if kind == "LSTM" else None,
        active=active,
    )
    return call, samples, NO_MASKS if masked else None


def _cells(
    kind: CellKind, weights: Sequence[Tensor], stride: int, directions: int, projected: bool
) -> list[list[Cell]]:
    """The flat weights: per layer and direction w_ih, w_hh, b_ih and b_hh where there are biases, w_hr."""
    wide = [_wide(w) for w in weights]
    biased = stride - projected >= 4
    flat = [
        Cell(
            kind=kind,
            w_ih=own[0],
            w_hh=own[1],
            b_ih=own[2] if biased else None,
            b_hh=own[3] if biased else None,
            w_hr=own[-1] if projected else None,
        )
        for own in (wide[i : i + stride] for i in range(0, len(wide), stride))
    ]
    return [flat[i : i + directions] for i in range(0, len(flat), directions)]


_READERS: dict[str, Callable[[Any, Sequence[Tensor | None], int | None], Read]] = {
    "MkldnnRnnLayer": _one_layer,
    "CudnnRnn": _all_layers,
}
