"""What a traced step measures, against an obvious float64 twin: the same net with every intermediate kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from watching import at, grad, norm, only_one, operations, rms, seed, std, watched, weights_at

from unvanish.schema.run import ModelRun

CLOSE = 1e-10


@pytest.fixture(autouse=True)
def _double() -> Any:
    torch.set_default_dtype(torch.float64)
    seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def close(value: float | None, expected: float) -> None:
    assert value == pytest.approx(expected, rel=CLOSE)


def keep(*tensors: Tensor) -> Tensor:
    for tensor in tensors:
        tensor.retain_grad()
    return tensors[0]


def one_step(module: nn.Module, *inputs: Any, target: Tensor, loss: Any = F.cross_entropy) -> ModelRun:
    """Watch one SGD step of `module`, which leaves its gradients behind."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)

    def train() -> None:
        loss(module(*inputs), target).backward()
        optimizer.step()

    seen = watched(train)
    assert not seen.incidents
    return seen.model


def fresh(module: nn.Module) -> None:
    module.zero_grad(set_to_none=True)


# --- a plain chain ------------------------------------------------------------------------------------------


def test_sequential_mlp() -> None:
    net = nn.Sequential(nn.Linear(7, 6), nn.Sigmoid(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(11, 7), torch.randint(3, (11,))
    run = one_step(net, x, target=y)

    fresh(net)
    first, second, third = net[0], net[2], net[4]
    z1 = keep(F.linear(x, first.weight, first.bias))
    h1 = keep(torch.sigmoid(z1))
    z2 = keep(F.linear(h1, second.weight, second.bias))
    h2 = keep(torch.tanh(z2))
    z3 = keep(F.linear(h2, third.weight, third.bias))
    loss = F.cross_entropy(z3, y)
    loss.backward()

    for path, layer, z in (("0", first, z1), ("2", second, z2), ("4", third, z3)):
        stats = only_one(at(run, path))
        close(stats.norm, grad(z))
        close(stats.absmax, float(z.grad.abs().max()))
        assert stats.count == z.numel()
        assert stats.zeros == stats.nonfinite == 0
        close(stats.output_std, std(z))
        close(stats.output_rms, rms(z))
        assert stats.output_count == z.numel()
        (_, _, weight), (_, _, bias) = (
            weights_at(run, f"{path}.weight")[0],
            weights_at(run, f"{path}.bias")[0],
        )
        close(weight, grad(layer.weight))
        close(bias, grad(layer.bias))
    for path, h, z in (("1", h1, z1), ("3", h2, z2)):
        stats = only_one(at(run, path))
        close(stats.norm, grad(h))
        close(stats.edge_norms[0], grad(z))
        assert stats.units is None  # a sigmoid never closes a unit
    close(only_one(at(run, "2")).edge_norms[0], grad(h1))
    assert run.traces[0].loss == pytest.approx(float(loss.detach()), rel=1e-14)
    output = run.traces[0].output
    assert output is not None
    assert operations(run)[output].module == "4"


def test_shapes_and_kinds_of_a_chain() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 2))
    run = one_step(net, torch.randn(5, 4), target=torch.randint(2, (5,)))
    kinds = [(o.module, o.kind, o.module_class) for o in operations(run)]
    assert kinds[:4] == [
        ("0", "weight", "Linear"),
        ("1", "activation", "ReLU"),
        ("2", "norm", "LayerNorm"),
        ("3", "weight", "Linear"),
    ]
    assert kinds[-1][1] == "loss"
    assert all(o.index == i for i, o in enumerate(operations(run)))
    assert all(p < o.index for o in operations(run) for p in o.parents)


def test_functional_net_with_raw_parameters() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1, self.b1 = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(6))
            self.w2 = nn.Parameter(torch.randn(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(F.linear(x, self.w1, self.b1)) @ self.w2

    net = Net()
    x, y = torch.randn(9, 4), torch.randint(3, (9,))
    run = one_step(net, x, target=y)

    fresh(net)
    z1 = keep(F.linear(x, net.w1, net.b1))
    h1 = keep(torch.tanh(z1))
    z2 = keep(h1 @ net.w2)
    F.cross_entropy(z2, y).backward()

    for parameter, z in (("w1", z1), ("b1", z1), ("w2", z2)):
        ((operation, stats, share),) = weights_at(run, parameter)
        assert operation.module == ""
        close(stats.norm, grad(z))
        close(share, grad(getattr(net, parameter)))
    tanh = only_one(at(run, "", "Tanh"))
    close(tanh.norm, grad(h1))
    close(tanh.edge_norms[0], grad(z1))


def test_loose_tensors_without_a_module() -> None:
    w1 = torch.randn(5, 4, requires_grad=True)
    w2 = torch.randn(3, 5, requires_grad=True)
    optimizer = torch.optim.SGD([w1, w2], lr=0.0)
    x, y = torch.randn(8, 4), torch.randn(8, 3)

    def train() -> None:
        loss = ((torch.relu(x @ w1.t()) @ w2.t() - y) ** 2).mean()
        loss.backward()
        optimizer.step()

    seen = watched(train)
    run = seen.model
    assert [p.name for p in run.info.parameters] == ["w1", "w2"]
    assert any("modules" in s.what for s in seen.skipped)

    w1.grad = w2.grad = None
    z1 = keep(x @ w1.t())
    h1 = keep(torch.relu(z1))
    z2 = keep(h1 @ w2.t())
    ((z2 - y) ** 2).mean().backward()
    for parameter, tensor, z in (("w1", w1, z1), ("w2", w2, z2)):
        ((operation, stats, share),) = weights_at(run, parameter)
        assert operation.kind == "weight"
        close(stats.norm, grad(z))
        close(share, grad(tensor))
    output = run.traces[0].output
    assert output is not None
    assert operations(run)[output].parameters == ("w2",)


# --- convolutions, norms, gates -------------------------------------------------------------------------------


class SmallConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        x = F.max_pool2d(self.act(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


def test_small_cnn_with_batch_norm_and_in_place_relu() -> None:
    net = SmallConv()
    with torch.no_grad():
        net.conv2.bias[1] = -100.0  # one channel that no sample opens
        net.bn1.bias[3] = -100.0
    x, y = torch.randn(4, 2, 6, 6), torch.randint(3, (4,))
    run = one_step(net, x, target=y)

    fresh(net)
    c1 = keep(net.conv1(x))
    n1 = keep(F.batch_norm(c1, None, None, net.bn1.weight, net.bn1.bias, training=True))
    h1 = keep(torch.relu(n1))
    c2 = keep(net.conv2(h1))
    h2 = keep(torch.relu(c2))
    z = keep(net.fc(F.max_pool2d(h2, 2).flatten(1)))
    F.cross_entropy(z, y).backward()

    for path, tensor in (("conv1", c1), ("bn1", n1), ("conv2", c2), ("fc", z)):
        stats = next(s for s in at(run, path) if s.norm)
        close(stats.norm, grad(tensor))
    for path, tensor in (("conv1", c1), ("conv2", c2), ("fc", z)):
        stats = next(s for s in at(run, path) if s.output_std is not None)
        close(stats.output_std, std(tensor))
    for call, h, before in ((0, h1, n1), (1, h2, c2)):
        stats = only_one(at(run, "act", "Relu", call=call))
        close(stats.norm, grad(h))
        close(stats.edge_norms[0], grad(before))
        reached = h.grad.abs().amax(dim=(0, 2, 3)) > 0
        shut = reached & (before.grad.abs().amax(dim=(0, 2, 3)) == 0)
        assert (stats.units, stats.closed_units) == (int(reached.sum()), int(shut.sum()))
        assert int(shut.sum()) == 1
    for parameter in (
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "conv2.weight",
        "conv2.bias",
        "fc.weight",
        "fc.bias",
    ):
        ((_, _, share),) = weights_at(run, parameter)
        close(share, grad(net.get_parameter(parameter)))


def test_units_of_a_gate_are_counted_in_its_last_dimension_behind_a_linear_layer() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        net[0].bias[:2] = -1e3
    run = one_step(net, torch.randn(3, 7, 4), target=torch.randn(3, 7, 2), loss=F.mse_loss)
    gate = only_one(at(run, "1"))
    assert (gate.units, gate.closed_units) == (5, 2)


def test_residual_net_has_the_factor_of_the_sum() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.tanh(self.inner(x))

    net = nn.Sequential(nn.Linear(4, 6), Block(), Block(), nn.Linear(6, 3))
    x, y = torch.randn(9, 4), torch.randint(3, (9,))
    run = one_step(net, x, target=y)

    fresh(net)
    h0 = keep(net[0](x))
    z1 = keep(net[1].inner(h0))
    a1 = keep(torch.tanh(z1))
    h1 = keep(h0 + a1)
    z2 = keep(net[2].inner(h1))
    a2 = keep(torch.tanh(z2))
    h2 = keep(h1 + a2)
    F.cross_entropy(net[3](h2), y).backward()

    for block, z, a, h in (("1", z1, a1, h1), ("2", z2, a2, h2)):
        add = only_one(at(run, block, "Add"))
        assert operations(run)[add.operation].kind == "skip"
        close(add.norm, grad(h))
        for edge in add.edge_norms:
            close(edge, grad(h))  # a sum hands the same signal to both
        tanh = only_one(at(run, block, "Tanh"))
        close(tanh.norm, grad(a))
        close(tanh.edge_norms[0], grad(z))
        inner = only_one(at(run, f"{block}.inner"))
        (into,) = torch.autograd.grad(F.linear(h, net[int(block)].inner.weight), h, z.grad)
        close(inner.edge_norms[0], norm(into))  # of the branch alone, before it joins the skip's share
    close(only_one(at(run, "0")).norm, grad(h0))


# --- the same weight again ------------------------------------------------------------------------------------


def test_rnn_time_steps() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.RNN(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0][:, -1])

    net, T = Net(), 6
    x, y = torch.randn(8, T, 3), torch.randint(2, (8,))
    run = one_step(net, x, target=y)

    fresh(net)
    rnn, h = net.rnn, torch.zeros(8, 5)
    zs: list[Tensor] = []
    hs: list[Tensor] = []
    for t in range(T):
        z = keep(
            F.linear(x[:, t], rnn.weight_ih_l0, rnn.bias_ih_l0)
            + F.linear(h, rnn.weight_hh_l0, rnn.bias_hh_l0)
        )
        h = keep(torch.tanh(z))
        zs.append(z)
        hs.append(h)
    F.cross_entropy(net.out(h), y).backward()

    tanhs = at(run, "rnn", "Tanh")
    assert len(tanhs) == T
    for stats, z, h in zip(tanhs, zs, hs, strict=True):
        close(stats.norm, grad(h))
        close(stats.edge_norms[0], grad(z))
    uses = weights_at(run, "rnn.weight_hh_l0")
    assert len(uses) == T
    for t, (_, stats, share) in enumerate(uses):
        close(stats.norm, grad(zs[t]))
        before = hs[t - 1] if t else torch.zeros(8, 5)
        close(share, norm(zs[t].grad.t() @ before))


def test_one_module_used_twice() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice, self.out = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.twice(torch.tanh(self.twice(x)))))

    net = Net()
    x, y = torch.randn(7, 5), torch.randint(2, (7,))
    run = one_step(net, x, target=y)

    fresh(net)
    first, second = keep(net.twice.weight * 1), keep(net.twice.weight * 1)
    z1 = keep(F.linear(x, first, net.twice.bias))
    z2 = keep(F.linear(torch.tanh(z1), second, net.twice.bias))
    F.cross_entropy(net.out(torch.tanh(z2)), y).backward()

    uses = weights_at(run, "twice.weight")
    assert [operation.call for operation, _, _ in uses] == [0, 1]
    for (_, stats, share), z, weight in zip(uses, (z1, z2), (first, second), strict=True):
        close(stats.norm, grad(z))
        close(share, grad(weight))
        close(stats.output_std, std(z))


def test_tied_embedding_and_output() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 5), nn.Linear(5, 6, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.embed(x)))

    net = Net()
    x, y = torch.randint(6, (9,)), torch.randint(6, (9,))
    run = one_step(net, x, target=y)
    assert [p.name for p in run.info.parameters] == ["embed.weight"]

    fresh(net)
    table, head = keep(net.embed.weight * 1), keep(net.embed.weight * 1)
    e = keep(F.embedding(x, table))
    z = keep(F.linear(torch.tanh(e), head))
    F.cross_entropy(z, y).backward()
    (into, below, lower), (out, above, upper) = weights_at(run, "embed.weight")
    assert (into.module, out.module) == ("embed", "out")
    close(below.norm, grad(e))
    close(above.norm, grad(z))
    close(lower, grad(table))
    close(upper, grad(head))


# --- attention -------------------------------------------------------------------------------------------------


def test_transformer_encoder_layer() -> None:
    d, heads = 8, 2
    layer = nn.TransformerEncoderLayer(d, heads, 12, dropout=0.0, batch_first=True)
    net = nn.Sequential(layer, nn.Linear(d, 3))
    x, y = torch.randn(4, 5, d), torch.randn(4, 5, 3)
    run = one_step(net, x, target=y, loss=F.mse_loss)

    fresh(net)
    attention = layer.self_attn
    qkv = keep(F.linear(x, attention.in_proj_weight, attention.in_proj_bias))
    q, k, v = (t.view(4, 5, heads, d // heads).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
    mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(d // heads), dim=-1) @ v
    out = keep(attention.out_proj(mixed.transpose(1, 2).reshape(4, 5, d)))
    n1 = keep(layer.norm1(x + out))
    z1 = keep(layer.linear1(n1))
    z2 = keep(layer.linear2(torch.relu(z1)))
    n2 = keep(layer.norm2(n1 + z2))
    final = keep(net[1](n2))
    F.mse_loss(final, y).backward()

    for parameter, z in (
        ("0.self_attn.in_proj_weight", qkv),
        ("0.self_attn.out_proj.weight", out),
        ("0.linear1.weight", z1),
        ("0.linear2.weight", z2),
        ("1.weight", final),
    ):
        ((operation, stats, share),) = weights_at(run, parameter)
        assert operation.kind == "weight"
        close(stats.norm, grad(z))
        close(share, grad(net.get_parameter(parameter)))
    for path, n in (("0.norm1", n1), ("0.norm2", n2)):
        close(only_one(at(run, path)).norm, grad(n))
    for path, z in (("0.linear1", z1), ("0.linear2", z2), ("1", final)):
        close(next(s for s in at(run, path) if s.output_std is not None).output_std, std(z))


def test_a_parameter_that_is_expanded_gets_its_own_gradient_norm() -> None:
    """The class token of a vision transformer: one row, spread over the batch before it enters."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.out = nn.Parameter(torch.randn(1, 1, 4)), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
            return self.out(torch.tanh(h).mean(1))

    net = Net()
    x, y = torch.randn(6, 3, 4), torch.randint(2, (6,))
    run = one_step(net, x, target=y)
    ((_, _, share),) = weights_at(run, "token")
    assert share is None or share == pytest.approx(grad(net.token), rel=CLOSE)


# --- what comes out of a model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tuple", "dict", "list"])
def test_outputs_that_are_no_tensor(form: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Any:
            hidden = torch.tanh(self.body(x))
            logits = self.head(hidden)
            return {
                "tuple": (logits, hidden),
                "list": [logits, hidden],
                "dict": {"logits": logits, "h": hidden},
            }[form]

    net = Net()
    x, y = torch.randn(8, 4), torch.randint(3, (8,))

    def loss(out: Any, target: Tensor) -> Tensor:
        logits, hidden = out.values() if isinstance(out, dict) else out
        return F.cross_entropy(logits, target) + 0.1 * hidden.square().mean()

    run = one_step(net, x, target=y, loss=loss)
    fresh(net)
    z1 = keep(net.body(x))
    hidden = keep(torch.tanh(z1))
    logits = keep(net.head(hidden))
    loss((logits, hidden), y).backward()
    close(only_one(at(run, "body")).norm, grad(z1))
    close(only_one(at(run, "", "Tanh")).norm, grad(hidden))  # both ways into the loss, added up
    close(only_one(at(run, "head")).norm, grad(logits))
    close(only_one(at(run, "body")).output_std, std(z1))


def test_encoder_and_decoder_called_apart_are_one_model() -> None:
    class Auto(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(6, 3), nn.Tanh())
            self.decoder = nn.Linear(3, 6)

    auto = Auto()
    optimizer = torch.optim.SGD(auto.parameters(), lr=0.0)
    x = torch.randn(9, 6)

    def train() -> None:
        code = auto.encoder(x)
        F.mse_loss(auto.decoder(code), x).backward()
        optimizer.step()

    run = watched(train).model
    assert run.info.name == "auto"
    assert run.info.parameters[0].name == "encoder.0.weight"

    fresh(auto)
    z1 = keep(auto.encoder[0](x))
    z2 = keep(auto.decoder(torch.tanh(z1)))
    F.mse_loss(z2, x).backward()
    close(only_one(at(run, "encoder.0")).norm, grad(z1))
    close(only_one(at(run, "decoder")).norm, grad(z2))


# --- two models in one script --------------------------------------------------------------------------------------


class Pair:
    """Generator and discriminator in the order of the well-known DCGAN script: the fake is made once, for both."""

    def __init__(self) -> None:
        self.generator = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))
        self.discriminator = nn.Sequential(nn.Linear(4, 7), nn.LeakyReLU(0.2), nn.Linear(7, 1))
        self.opt_g = torch.optim.SGD(self.generator.parameters(), lr=0.01)
        self.opt_d = torch.optim.SGD(self.discriminator.parameters(), lr=0.01)
        self.losses: dict[str, list[float]] = {"g": [], "d": []}

    def train(self, steps: int) -> None:
        generator, discriminator = self.generator, self.discriminator
        for _ in range(steps):
            real, noise = torch.randn(8, 4), torch.randn(8, 3)
            fake = generator(noise)
            self.opt_d.zero_grad()
            loss_d = F.binary_cross_entropy_with_logits(discriminator(real), torch.ones(8, 1))
            loss_d = loss_d + F.binary_cross_entropy_with_logits(
                discriminator(fake.detach()), torch.zeros(8, 1)
            )
            loss_d.backward()
            self.opt_d.step()
            self.opt_g.zero_grad()
            loss_g = F.binary_cross_entropy_with_logits(discriminator(fake), torch.ones(8, 1))
            loss_g.backward()
            self.opt_g.step()
            self.losses["d"].append(float(loss_d.detach()))
            self.losses["g"].append(float(loss_g.detach()))


def test_generator_and_discriminator_are_kept_apart() -> None:
    pair = Pair()
    seen = watched(lambda: pair.train(3), every=1)
    assert not seen.incidents
    assert {m.info.name for m in seen.models} == {"generator", "discriminator"}
    g, d = seen.named("generator"), seen.named("discriminator")
    assert list(g.losses) == pytest.approx(pair.losses["g"], rel=1e-14)
    assert list(d.losses) == pytest.approx(pair.losses["d"], rel=1e-14)
    assert list(g.steps) == list(d.steps) == [0, 1, 2]
    for run in (g, d):
        assert [t.step for t in run.traces] == [0, 1, 2]
        for trace in range(3):
            found = {
                o.module for o in operations(run, trace=trace) if o.kind == "weight" and o.module is not None
            }
            assert found == {"0", "2"}, f"{run.info.name}, step {trace}"
            output = run.traces[trace].output
            assert output is not None
            assert operations(run, trace=trace)[output].module == "2"


def test_numbers_of_the_generator_are_its_own() -> None:
    pair = Pair()
    state = {k: v.clone() for k, v in pair.generator.state_dict().items()}
    seed(5)
    run = watched(lambda: pair.train(1)).named("generator")

    pair.generator.load_state_dict(state)
    fresh(pair.generator)
    seed(5)
    _real, noise = torch.randn(8, 4), torch.randn(8, 3)
    z1 = keep(pair.generator[0](noise))
    z2 = keep(pair.generator[2](torch.tanh(z1)))
    F.binary_cross_entropy_with_logits(pair.discriminator(z2), torch.ones(8, 1)).backward()
    close(only_one(at(run, "0")).norm, grad(z1))
    close(only_one(at(run, "2")).norm, grad(z2))
    close(only_one(at(run, "0")).output_std, std(z1))


def test_same_class_and_same_layer_names_stay_apart() -> None:
    nets = [nn.Sequential(nn.Linear(3, 2)) for _ in range(2)]
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1) for n in nets]
    x, y = torch.randn(4, 3), torch.randn(4, 2)

    def train() -> None:
        for net, optimizer in zip(list(nets), optimizers, strict=True):
            F.mse_loss(net(x), y).backward()
            optimizer.step()

    seen = watched(train)
    names = [m.info.name for m in seen.models]
    assert len(set(names)) == 2
    for run, net in zip(seen.models, nets, strict=True):
        ((_, _, share),) = weights_at(run, "0.weight")
        close(share, grad(net[0].weight))
