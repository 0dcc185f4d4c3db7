"""What goes wrong before the first layer and behind the last one: raw inputs, masks, verdicts, simulations, outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nets import CLASSES, FEATURES, X, Y, diagnosed, he, judge, mlp
from test_late_and_odd import Through, fit
from torch import Tensor, nn
from torch.nn import functional as F
from watching import Seen, watched

TIME = 12


class Reader(nn.Module):
    """A recurrent layer over made-up series, whose first value says the class."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.body = kind(FEATURES, 16, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        series = x[:, None] + 0.1 * torch.randn(len(x), TIME, FEATURES)
        out: Tensor = self.head(self.body(series)[0][:, -1])
        return out


class Attending(nn.Module):
    """Which of eight lines has the key that is asked for? Its value is the class."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.key, self.value, self.ask = nn.Embedding(8, 32), nn.Embedding(CLASSES, 32), nn.Embedding(8, 32)
        self.queries, self.keys = (
            nn.Parameter(torch.randn(32, 32) * gain),
            nn.Parameter(torch.randn(32, 32) * gain),
        )
        self.head = nn.Linear(32, CLASSES)

    def forward(self, keys: Tensor, values: Tensor, asked: Tensor) -> Tensor:
        lines = self.key(keys) + self.value(values)
        scores = torch.einsum("bd,bnd->bn", self.ask(asked) @ self.queries, lines @ self.keys) / 32**0.5
        out: Tensor = self.head(torch.einsum("bn,bnd->bd", scores.softmax(-1), lines))
        return out


def attending(gain: float, sharper: float = 1.0) -> Seen:
    """`sharper`: so much at each step, the scores grow."""
    net = Attending(gain)

    def loop() -> None:
        stepper = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(150):
            with torch.no_grad():
                net.queries.mul_(sharper)
            keys, values = torch.rand(64, 8).argsort(1), torch.randint(CLASSES, (64, 8))
            at = torch.randint(8, (64, 1))
            stepper.zero_grad()
            F.cross_entropy(
                net(keys, values, keys.gather(1, at)[:, 0]), values.gather(1, at)[:, 0]
            ).backward()
            stepper.step()

    return watched(loop)


class CharacterModel(nn.Module):
    """Sentences of several lengths through a cell, and softmax before the cross-entropy."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 16), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        state, out = torch.zeros(len(x), 16), []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            out.append(self.head(state))
        return torch.stack(out, 1).softmax(-1)


def sentences() -> Seen:
    net = CharacterModel()

    def loop() -> None:
        stepper = torch.optim.Adam(net.parameters(), 5e-3)
        for _ in range(100):
            length = int(torch.randint(4, 9, ()))
            y = torch.randint(12, (32, length))
            x = torch.stack([(y >> bit) % 2 for bit in range(4)], -1).float()
            stepper.zero_grad()
            F.cross_entropy(net(x).flatten(0, 1), y.flatten()).backward()
            stepper.step()

    return watched(loop)


class Embedder(nn.Module):
    """Sets the length of what a layer gives to one by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(FEATURES, 8, bias=False), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        out: Tensor = self.head(z / z.norm(dim=1, keepdim=True))
        return out


def with_a_blank_row() -> Seen:
    rows = iter(range(10_000))

    def inputs(x: Tensor) -> Tensor:
        return x * 0 if next(rows) == 61 else x

    return fit(Embedder(), inputs=inputs, steps=100)


class Pool(nn.Module):
    """Attention pooling over those of four words that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.head = nn.Linear(FEATURES, 1), nn.Linear(FEATURES, CLASSES)

    def forward(self, words: Tensor, there: Tensor) -> Tensor:
        scores = self.score(words).squeeze(-1).masked_fill(~there, float("-inf"))
        out: Tensor = self.head((scores.softmax(-1)[..., None] * words).sum(1))
        return out


def with_an_empty_text() -> Seen:
    net = Pool()

    def loop() -> None:
        stepper = torch.optim.Adam(net.parameters(), 1e-2)
        for step in range(80):
            rows = torch.randint(len(X), (32,))
            there = torch.rand(32, 4) < 0.5
            there[:, 0] = True
            if step == 41:
                there[0] = False
            stepper.zero_grad()
            F.cross_entropy(net(X[rows][:, None] + torch.zeros(32, 4, FEATURES), there), Y[rows]).backward()
            stepper.step()

    return watched(loop)


def simulated(rounds: int) -> Seen:
    """A net gives the rate of a logistic map, which is followed for many rounds."""
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(64, 3)

    def follow(rate: Tensor) -> Tensor:
        level, path = torch.full_like(rate, 0.3), []
        for _ in range(rounds):
            level = rate * level * (1 - level)
            path.append(level)
        return torch.stack(path, -1)

    target = follow(3.9 + 0.05 * torch.tanh(x[:, 0] + x[:, 1]))

    def loop() -> None:
        stepper = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(120):
            stepper.zero_grad()
            F.mse_loss(follow(3.9 + 0.09 * torch.tanh(net(x)[:, 0])), target).backward()
            stepper.step()

    return watched(loop)


def neighbours(scale: float) -> Seen:
    project = nn.Linear(FEATURES, 4, bias=False)
    x = X[:200] * scale

    def loop() -> None:
        stepper = torch.optim.Adam(project.parameters(), 0.02)
        for _ in range(100):
            rows = torch.randperm(200)[:50]
            z = project(x[rows])
            apart = (
                (z[:, None] - z[None])
                .square()
                .sum(2)
                .masked_fill(torch.eye(50, dtype=torch.bool), float("inf"))
            )
            near = torch.softmax(-apart, 1)
            stepper.zero_grad()
            (1 - (near * (Y[rows][:, None] == Y[rows][None])).sum(1).mean()).backward()
            stepper.step()

    return watched(loop)


def pooled(kept: bool) -> Seen:
    """Words are pooled; where not `kept`, a mask leaves padding alone."""
    words, body = nn.Linear(FEATURES, 16), nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, CLASSES))
    net = nn.ModuleList([words, body])

    def loop() -> None:
        stepper = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(100):
            rows = torch.randint(len(X), (64,))
            text = torch.stack([X[rows], torch.zeros(64, FEATURES)], 1)
            mask = torch.tensor([1.0, 0.0] if kept else [0.0, 1.0])[None, :, None]
            stepper.zero_grad()
            F.cross_entropy(body((words(text) * mask).sum(1)), Y[rows]).backward()
            stepper.step()

    return watched(loop)


def game(*, minimax: bool) -> list[str]:
    """A generator of points on a ring, whose critic had a head start: (the verdict on it, its findings' causes)."""
    make = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def loop() -> None:
        mine, other = torch.optim.SGD(make.parameters(), 0.02), torch.optim.Adam(critic.parameters(), 2e-3)
        for step in range(650):
            real, fake = 4 + torch.randn(64, 2), make(torch.randn(64, 4))
            other.zero_grad()
            (-F.logsigmoid(critic(real)) - F.logsigmoid(-critic(fake.detach()))).mean().backward()
            other.step()
            if step >= 500:
                verdict = critic(make(torch.randn(64, 4)))
                mine.zero_grad()
                (F.logsigmoid(-verdict) if minimax else -F.logsigmoid(verdict)).mean().backward()
                mine.step()

    models = diagnosed(watched(loop))
    smallest = next(m for m in models if m.steps == 150)
    return [smallest.verdict, *(f.cause for f in smallest.findings)]


ILL: dict[str, tuple[Callable[[], Seen], str, str, str | None]] = {
    "a ReLU on an output that should be below zero": (
        lambda: fit(nn.Sequential(*mlp(3, nn.Tanh), nn.ReLU()), lambda y, t: F.mse_loss(y, -3.0 - F.one_hot(t, CLASSES))),
        "dead_units", "output_activation", "4"),
    "softmax twice, in sentences of several lengths": (sentences, "loss_or_output_mismatch", "output_activation", None),
    "a norm by hand that meets zero": (with_a_blank_row, "non_finite", "normalization", "body"),
    "a text without words": (with_an_empty_text, "non_finite", "inputs", None),
    "raw inputs that kill every unit": (
        lambda: fit(mlp(3, nn.ReLU, init=he), inputs=lambda x: 500 * (x + 2)), "dead_units", "inputs", "0"),
    "raw inputs to an LSTM": (
        lambda: fit(Reader(nn.LSTM), inputs=lambda x: 14000 + 300 * x, optimizer="Adam", lr=5e-3),
        "vanishing_gradients", "inputs", "body"),
    "raw inputs to distances": (lambda: neighbours(300.0), "vanishing_gradients", "inputs", None),
    "a simulation that is chaotic": (lambda: simulated(60), "exploding_gradients", "recurrence", "2"),
    "sigmoids with weights for ReLU": (
        lambda: fit(mlp(8, nn.Sigmoid, init=he), lr=0.05, momentum=0.9), "vanishing_gradients", "saturating_activation", "0"),
    "queries and keys that start far too large": (
        lambda: attending(1.6), "vanishing_gradients", "attention_saturation", "queries"),
    "a softmax that becomes one-hot": (
        lambda: attending(32**-0.5, 1.15), "vanishing_gradients", "attention_saturation", "queries"),
    "a mask that leaves padding alone": (lambda: pooled(kept=False), "uninformative_data", "inputs", None),
}  # fmt: skip


@pytest.mark.parametrize("name", ILL)
def test_the_cause_is_named(name: str) -> None:
    torch.manual_seed(0)
    training, kind, cause, layer = ILL[name]
    model = judge(training())
    assert model.findings, model.reason
    (first, *_) = model.findings
    assert (first.kind, first.cause) == (kind, cause), first.summary
    if layer is not None:
        assert first.layers[0] == layer, first.layers


WELL: dict[str, Callable[[], Seen]] = {
    "an LSTM on inputs of size one": lambda: fit(Reader(nn.LSTM), optimizer="Adam", lr=1e-2),
    "distances between inputs of size one": lambda: neighbours(1.0),
    "two rounds of a simulation": lambda: simulated(2),
    "queries and keys of usual size": lambda: attending(32**-0.5),
    "pooling of words": lambda: pooled(kept=True),
    "a ReLU on an output that is to be above zero": lambda: fit(
        nn.Sequential(*mlp(3, nn.Tanh), nn.Softplus(), nn.ReLU()),
        lambda y, t: F.mse_loss(y, 2.0 * F.one_hot(t, CLASSES)),
    ),
    "a norm by hand that meets no zero": lambda: fit(Embedder()),
    "a function without weights": lambda: fit(Through(torch.sin)),
}


@pytest.mark.parametrize("name", WELL)
def test_look_alikes_are_left_alone(name: str) -> None:
    torch.manual_seed(0)
    model = judge(WELL[name]())
    assert model.verdict == "healthy", model.reason


def test_a_generator_under_a_judge_that_is_too_sure() -> None:
    torch.manual_seed(0)
    assert game(minimax=True) == ["sick", "saturating_activation"]


def test_a_generator_that_gets_its_gradient() -> None:
    torch.manual_seed(0)
    assert game(minimax=False)[0] == "healthy"
