"""`unvanish.explain` of a model at hand, against autograd in float64; and that it leaves everything as it was."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish
from unvanish.errors import UsageError

sys.path.insert(0, str(Path(__file__).parent))
from test_chain import NETS


def batch_for(size: int = 6, samples: int = 9) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, size, dtype=torch.float64), torch.randint(3, (samples,))


@pytest.mark.parametrize("name", NETS)
def test_the_factors_multiply_to_autograds_gradient(name: str) -> None:
    torch.manual_seed(1)
    net = NETS[name]().double()
    batch = batch_for()
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    exact = 0
    for parameter, tensor in net.named_parameters():
        chain = unvanish.explain(net, batch, F.cross_entropy, parameter=parameter).chain
        product = chain.output_norm * math.prod(f.gain for f in chain.factors)
        assert product == pytest.approx(chain.signal_norm, rel=1e-10)
        assert sum(f.decades for f in chain.factors) == pytest.approx(chain.decades, abs=1e-9)
        for factor in chain.factors:
            assert factor.bound is None or factor.gain <= factor.bound * (1 + 1e-12)
        if chain.uses == 1 and not math.isnan(chain.gradient_norm):
            assert tensor.grad is not None
            assert product * chain.last_factor == pytest.approx(float(tensor.grad.norm()), rel=1e-10)
            exact += 1
    assert exact >= 2


class Random(nn.Module):
    """Layers of a random kind one after another: functional, residual, normalised."""

    def __init__(self, kinds: list[str], width: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in kinds)
        self.norm = nn.LayerNorm(width)
        self.batch = nn.BatchNorm1d(width)
        self.raw = nn.Parameter(torch.randn(width, width))
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            if kind == "skip":
                x = x + torch.tanh(layer(x))
            elif kind == "norm":
                x = F.relu(self.norm(layer(x)))
            elif kind == "batch":
                x = F.gelu(self.batch(layer(x)))
            elif kind == "raw":
                x = torch.sigmoid(x @ self.raw)
            else:
                x = F.softplus(layer(x)) * torch.sigmoid(x)
        return self.out(x)


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(["skip", "norm", "batch", "raw", "gate"]), min_size=1, max_size=6),
    st.integers(2, 7),
    st.integers(0, 10_000),
)
def test_of_random_nets_too(kinds: list[str], width: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = Random(kinds, width).double()
    batch = batch_for(width, 5)
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    for parameter, tensor in net.named_parameters():
        if tensor.grad is None:
            with pytest.raises(UsageError, match="no gradient reaches"):
                unvanish.explain(net, batch, F.cross_entropy, parameter=parameter)
            continue
        chain = unvanish.explain(net, batch, F.cross_entropy, parameter=parameter).chain
        product = chain.output_norm * math.prod(f.gain for f in chain.factors)
        assert product == pytest.approx(chain.signal_norm, rel=1e-10)
        if chain.uses == 1 and not math.isnan(chain.gradient_norm):
            assert product * chain.last_factor == pytest.approx(
                float(tensor.grad.norm()), rel=1e-10, abs=1e-14
            )
        for factor in chain.factors:
            assert factor.bound is None or factor.gain <= factor.bound * (1 + 1e-12)
        for fork in chain.forks:
            assert sum(w.share for w in fork.ways) == pytest.approx(1.0)
            assert sum(w.followed for w in fork.ways) == (fork.kind == "sum")


class Attention(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))
        self.first, self.out = nn.Linear(6, 6), nn.Linear(6, 3)
        self.seen: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        self.seen = {"q": q, "k": k, "v": v}
        for t in self.seen.values():
            t.retain_grad()
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = F.dropout((q @ k.transpose(-1, -2) / 6**0.5).softmax(-1), 0.0) @ v
        return self.out(x.mean(1))


@pytest.mark.parametrize("fused", [False, True])
def test_attention_has_two_ways_through_the_values_and_through_the_softmax(fused: bool) -> None:
    torch.manual_seed(0)
    net = Attention(fused).double()
    x, y = torch.randn(4, 5, 6, dtype=torch.float64), torch.randint(3, (4,))
    chain = unvanish.explain(net, (x, y), F.cross_entropy, parameter="first.weight").chain
    F.cross_entropy(net(x), y).backward()
    norms = {name: float(t.grad.norm()) for name, t in net.seen.items() if t.grad is not None}
    (fork,) = [f for f in chain.forks if f.kind == "attention"]
    values, softmax = fork.ways
    assert (values.label, softmax.label) == ("through the values", "through the softmax (queries and keys)")
    assert values.norm == pytest.approx(norms["v"], rel=1e-10)
    assert softmax.norm == pytest.approx(math.hypot(norms["q"], norms["k"]), rel=1e-10)
    assert values.share + softmax.share == pytest.approx(1.0)
    (meeting,) = [f for f in chain.forks if f.kind == "sum"]
    assert {w.label for w in meeting.ways} == {"q", "k", "v"}


def test_a_residual_sum_says_how_much_goes_which_way() -> None:
    torch.manual_seed(0)
    net = NETS["residual"]().double()
    chain = unvanish.explain(net, batch_for(), F.cross_entropy, parameter="first.weight").chain
    assert len(chain.forks) == 4
    for fork in chain.forks:
        labels = [w.label for w in fork.ways]
        assert labels[0] == "straight past (skip)" and labels[1].startswith("blocks.")
        assert (
            fork.gain is not None and fork.gain >= 1 - sum(w.norm for w in fork.ways[1:]) / fork.ways[0].norm
        )


def test_a_recurrence_is_told_step_by_step() -> None:
    torch.manual_seed(0)
    cell, out = nn.RNNCell(3, 5).double(), nn.Linear(5, 2).double()

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = cell, out
            self.states: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros(x.shape[1], 5, dtype=torch.float64)
            self.states = []
            for part in x:
                h = self.cell(part, h)
                h.retain_grad()
                self.states.append(h)
            return self.out(h)

    net = Unrolled()
    x, y = torch.randn(8, 4, 3, dtype=torch.float64), torch.randint(2, (4,))
    chain = unvanish.explain(net, (x, y), F.cross_entropy, parameter="cell.weight_hh").chain
    (recurrence,) = chain.recurrences
    assert (recurrence.layer, len(recurrence.steps), recurrence.fused, chain.uses) == ("cell", 8, False, 8)
    F.cross_entropy(net(x), y).backward()
    gate = [1 - h.detach() ** 2 for h in net.states]
    expected = [
        float((h.grad * g).norm()) for h, g in zip(net.states, gate, strict=True) if h.grad is not None
    ]
    assert [s.signal_norm for s in recurrence.steps] == pytest.approx(expected, rel=1e-10)
    assert recurrence.gain_per_step == pytest.approx((expected[0] / expected[-1]) ** (1 / 7), rel=1e-10)


def test_the_open_share_of_a_relu_is_that_of_its_places() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3)).double()
    batch = batch_for()
    chain = unvanish.explain(net, batch, F.cross_entropy, parameter="0.weight").chain
    (relu,) = [f for f in chain.factors if f.kind == "activation"]
    assert relu.open_share == pytest.approx(float((net[0](batch[0]) > 0).double().mean()))
    assert relu.bound == 1.0


def test_nothing_is_changed() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    batch = (torch.randn(9, 6), torch.randint(3, (9,)))
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    states = torch.get_rng_state().clone(), random.getstate()
    unvanish.explain(net, batch, F.cross_entropy, index=(0, 1), parameter="0.weight")
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight)) and net[3].weight.grad is None
    assert not net[0]._forward_hooks and nn.Module.__call__.__module__.startswith("torch")


class Own(nn.Module):
    """Takes keyword arguments and gives a dict with its loss, as some libraries' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = self.layer(x)
        return {"loss": F.cross_entropy(scores, y), "scores": scores}


BATCHES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], Any]] = {
    "a tensor alone": (lambda: nn.Linear(4, 2), lambda: torch.randn(3, 4), None),
    "a tensor and a loss of one argument": (
        lambda: nn.Linear(4, 2),
        lambda: torch.randn(3, 4),
        lambda out: out.square().mean(),
    ),
    "keyword arguments and the model's own loss": (
        Own,
        lambda: {"x": torch.randn(3, 4), "y": torch.tensor([0, 1, 1])},
        None,
    ),
    "two inputs": (
        lambda: nn.Bilinear(4, 3, 2),
        lambda: ((torch.randn(5, 4), torch.randn(5, 3)), torch.randint(2, (5,))),
        nn.CrossEntropyLoss(),
    ),
    "a loss module in a list": (
        lambda: nn.Linear(4, 2),
        lambda: [torch.randn(3, 4), torch.tensor([0, 1, 1])],
        nn.CrossEntropyLoss(),
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_many_shapes(name: str) -> None:
    torch.manual_seed(0)
    model, batch, loss_fn = BATCHES[name]
    explanation = unvanish.explain(model(), batch(), loss_fn)
    assert explanation.chain.gradient_norm > 0
    json.dumps(explanation.to_dict(), allow_nan=False)
    assert str(explanation) == repr(explanation) and "gradient of" in str(explanation)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a class": (
        lambda: unvanish.explain(nn.Linear, torch.randn(2, 4)),
        "received the class Linear.*instantiate",
    ),  # type: ignore[arg-type]
    "no module": (lambda: unvanish.explain(lambda x: x, torch.randn(2, 4)), "not an nn.Module"),  # type: ignore[arg-type]
    "a wrong batch": (
        lambda: unvanish.explain(net(), torch.randn(2, 5)),
        "could not be called with this batch",
    ),
    "a wrong loss": (
        lambda: unvanish.explain(net(), (torch.randn(2, 4), torch.randn(2, 4)), F.cross_entropy),
        "the loss function raised",
    ),
    "no single number": (
        lambda: unvanish.explain(net(), torch.randn(2, 4), lambda out: out),
        r"of shape \(2, 2\); reduce it",
    ),
    "a number": (
        lambda: unvanish.explain(net(), torch.randn(2, 4), lambda out: out.sum().item()),
        "a float, not a tensor",
    ),
    "detached": (
        lambda: unvanish.explain(net(), torch.randn(2, 4), lambda out: out.detach().sum()),
        "hangs on no parameter",
    ),
    "a name": (
        lambda: unvanish.explain(net(), torch.randn(2, 4), parameter="0.weigth"),
        r"the model has no parameter '0.weigth'; did you mean 0.weight",
    ),
    "another name": (
        lambda: unvanish.explain(net(), torch.randn(2, 4), parameter="zzz"),
        "there are: 0.weight, 0.bias, 2.weight, 2.bias",
    ),
    "too few numbers": (
        lambda: unvanish.explain(net(), torch.randn(2, 4), parameter="0.weight", index=1),
        r"has the shape \[4, 4\], and the index 1 has 1 numbers; give 2",
    ),
    "out of range": (
        lambda: unvanish.explain(net(), torch.randn(2, 4), parameter="0.weight", index=(1, 4)),
        "lies outside of 0.weight.*the last one is 3,3",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_one_line_with_its_mend(name: str) -> None:
    call, match = WRONG[name]
    with pytest.raises(UsageError, match=match) as raised:
        call()
    assert "\n" not in str(raised.value) and raised.value.mend


def test_frozen_parameters_are_said_to_be_frozen() -> None:
    model = net()
    model[0].requires_grad_(False)
    with pytest.raises(UsageError, match=r"no gradient reaches 0.weight; it is frozen"):
        unvanish.explain(model, torch.randn(2, 4), parameter="0.weight")
