"""The gradient between the time steps of fused recurrent layers, against an obvious float64 twin: a loop of cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint
from watching import Seen, random_states, seed, watched

import unvanish
from unvanish.probe import forward, through_time
from unvanish.probe.through_time import MOST_SAMPLES, PACKED_AWAY, WHAT, measure
from unvanish.schema.graph import ThroughTime
from unvanish.store import read_run

KINDS: list[Any] = [nn.LSTM, nn.GRU, nn.RNN]
CLOSE = 1e-9
States = dict[tuple[int, bool], list[Tensor]]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    seed(0)
    yield
    torch.set_default_dtype(torch.float32)


# --- the twin -----------------------------------------------------------------------------------------------


def cell(net: nn.RNNBase, at: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step, as torch's documentation of the module has it."""
    zero = torch.zeros(1, dtype=x.dtype)
    below = x @ getattr(net, f"weight_ih_{at}").T + getattr(net, f"bias_ih_{at}", zero)
    before = h @ getattr(net, f"weight_hh_{at}").T + getattr(net, f"bias_hh_{at}", zero)
    if net.mode == "LSTM":
        i, f, g, o = (below + before).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h @ getattr(net, f"weight_hr_{at}").T if net.proj_size else h), c
    if net.mode == "GRU":
        (x_r, x_z, x_n), (h_r, h_z, h_n) = below.chunk(3, -1), before.chunk(3, -1)
        z = (x_z + h_z).sigmoid()
        return (1 - z) * (x_n + (x_r + h_r).sigmoid() * h_n).tanh() + z * h, c
    total = below + before
    return (total.relu() if net.mode == "RNN_RELU" else total.tanh()), c


def unrolled(
    net: nn.RNNBase, x: Tensor, h0: Tensor | None = None, c0: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, States]:
    """Outputs, last states, last cells of x [T, N, I]; and every h_t by layer and direction, its gradient kept."""
    directions = 2 if net.bidirectional else 1
    emitted = net.proj_size or net.hidden_size
    states: States = {}
    last_h, last_c, below = [], [], x
    for layer in range(net.num_layers):
        parts = []
        for direction in range(directions):
            index = layer * directions + direction
            h = x.new_zeros(x.shape[1], emitted) if h0 is None else h0[index]
            c = x.new_zeros(x.shape[1], net.hidden_size) if c0 is None else c0[index]
            own: list[Tensor] = [h] * len(x)
            for t in reversed(range(len(x))) if direction else range(len(x)):
                h, c = cell(net, f"l{layer}" + "_reverse" * direction, below[t], h, c)
                h.retain_grad()
                own[t] = h
            states[layer, bool(direction)] = own
            parts.append(torch.stack(own))
            last_h.append(h)
            last_c.append(c)
        below = torch.cat(parts, -1)
    return below, torch.stack(last_h), torch.stack(last_c), states


def norms(states: list[Tensor]) -> list[float]:
    return [0.0 if h.grad is None else float(torch.linalg.vector_norm(h.grad)) for h in states]


def close(found: Any, expected: list[float], rel: float) -> None:
    assert list(found) == pytest.approx(expected, rel=rel, abs=1e-300)


# --- the formulas, for all that cuDNN fuses ------------------------------------------------------------------


def as_cudnn(net: nn.RNNBase, x: Tensor, out: Tensor, h0: Any = None, c0: Any = None, **more: Any) -> Any:
    """What cuDNN's operation saves, made by hand: there is no GPU here."""
    modes = {"RNN_RELU": 0, "RNN_TANH": 1, "LSTM": 2, "GRU": 3}
    count = net.num_layers * (2 if net.bidirectional else 1)
    saved = {
        "input": x,
        "hx": torch.zeros(
            count, out.shape[1 - net.batch_first], net.proj_size or net.hidden_size, dtype=x.dtype
        )
        if h0 is None
        else h0,
        "cx": c0,
        "result0": out,
        "weight": tuple(net.parameters()),
        "weight_stride0": len(list(net.parameters())) // count,
        "mode": modes[net.mode],
        "hidden_size": net.hidden_size,
        "proj_size": net.proj_size,
        "num_layers": net.num_layers,
        "bidirectional": net.bidirectional,
        "batch_first": net.batch_first,
        "dropout": net.dropout,
        "train": net.training,
        "batch_sizes": (),
    }
    return SimpleNamespace(**{f"_saved_{name}": value for name, value in (saved | more).items()})


CASES: list[tuple[Any, dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    *((kind, {"num_layers": 2, "bidirectional": True}) for kind in KINDS),
    *((kind, {"num_layers": 3, "bias": False}) for kind in KINDS),
    *((kind, {"batch_first": True, "bidirectional": True}) for kind in KINDS),
    (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
    (nn.LSTM, {"proj_size": 3}),
    (nn.LSTM, {"proj_size": 3, "num_layers": 2, "bidirectional": True, "bias": False}),
]


def keep(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.requires_grad:  # only an LSTM has cells
            tensor.retain_grad()


def arrived(*tensors: Tensor) -> list[Tensor | None]:
    return [None if t.grad is None else t.grad.detach() for t in tensors]


@pytest.mark.parametrize("states_given", [False, True])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_every_state_s_gradient_is_that_of_the_unrolled_loop(
    kind: Any, options: dict[str, Any], states_given: bool
) -> None:
    torch.set_default_dtype(torch.float64)
    net = kind(5, 6, **options)
    x = torch.randn(9, 4, 5)
    count = net.num_layers * (1 + net.bidirectional)
    h0 = torch.randn(count, 4, net.proj_size or 6) if states_given else None
    c0 = torch.randn(count, 4, 6) if states_given else torch.zeros(count, 4, 6)
    out, last_h, last_c, states = unrolled(net, x, h0, c0)
    keep(out, last_h, last_c)
    loss = (out * torch.randn_like(out)).sum()
    if states_given:
        loss = loss + last_h.square().sum() + (last_c.sin().sum() if net.mode == "LSTM" else 0)
    loss.backward()
    official = net(
        x.transpose(0, 1) if net.batch_first else x, *(_initial(net, h0, c0) if states_given else ())
    )
    turned = (lambda v: None if v is None else v.transpose(0, 1)) if net.batch_first else (lambda v: v)
    assert torch.allclose(official[0], turned(out))

    d_out, d_h, d_c = arrived(out, last_h, last_c)
    node = as_cudnn(net, turned(x), turned(out.detach()), h0, c0 if net.mode == "LSTM" else None)
    found = measure("CudnnRnn", node, (turned(d_out), d_h, d_c, None, None))
    assert found is not None and found.why is None
    assert {(s.layer, s.reverse) for s in found.states} == set(states)
    for state in found.states:
        assert state.samples is None
        close(state.norms.tolist(), norms(states[state.layer, state.reverse]), CLOSE)


def _initial(net: nn.RNNBase, h0: Any, c0: Any) -> tuple[Any]:
    return ((h0, c0) if net.mode == "LSTM" else h0,)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_are_as_long_as_each_sample(kind: Any, options: dict[str, Any]) -> None:
    torch.set_default_dtype(torch.float64)
    net = kind(5, 6, **options)
    samples = [torch.randn(length, 5) for length in (7, 5, 5, 2)]
    count = net.num_layers * (1 + net.bidirectional)
    h0, c0 = torch.randn(count, 4, 6), torch.randn(count, 4, 6)
    outs, d_outs, d_h, d_c = [], [], [], []
    squares: dict[tuple[int, bool], list[float]] = {}
    for n, sample in enumerate(samples):
        out, last_h, last_c, states = unrolled(net, sample.unsqueeze(1), h0[:, n : n + 1], c0[:, n : n + 1])
        keep(out, last_h, last_c)
        (out.square().sum() + last_h.sin().sum() + (3 * last_c.sum() if net.mode == "LSTM" else 0)).backward()
        outs.append(out[:, 0].detach())
        d_outs.append(out.grad[:, 0])
        d_h.append(last_h.grad)
        d_c.append(torch.zeros_like(last_c) if last_c.grad is None else last_c.grad)
        for key, own in states.items():
            total = squares.setdefault(key, [0.0] * 7)
            for t, value in enumerate(norms(own)):
                total[t] += value**2
    packed = pack_sequence(samples)
    node = as_cudnn(
        net,
        packed.data,
        pack_sequence(outs).data,
        h0,
        c0 if net.mode == "LSTM" else None,
        batch_sizes=tuple(packed.batch_sizes.tolist()),
    )
    arriving = (pack_sequence(d_outs).data, torch.cat(d_h, 1), torch.cat(d_c, 1), None, None)
    found = measure("CudnnRnn", node, arriving)
    assert found is not None
    for state in found.states:
        close(state.norms.tolist(), [math.sqrt(v) for v in squares[state.layer, state.reverse]], CLOSE)


def test_dropout_that_only_cudnn_knows_is_told() -> None:
    net = nn.GRU(5, 6, num_layers=2, dropout=0.5)
    x = torch.randn(9, 4, 5)
    out = net(x)[0].detach()
    found = measure("CudnnRnn", as_cudnn(net, x, out), (torch.ones_like(out), None, None, None, None))
    assert found is not None and found.why == through_time.NO_MASKS and len(found.states) == 2
    net.eval()
    found = measure("CudnnRnn", as_cudnn(net, x, out), (torch.ones_like(out), None, None, None, None))
    assert found is not None and found.why is None


def test_half_precision_is_computed_in_float64() -> None:
    net = nn.GRU(5, 6).double()
    x = torch.randn(50, 4, 5).double()
    out, _, _, states = unrolled(net, x)
    (1e-4 * out[-1].sum()).backward()
    half = nn.GRU(5, 6).bfloat16()
    half.load_state_dict(net.state_dict())
    gradient = torch.zeros(50, 4, 6, dtype=torch.bfloat16)
    gradient[-1] = 1e-4
    node = as_cudnn(half, x.bfloat16(), out.detach().bfloat16())
    found = measure("CudnnRnn", node, (gradient, None, None, None, None))
    assert found is not None and found.states[0].norms.dtype == torch.float64
    close(found.states[0].norms.tolist()[-10:], norms(states[0, False])[-10:], 0.1)


def test_a_sample_of_a_large_batch_is_scaled_up_and_says_so() -> None:
    net = nn.GRU(5, 6)
    x = torch.randn(9, 1, 5).expand(9, 64, 5)
    out = net(x)[0].detach()
    arriving = (torch.ones_like(out), None, None, None, None)
    some = measure("CudnnRnn", as_cudnn(net, x, out), arriving)
    whole = measure("CudnnRnn", as_cudnn(net, x, out), arriving, most=None)
    assert some is not None and whole is not None
    assert (some.states[0].samples, whole.states[0].samples) == (MOST_SAMPLES, None)
    close(some.states[0].norms.tolist(), whole.states[0].norms.tolist(), 1e-4)


def test_non_finite_gradients_stay_what_they_are_and_tiny_ones_do_not_vanish() -> None:
    total = torch.tensor(
        [[[1e-300, 1e-300]], [[math.inf, 1.0]], [[math.nan, math.inf]], [[0.0, 0.0]]]
    ).double()
    total[0] = 1e-300
    found = through_time._norms(total).tolist()
    assert found[0] == pytest.approx(math.sqrt(2) * 1e-300) and found[1] == math.inf
    assert math.isnan(found[2]) and found[3] == 0.0


# --- nn.LSTM on the CPU, watched -----------------------------------------------------------------------------


class Reader(nn.Module):
    """An LSTM, and a linear layer over what it gives at all steps (and over its last states)."""

    def __init__(self, last: bool = False, **options: Any) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 6, **options)
        self.head = nn.Linear((self.rnn.proj_size or 6) * (1 + self.rnn.bidirectional), 3)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.rnn(x)
        if self.last:
            return self.head(torch.cat(list(h[-1 - self.rnn.bidirectional :]), -1)) + c.sum()
        return self.head(out)


def loss_of(net: Any, x: Tensor) -> Tensor:
    return net(x).square().mean()


def one_step(net: nn.Module, x: Tensor, loss: Any = loss_of) -> Seen:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)

    def train() -> None:
        loss(net, x).backward()
        optimizer.step()

    return watched(train)


def measured(seen: Seen) -> dict[tuple[str, int, bool], ThroughTime]:
    assert not seen.incidents
    return {(t.module, t.layer, t.reverse): t for t in seen.model.traces[0].through_time}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2},
        {"bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"bias": False},
    ],
)
def test_a_watched_lstm(options: dict[str, Any], last: bool) -> None:
    net = Reader(last, **options)
    x = torch.randn((4, 12, 5) if net.rnn.batch_first else (12, 4, 5))
    found = measured(one_step(net, x))

    twin = Reader(last, **options).double()
    twin.load_state_dict(net.state_dict())
    steps = (x.transpose(0, 1) if net.rnn.batch_first else x).double()
    out, h, c, states = unrolled(twin.rnn, steps)
    directions = 1 + twin.rnn.bidirectional
    made = twin.head(torch.cat(list(h[-directions:]), -1)) + c.sum() if last else twin.head(out)
    made.square().mean().backward()
    assert set(found) == {("rnn", *key) for key in states}
    for key, own in states.items():
        close(found[("rnn", *key)].norms, norms(own), 1e-4)
        assert found[("rnn", *key)].samples is None


def test_dropout_between_the_layers_is_the_one_that_was_drawn() -> None:
    """Each layer is an operation of its own here, which has saved what it really got."""
    net = Reader(num_layers=2, dropout=0.5)
    x = torch.randn(12, 4, 5)
    state = torch.get_rng_state()
    found = measured(one_step(net, x))

    twin = Reader(num_layers=2, dropout=0.5).double()
    twin.load_state_dict(net.state_dict())
    lower = nn.LSTM(5, 6).double()
    lower.load_state_dict({n: v for n, v in twin.rnn.state_dict().items() if n.endswith("l0")})
    upper = nn.LSTM(6, 6).double()
    upper.load_state_dict(
        {n.replace("l1", "l0"): v for n, v in twin.rnn.state_dict().items() if n.endswith("l1")}
    )
    out, _, _, below = unrolled(lower, x.double())
    torch.set_rng_state(state)
    mask = F.dropout(torch.ones(12, 4, 6), 0.5)
    out, _, _, above = unrolled(upper, out * mask)
    twin.head(out).square().mean().backward()
    close(found["rnn", 0, False].norms, norms(below[0, False]), 1e-4)
    close(found["rnn", 1, False].norms, norms(above[0, False]), 1e-4)


def test_layers_are_known_where_others_are_frozen() -> None:
    net = Reader(num_layers=3)
    for name, parameter in net.rnn.named_parameters():
        parameter.requires_grad_("l0" not in name)
    assert set(measured(one_step(net, torch.randn(12, 4, 5)))) == {("rnn", 1, False), ("rnn", 2, False)}


def test_without_a_batch_and_called_twice() -> None:
    net = Reader()
    x = torch.randn(12, 5)
    seen = one_step(net, x, lambda net, x: net(x).square().mean() + 3 * net(x.flip(0)).square().mean())
    assert not seen.incidents
    found = seen.model.traces[0].through_time
    assert [(t.call, len(t.norms)) for t in found] == [(0, 12), (1, 12)]


@pytest.mark.parametrize(("options", "kind"), [({"proj_size": 3}, nn.LSTM), ({}, nn.GRU), ({}, nn.RNN)])
def test_what_is_unrolled_is_left_to_the_operations(options: dict[str, Any], kind: Any) -> None:
    net = nn.Sequential(kind(5, 6, **options))
    seen = one_step(net, torch.randn(12, 4, 5), lambda net, x: net(x)[0].square().mean())
    assert not seen.incidents and seen.model.traces[0].through_time == ()
    assert len(seen.model.traces[0].stats) > 12


def test_closed_forget_gates_show_as_a_fall_by_many_decades() -> None:
    net = Reader(last=True)
    with torch.no_grad():
        net.rnn.bias_ih_l0[6:12] = -4
        net.rnn.bias_hh_l0.zero_()
    x = torch.randn(40, 8, 5)
    found = measured(one_step(net, x, lambda net, x: net(x).square().mean()))["rnn", 0, False].norms
    assert all(later > 2 * earlier > 0 for earlier, later in itertools.pairwise(found[:-1]))
    assert found[-1] / found[0] > 1e30


def test_a_gradient_scaler_is_taken_out() -> None:
    net = Reader()
    x = torch.randn(12, 4, 5)
    plain = measured(one_step(net, x))["rnn", 0, False].norms
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def train() -> None:
        scaler.scale(loss_of(net, x)).backward()
        scaler.step(optimizer)
        scaler.update()

    close(measured(watched(train))["rnn", 0, False].norms, list(plain), 1e-4)


def test_under_autocast() -> None:
    net = Reader()
    x = torch.randn(12, 4, 5)
    plain = measured(one_step(net, x))["rnn", 0, False].norms

    def cast(net: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss_of(net, x).float()

    seen = one_step(net, x, cast)
    assert not seen.incidents
    if any(o.name == "MkldnnRnnLayer" for g in seen.model.graphs.values() for o in g.operations):
        close(measured(seen)["rnn", 0, False].norms, list(plain), 0.1)


@pytest.mark.parametrize("how", ["checkpoint", "save_on_cpu"])
def test_saved_tensors_that_go_through_hooks_are_not_touched(how: str) -> None:
    """A checkpoint hands each of them out once: who asks before the operation does breaks the training."""

    def loss(net: Any, x: Tensor) -> Tensor:
        if how == "checkpoint":
            return checkpoint(net, x, use_reentrant=False).square().mean()  # type: ignore[no-any-return]
        with torch.autograd.graph.save_on_cpu():
            return loss_of(net, x)

    seen = one_step(Reader(), torch.randn(12, 4, 5), loss)
    assert measured(seen) == {}
    assert [(s.what, s.why) for s in seen.skipped] == [(WHAT, PACKED_AWAY)]


def test_a_torch_that_can_t_say_whether_there_are_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C._autograd, "_top_saved_tensors_default_hooks", raising=False)
    assert forward._saving_is_hooked()
    seen = one_step(Reader(), torch.randn(12, 4, 5))
    assert measured(seen) == {} and len(seen.skipped) == 1


@pytest.mark.parametrize("fault", [ValueError("no"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_fault_of_ours_stays_ours(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def broken(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(through_time, "through_time", broken)
    seen = one_step(Reader(), torch.randn(12, 4, 5))
    assert seen.model.traces[0].through_time == ()
    if isinstance(fault, ValueError):
        assert [i.where for i in seen.incidents] == ["backward through time"]
    else:
        assert not seen.incidents and seen.skipped[0].why == through_time.NO_MEMORY


def test_sequences_beyond_reason_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through_time, "MOST_STEPS", 11)
    seen = one_step(Reader(), torch.randn(12, 4, 5))
    assert measured(seen) == {} and seen.skipped[0].what == WHAT


def test_of_very_many_calls_the_last_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through_time, "MOST_CALLS", 2)
    seen = one_step(
        Reader(), torch.randn(12, 4, 5), lambda net, x: sum(loss_of(net, part) for part in x.split(3))
    )
    assert not seen.incidents
    assert [t.call for t in seen.model.traces[0].through_time] == [2, 3]
    assert [s.why for s in seen.skipped] == [through_time.MANY_CALLS]


def test_calls_of_one_step_have_nothing_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through_time, "MOST_CALLS", 2)
    seen = one_step(
        Reader(), torch.randn(12, 4, 5), lambda net, x: sum(loss_of(net, part) for part in x.split(1))
    )
    assert measured(seen) == {} and not seen.skipped


def test_inside_of_a_compiled_model() -> None:
    net = Reader(num_layers=2)
    x = torch.randn(12, 4, 5)
    plain = measured(one_step(net, x))
    compiled: Any = torch.compile(net, backend="eager")
    assert measured(one_step(compiled, x)) == plain
    torch._dynamo.reset()


@pytest.mark.parametrize("anomaly", [False, True])
def test_the_training_is_bit_identical(anomaly: bool) -> None:
    def train(watch: bool) -> tuple[list[bytes], Any]:
        seed(1)
        net = Reader(num_layers=2, bidirectional=True, dropout=0.3)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

        def steps() -> None:
            for _ in range(20):
                optimizer.zero_grad()
                with torch.autograd.set_detect_anomaly(anomaly):
                    loss_of(net, torch.randn(12, 20, 5)).backward()
                optimizer.step()

        if watch:
            seen = watched(steps, every=1)
            assert not seen.incidents and any(t.through_time for t in seen.model.traces)
        else:
            steps()
        return [p.detach().numpy().tobytes() for p in net.parameters()], random_states()

    assert train(watch=True) == train(watch=False)


def test_the_graph_may_be_kept_or_differentiated_again() -> None:
    net = Reader()
    x = torch.randn(12, 4, 5)

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        first = loss_of(net, x)
        first.backward(retain_graph=True)
        return first

    seen = one_step(net, x, loss)
    assert not seen.incidents
    assert [len(t.through_time) for t in seen.model.traces] == [1, 1]
    assert seen.model.traces[0].through_time == seen.model.traces[1].through_time


def test_the_record_keeps_it(tmp_path: Path) -> None:
    net = Reader(num_layers=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with unvanish.watch(net, optimizer, out=tmp_path) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            loss_of(net, torch.randn(12, 40, 5)).backward()
            optimizer.step()
    traces = read_run(Path(watch.path)).models[0].traces
    assert len(traces) >= 4
    for trace in traces:
        found = [(t.module, t.layer, t.reverse, t.call, t.samples, len(t.norms)) for t in trace.through_time]
        assert found == [("rnn", layer, False, 0, MOST_SAMPLES, 12) for layer in (0, 1)]
        assert all(math.isfinite(v) and v > 0 for t in trace.through_time for v in t.norms)
