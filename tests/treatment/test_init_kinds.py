"""What an init draws in every kind of layer, against the formulas of the papers; and a twin in plain torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from treat_models import chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.draw import SEED_MARK, fan_out, init_generator
from unvanish.treatment.operate import apply


def init(target: str = "*", **parameters: object) -> tuple[Prescription, ...]:
    return (Prescription(treatment="init", target=target, parameters=parameters),)  # type: ignore[arg-type]


def size(values: torch.Tensor) -> float:
    return float(values.detach().double().pow(2).mean())


def test_ten_lines_of_plain_torch_draw_the_same() -> None:
    model, twin = chain(5, act=nn.ReLU), chain(5, act=nn.ReLU)
    apply(model, init(scheme="he"), seed=11)
    generator = torch.Generator().manual_seed(11 ^ SEED_MARK)
    layers = [m for m in twin.modules() if isinstance(m, nn.Linear)]
    for layer in layers:
        kind = "linear" if layer is layers[-1] else "relu"
        nn.init.kaiming_normal_(layer.weight, nonlinearity=kind, generator=generator)
        nn.init.zeros_(layer.bias)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_data_that_was_drawn_from_the_same_seed_is_not_found_again_in_the_weights() -> None:
    torch.manual_seed(5)
    data = torch.randn(64, 64)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    apply(model, init("0", scheme="lecun"), seed=5)
    products = data.flatten() * model[0].weight.detach().flatten() * 8.0
    assert abs(float(products.mean())) < 5 / 64  # 64^2 products of two standard normals: the error is 1/64


def test_two_parts_of_a_model_draw_different_numbers() -> None:
    model = nn.Sequential(chain(3), nn.Tanh(), chain(3))
    apply(model, init("0", scheme="lecun") + init("2", scheme="lecun"), seed=1)
    assert not torch.equal(model[0][0].weight, model[2][0].weight)
    assert init_generator(1).initial_seed() != init_generator(1, "0").initial_seed()


def test_an_output_that_is_squashed_takes_hes_init() -> None:
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300), nn.Sigmoid())
    apply(model, init(scheme="he"))
    assert 300 * size(model[2].weight) == pytest.approx(1.0, rel=0.05)


# --- recurrent layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4), (nn.RNNCell, 1), (nn.GRUCell, 3), (nn.LSTMCell, 4)]
)  # fmt: skip
def test_recurrent_matrices_are_orthogonal_gate_by_gate(build: type[nn.Module], gates: int) -> None:
    cell = build(200, 40)
    model = nn.ModuleDict({"cell": cell, "out": nn.Linear(40, 2)})
    apply(model, init(scheme="xavier"), seed=1)
    names = dict(cell.named_parameters())
    recurrent = next(p for n, p in names.items() if n.startswith("weight_hh"))
    for gate in recurrent.detach().chunk(gates):
        assert torch.allclose(gate @ gate.T, torch.eye(40), atol=1e-5)
    inward = next(p for n, p in names.items() if n.startswith("weight_ih"))
    for gate in inward.detach().chunk(gates):  # a map of 200 to 40, not to 40 times the gates
        assert size(gate) == pytest.approx(2 / 240, rel=0.1)
    assert len({float(g[0, 0]) for g in recurrent.detach().chunk(gates)}) == gates


def test_an_lstm_keeps_its_forget_bias_and_nothing_else() -> None:
    model = nn.Sequential(nn.LSTM(4, 8, num_layers=2, bidirectional=True))
    lstm = model[0]
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if "bias" in name:
                parameter.fill_(3.0)
    apply(model, init(scheme="orthogonal"))
    for name, parameter in lstm.named_parameters():
        if "bias" in name:
            i, f, g, o = parameter.detach().chunk(4)
            assert f.tolist() == [3.0] * 8
            assert not torch.cat([i, g, o]).any()


def test_a_rectified_rnn_gets_hes_gain_for_what_comes_in() -> None:
    model = nn.ModuleDict({"rnn": nn.RNN(300, 100, nonlinearity="relu")})
    apply(model, init(scheme="he"))
    assert 300 * size(model["rnn"].weight_ih_l0) == pytest.approx(2.0, rel=0.05)


def test_projected_states_are_drawn_in_their_shapes() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(6, 16, proj_size=4)})
    apply(model, init(scheme="lecun"))
    for gate in model["lstm"].weight_hh_l0.detach().chunk(4):  # [16, 4]: fan_in Var(W) = 1
        assert 4 * size(gate) == pytest.approx(1.0, rel=1e-4)


# --- attention, embeddings --------------------------------------------------------------------------------------


class Attending(nn.Module):
    def __init__(self, size: int = 96, **options: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(size, 4, **options)
        self.head = nn.Linear(size, 2)

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(q, k, k)[0])


def test_queries_keys_and_values_are_maps_of_their_own() -> None:
    model = Attending()
    apply(model, init(scheme="xavier"))
    for part in model.attention.in_proj_weight.detach().chunk(3):
        assert size(part) == pytest.approx(1 / 96, rel=0.05)  # torch's own takes a layer 288 wide: 2 / 384
    assert not model.attention.in_proj_bias.any()
    assert size(model.attention.out_proj.weight) == pytest.approx(1 / 96, rel=0.05)
    apply(model, init(scheme="orthogonal"))
    for part in model.attention.in_proj_weight.detach().chunk(3):
        assert torch.allclose(part @ part.T, torch.eye(96), atol=1e-5)


def test_keys_of_another_size_have_their_own_fan() -> None:
    model = Attending(kdim=200, vdim=300)
    apply(model, init(scheme="lecun"))
    assert size(model.attention.k_proj_weight) == pytest.approx(1 / 200, rel=0.05)
    assert size(model.attention.v_proj_weight) == pytest.approx(1 / 300, rel=0.05)


def test_he_knows_the_activation_inside_of_torchs_own_transformer() -> None:
    model = nn.TransformerEncoderLayer(64, 4, 256, activation="relu")
    apply(nn.ModuleDict({"layer": model}), init(scheme="he"))
    assert 64 * size(model.linear1.weight) == pytest.approx(2.0, rel=0.05)
    assert 256 * size(model.linear2.weight) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("scale", "redrawn"),
    [(1.0, False), (0.02, False), (0.0, False), (1e-6, True), (1e3, True), (math.nan, True)],
)
def test_embeddings_are_left_unless_their_size_is_absurd(scale: float, redrawn: bool) -> None:
    model = nn.ModuleDict({"words": nn.Embedding(300, 16, padding_idx=2), "out": nn.Linear(16, 3)})
    words = model["words"].weight
    with torch.no_grad():
        words.mul_(scale)
    before = words.clone()
    apply(model, init(scheme="lecun"))
    assert torch.equal(words, before) is not redrawn
    if redrawn:
        assert float(words.detach()[3:].norm(dim=1).mean()) == pytest.approx(1.0, rel=0.1)
        assert not words[2].any()


# --- convolutions -----------------------------------------------------------------------------------------------


def test_grouped_convolutions_count_their_own_inputs_and_outputs() -> None:
    layer = nn.Conv2d(64, 128, 3, groups=4)
    assert fan_out(layer) == 32 * 9
    model = nn.Sequential(layer, nn.ReLU(), nn.Conv2d(128, 8, 1))
    apply(model, init(scheme="xavier"))
    assert size(layer.weight) == pytest.approx(2 / (16 * 9 + 32 * 9), rel=0.05)
    apply(model, init(scheme="orthogonal"))
    for group in layer.weight.detach().flatten(1).chunk(4):
        assert torch.allclose(group @ group.T, torch.eye(32), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolutions_keep_the_size_of_the_signal(stride: int) -> None:
    layer = nn.ConvTranspose2d(32, 48, 4, stride=stride, bias=False)
    for scheme in ("lecun", "orthogonal"):
        model = nn.Sequential(layer)
        apply(model, init(scheme=scheme))
        inner = model(torch.randn(4, 32, 16, 16))[:, :, 6:-6, 6:-6]
        assert size(inner) == pytest.approx(1.0, rel=0.15)


# --- bare matrices ----------------------------------------------------------------------------------------------


class Bare(nn.Module):
    """x @ a, then F.linear(x, b), with positions that nothing is multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(7, 200) * 0.3)
        self.a = nn.Parameter(torch.zeros(200, 400))
        self.b = nn.Parameter(torch.zeros(100, 400))
        self.shift = nn.Parameter(torch.zeros(400))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu((x + self.places) @ self.a + self.shift)
        return F.linear(x, self.b)


def test_bare_matrices_are_drawn_by_the_side_that_is_their_input() -> None:
    model = Bare()
    places = model.places.clone()
    apply(model, init(scheme="he"))
    assert 200 * size(model.a) == pytest.approx(2.0, rel=0.05)
    assert 400 * size(model.b) == pytest.approx(1.0, rel=0.05)
    assert torch.equal(model.places, places)
    apply(model, init(scheme="xavier"))
    assert size(model.a) == pytest.approx(2 / 600, rel=0.05)


def test_turned_matrices_are_read_rightly() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(50, 800))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.matmul(x, self.w.t())

    model = Turned()
    apply(model, init(scheme="lecun"))
    assert 800 * size(model.w) == pytest.approx(1.0, rel=0.05)


def test_where_nothing_can_be_traced_the_mean_of_both_sides_serves() -> None:
    class Untraced(Bare):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if float(x.sum()) > -1e9 else x

    model = Untraced()
    apply(model, init(scheme="lecun"))
    assert size(model.a) == pytest.approx(1 / 300, rel=0.05)


# --- critical inits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["normal", "uniform", "orthogonal"])
def test_the_critical_init_takes_the_numbers_of_theory(distribution: str) -> None:
    model = chain(4, width=300, act=nn.Tanh)
    apply(model, init(scheme="critical", gain=1.3, bias_std=0.2, distribution=distribution))
    for layer in list(model)[:-1:2]:
        assert 300 * size(layer.weight) == pytest.approx(1.69, rel=0.05)
        assert math.sqrt(size(layer.bias)) == pytest.approx(0.2, rel=0.2)
    with pytest.raises(SurgeryError, match="needs its gain"):
        apply(model, init(scheme="critical"))


def test_the_centred_init_takes_any_activations_mean_away() -> None:
    model = chain(4, width=64, act=nn.Softplus)
    apply(model, init(scheme="critical_centred", gain=2.0, offset=math.log(2)))
    for layer in list(model)[2::2]:
        assert layer(torch.full((1, 64), math.log(2))).abs().max() < 1e-5
        assert 64 * size(layer.weight) == pytest.approx(4.0, rel=1e-4) or layer is model[-1]
    with pytest.raises(SurgeryError, match="plain chain"):
        apply(chain(4, act=nn.Softplus), init(scheme="critical_centred"))


def test_frozen_parts_and_ties_are_kept_to() -> None:
    model = nn.ModuleDict({"a": nn.LSTM(4, 4), "b": nn.LSTM(4, 4), "out": nn.Linear(4, 4)})
    model["a"].weight_hh_l0.requires_grad_(False)
    model["b"].weight_ih_l0 = model["a"].weight_ih_l0
    frozen = model["a"].weight_hh_l0.clone()
    apply(model, init(scheme="xavier"), seed=3)
    assert torch.equal(model["a"].weight_hh_l0, frozen)
    assert model["b"].weight_ih_l0 is model["a"].weight_ih_l0


def test_bare_kernels_are_drawn_by_their_fan() -> None:
    class Kernels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernels = nn.ParameterList(
                [nn.Parameter(torch.zeros(60, 40, 3, 3)), nn.Parameter(torch.zeros(60, 60, 5))]
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(F.conv2d(x, self.kernels[0], padding=1))
            return F.conv1d(x.mean(-1), self.kernels[1])

    model = Kernels()
    apply(model, init(scheme="he"))
    assert 40 * 9 * size(model.kernels[0]) == pytest.approx(2.0, rel=0.05)
    assert 60 * 5 * size(model.kernels[1]) == pytest.approx(1.0, rel=0.05)
    apply(model, init(scheme="orthogonal"))
    rows = model.kernels[1].detach().flatten(1)
    assert torch.allclose(rows @ rows.T / (rows @ rows.T).diagonal().mean(), torch.eye(60), atol=1e-4)
