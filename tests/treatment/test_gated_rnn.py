"""Gated cells in the place of plain ones: same call, carried state, drawn weights."""

from __future__ import annotations

import copy
import gc
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from treat_models import Elman, Stepwise, Strict, chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply
from unvanish.treatment.recurrent import RNNCellStyleLSTM, RNNStyleLSTM


def gated(target: str = "*", **parameters: object) -> tuple[Prescription, ...]:
    return (Prescription(treatment="gated_rnn", target=target, parameters=parameters),)  # type: ignore[arg-type]


class Whole(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 5, **options)  # type: ignore[arg-type]

    def forward(self, *args: object) -> object:
        return self.rnn(*args)


OPTIONS = [
    {}, {"num_layers": 2, "dropout": 0.3}, {"bidirectional": True}, {"batch_first": True, "bias": False},
    {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True, "batch_first": True},
]  # fmt: skip


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_called_as_before_and_gives_what_torchs_own_gives(
    cell: str, options: dict[str, object]
) -> None:
    model = Whole(**options)
    plain = model.rnn
    apply(model, gated(cell=cell), seed=1)
    model.eval()
    x, h0 = torch.randn(4, 6, 3), None
    expected_shapes = [t.shape for t in plain(x)]
    twin = (nn.GRU if cell == "gru" else nn.LSTM)(
        3,
        5,
        **{k: v for k, v in options.items() if k != "nonlinearity"},  # type: ignore[arg-type]
    ).eval()
    twin.load_state_dict(model.rnn.state_dict())
    for state in (None, torch.randn_like(plain(x)[1])):
        h0 = state
        output, last = model(x) if h0 is None else model(x, h0)
        assert [output.shape, last.shape] == expected_shapes
        given = h0 if cell == "gru" or h0 is None else (h0, torch.zeros_like(h0))
        wanted, end = twin(x, given)
        assert torch.equal(output, wanted)
        assert torch.equal(last, end if cell == "gru" else end[0])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_packed_sequences_and_unbatched_ones_work(cell: str) -> None:
    model = Whole(batch_first=True, bidirectional=True)
    apply(model, gated(cell=cell))
    parts = [torch.randn(n, 3) for n in (2, 5, 3)]
    output, _ = model(pack_sequence(parts, enforce_sorted=False))
    padded, lengths = pad_packed_sequence(output, batch_first=True)
    for row, part, length in zip(padded, parts, lengths, strict=True):
        alone, _ = model(part)
        assert torch.allclose(row[:length], alone, atol=1e-6)


@pytest.mark.parametrize("handed", [lambda h: h, torch.Tensor.detach, lambda h: h.detach().clone()])
def test_an_lstm_carries_its_cell_state_over_chunks(handed: object) -> None:
    torch.manual_seed(0)
    model = Whole(batch_first=True)
    apply(model, gated(cell="lstm"))
    x = torch.randn(4, 30, 3)
    whole, _ = model(x)
    first, h = model(x[:, :10])
    second, h = model(x[:, 10:20], handed(h))  # type: ignore[operator]
    third, _ = model(x[:, 20:], handed(h))  # type: ignore[operator]
    assert torch.allclose(torch.cat([first, second, third], 1), whole, atol=1e-6)
    fresh, _ = model(x[:, 10:20], torch.zeros(1, 4, 5))
    assert not torch.allclose(fresh, second, atol=1e-3)


def test_a_changed_state_starts_with_a_cell_state_of_zero() -> None:
    cell = RNNCellStyleLSTM(2, 3)
    h = cell(torch.randn(4, 2))
    h_before = h.detach().clone()
    with torch.no_grad():
        h[0] = 0
    assert not cell.cells.recall(h).any()
    assert not cell.cells.recall(torch.zeros(4, 3)).any()
    assert not cell.cells.recall(torch.zeros(2, 3)).any()
    assert not torch.equal(h, h_before)


def test_an_lstm_cell_in_a_loop_is_torchs_own_with_its_gradient() -> None:
    torch.manual_seed(0)
    model = Stepwise()
    apply(model, gated(cell="lstm"))
    twin = nn.LSTMCell(2, 6)
    twin.load_state_dict(model.cell.state_dict())
    x = torch.randn(5, 8)
    state = (torch.zeros(5, 6), torch.zeros(5, 6))
    for t in range(4):
        state = twin(x.view(5, 4, 2)[:, t], state)
    wanted = model.head(state[0])
    got = model(x)
    assert torch.equal(got, wanted)
    got.sum().backward()
    wanted.sum().backward()
    assert torch.allclose(model.cell.weight_hh.grad, twin.weight_hh.grad, atol=1e-6)


def test_remembered_states_do_not_pile_up() -> None:
    model = Stepwise()
    apply(model, gated(cell="lstm"))

    def tensors(rounds: int) -> int:
        for _ in range(rounds):
            model(torch.randn(5, 8))  # no backward pass frees these graphs
        gc.collect()
        return sum(type(o) is torch.Tensor for o in gc.get_objects())

    assert tensors(3) == tensors(12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_weights_are_drawn_as_torch_does_with_orthogonal_recurrence_and_open_gates(cell: str) -> None:
    torch.manual_seed(0)
    model, size = Whole(), 64
    model.rnn = nn.RNN(32, size, num_layers=2, bidirectional=True)
    before = torch.get_rng_state()
    apply(model, gated(cell=cell, forget_bias=1.5), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    bound = 1 / math.sqrt(size)
    for name, p in model.rnn.named_parameters():
        value = p.detach()
        if name.startswith("weight_hh"):
            for block in value.split(size):
                assert torch.allclose(block @ block.T, torch.eye(size), atol=1e-5)
        elif name.startswith("weight_ih"):
            assert value.abs().max() <= bound
            assert float(value.var()) == pytest.approx(bound**2 / 3, rel=0.1)
        elif name.startswith("bias_ih"):
            total = value + model.rnn.get_parameter(name.replace("_ih", "_hh")).detach()
            assert torch.allclose(total[size : 2 * size], torch.full((size,), 1.5))
            assert float(total[:size].abs().max()) <= 2 * bound
    other = Whole()
    other.rnn = nn.RNN(32, size, num_layers=2, bidirectional=True)
    apply(other, gated(cell=cell, forget_bias=1.5), seed=3)
    assert torch.equal(model.rnn.weight_hh_l1, other.rnn.weight_hh_l1)
    assert not torch.equal(model.rnn.weight_hh_l0, model.rnn.weight_hh_l1)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_what_is_gated_already_gets_its_gate_biases_alone(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    model = Elman(kind, num_layers=2)
    old = {k: v.clone() for k, v in model.state_dict().items()}
    done = apply(model, gated(forget_bias=2.0))
    assert type(model.rnn) is kind
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, old[k])}
    assert changed == {"rnn.bias_hh_l0", "rnn.bias_hh_l1"}
    gate = slice(6, 12)
    for layer in ("l0", "l1"):
        total = model.rnn.get_parameter(f"bias_ih_{layer}") + model.rnn.get_parameter(f"bias_hh_{layer}")
        assert torch.allclose(total[gate], torch.full((6,), 2.0))
        kept = model.rnn.get_parameter(f"bias_hh_{layer}")
        assert torch.equal(kept[12:], old[f"rnn.bias_hh_{layer}"][12:])
    done.undo()
    assert all(torch.equal(v, old[k]) for k, v in model.state_dict().items())


def test_the_forget_gate_is_what_the_bias_opens() -> None:
    """With no input and no recurrent weights, a cell state fades by sigmoid(bias) per step."""
    model = Whole(batch_first=True)
    model.rnn = nn.LSTM(3, 5, batch_first=True)  # type: ignore[assignment]
    apply(model, gated(forget_bias=1.0))
    with torch.no_grad():
        model.rnn.weight_hh_l0.zero_()
        for bias in (model.rnn.bias_ih_l0, model.rnn.bias_hh_l0):
            bias[10:15] = 0  # the candidate: nothing new comes in
    _, (_, c) = model.rnn(torch.zeros(1, 4, 3), (torch.zeros(1, 1, 5), torch.ones(1, 1, 5)))
    assert torch.allclose(c, torch.full((1, 1, 5), torch.tensor(1.0).sigmoid().item() ** 4))


def test_new_weights_take_the_group_of_their_namesakes() -> None:
    model = Elman()
    decayed = [p for n, p in model.named_parameters() if "bias" not in n]
    rest = [p for n, p in model.named_parameters() if "bias" in n]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": rest, "weight_decay": 0.0}])
    apply(model, gated(cell="gru"), optimizer=optimizer)
    inside = [{id(p) for p in g["params"]} for g in optimizer.param_groups]
    for name, parameter in model.named_parameters():
        assert id(parameter) in inside["bias" in name], name
    assert sum(map(len, inside)) == len(list(model.parameters()))


def test_copies_and_pickles_start_without_a_remembered_state() -> None:
    model = Whole()
    apply(model, gated(cell="lstm"))
    x = torch.randn(4, 2, 3)
    output, h = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert isinstance(twin.rnn, RNNStyleLSTM)
        assert torch.equal(twin(x)[0], output)
        assert not twin.rnn.cells.recall(torch.randn(1, 2, 5)).any()
    assert model.rnn.cells.recall(h).any()


def test_hooks_of_the_script_hear_the_new_module() -> None:
    model = Whole()
    heard: list[type] = []
    handle = model.rnn.register_forward_hook(lambda m, _i, _o: heard.append(type(m)))
    apply(model, gated(cell="gru"))
    model(torch.randn(4, 2, 3))
    handle.remove()
    model(torch.randn(4, 2, 3))
    assert heard == [nn.GRU]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (chain, "no nn.RNN, nn.GRU or nn.LSTM"),
        (Strict, "no nn.RNN, nn.GRU or nn.LSTM"),
        (lambda: Elman(nn.GRU, bias=False), "no bias that could open a gate"),
    ],
)
def test_what_is_not_there_is_not_exchanged(build: object, said: str) -> None:
    with pytest.raises(SurgeryError, match=said) as caught:
        apply(build(), gated(cell="gru"))  # type: ignore[operator]
    assert caught.value.mend


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("build", [lambda: nn.RNN(3, 5, batch_first=True), lambda: nn.RNNCell(3, 5)])
def test_a_model_that_is_one_recurrent_module_becomes_another(build: object, cell: str) -> None:
    torch.manual_seed(0)
    model, head = build(), nn.Linear(5, 1)  # type: ignore[operator]
    kind, values, x = type(model), copy.deepcopy(model.state_dict()), torch.randn(4, 3)
    x = x if kind is nn.RNNCell else x[:, None]
    before = model(x)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.1)
    held = [id(p) for p in optimizer.param_groups[0]["params"]]
    done: list[object] = []
    model.register_forward_pre_hook(
        lambda m, _a: (
            done.append(apply(m, gated(cell=cell), optimizer=optimizer, seed=1)) if not done else None
        )
    )
    first = model(x)  # treated in the middle of this very call
    again = model(x)
    state = [first, again] if kind is nn.RNNCell else [first[1], again[1]]
    assert torch.equal(*state)
    assert type(model) is not kind
    assert {id(p) for p in model.parameters()} <= {id(p) for p in optimizer.param_groups[0]["params"]}
    head(state[1]).sum().backward()
    optimizer.step()
    done[0].undo()  # type: ignore[attr-defined]
    assert type(model) is kind
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == held
    assert all(torch.equal(v, values[k]) for k, v in model.state_dict().items())
    after = model(x)
    assert torch.equal(after, before) if kind is nn.RNNCell else torch.equal(after[1], before[1])


def test_a_class_of_the_users_own_is_left_alone() -> None:
    class Own(nn.RNN):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(x)[0]

    with pytest.raises(SurgeryError, match=r"no nn\.RNN"):
        apply(nn.Sequential(Own(3, 5), nn.Linear(5, 1)), gated(cell="gru"))
