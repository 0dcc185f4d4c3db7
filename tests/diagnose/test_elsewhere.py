"""The rules for what is not gradient flow: trainings that fail for another reason, look-alikes, and invariances."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nets import CLASSES, FEATURES, X, Y, diagnosed, judge, mlp, train
from torch import Tensor, nn
from torch.nn import functional as F
from watching import Seen, watched

from unvanish.schema.finding import ModelDiagnosis


def fit(
    net: nn.Module,
    *,
    lr: float = 0.1,
    steps: int = 120,
    parameters: Callable[[nn.Module], list[Tensor]] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    inputs: Callable[[Tensor], Tensor] = lambda x: x,
    labels: Callable[[Tensor], Tensor] = lambda y: y,
    scale: float = 1.0,
    optimizer: str = "SGD",
    decay: float = 1.0,
    **options: object,
) -> Seen:
    rng = torch.Generator().manual_seed(1)

    def loop() -> None:
        stepped = list(net.parameters()) if parameters is None else parameters(net)
        stepper = getattr(torch.optim, optimizer)(stepped, lr, **options)
        schedule = torch.optim.lr_scheduler.ExponentialLR(stepper, decay)
        for _ in range(steps):
            rows = torch.randint(len(X), (64,), generator=rng)
            stepper.zero_grad()
            (loss(net(inputs(X[rows])), labels(Y[rows])) * scale).backward()
            stepper.step()
            schedule.step()

    return watched(loop)


def filled(net: nn.Sequential, value: float) -> nn.Sequential:
    for parameter in net.parameters():
        nn.init.constant_(parameter, value)
    return net


def frozen(net: nn.Sequential) -> nn.Sequential:
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    net[-1].bias.requires_grad_(True)
    return net


class Detached(nn.Module):
    """The encoder's output is cut off the graph, and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())
        self.head = nn.Linear(1, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(x).detach())
        return out


class Narrow(nn.Module):
    """The same, and what it says by chance is enough for the loss to fall some way."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 2), nn.Tanh())
        self.head = nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(x).detach())
        return out


def last_bias(net: nn.Module) -> list[Tensor]:
    return list(net.parameters())[-1:]


def shuffled(y: Tensor) -> Tensor:
    return y[torch.randperm(len(y))]


def one_unit(y: Tensor) -> Tensor:
    return (y == 0).float()[:, None]


FAILS: dict[str, tuple[Callable[[], Seen], str, str]] = {
    "steps of nothing": (lambda: fit(mlp(3, nn.ReLU), lr=1e-7), "learning_rate_too_small", "learning_rate"),
    "steps of nothing, Adam": (lambda: fit(mlp(3, nn.ReLU), lr=1e-9, optimizer="Adam"), "learning_rate_too_small", "learning_rate"),
    "the same input always": (lambda: fit(mlp(3, nn.ReLU), inputs=torch.ones_like), "uninformative_data", "inputs"),
    "labels drawn anew": (lambda: fit(mlp(3, nn.Tanh), labels=shuffled, steps=200), "uninformative_data", "labels"),
    "all weights equal": (lambda: fit(filled(mlp(4, nn.Tanh), 0.01)), "plateau", "symmetry"),
    "all weights zero": (lambda: fit(filled(mlp(4, nn.Tanh), 0.0)), "plateau", "symmetry"),
    "softmax over one unit": (
        lambda: fit(nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1), nn.Softmax(1)), labels=one_unit, loss=F.mse_loss),
        "loss_or_output_mismatch", "output_activation",
    ),
    "a saturated sigmoid and a squared error": (
        lambda: fit(nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), shifted(nn.Linear(8, 1), 12.0), nn.Sigmoid()), labels=one_unit, loss=F.mse_loss),
        "loss_or_output_mismatch", "output_activation",
    ),
    "a softmax before the cross-entropy, which learns some of it": (
        lambda: fit(nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES), nn.Softmax(1)), lr=0.5, steps=200),
        "loss_or_output_mismatch", "output_activation",
    ),
    "predictions of [n, 1] less targets of [n]": (
        lambda: fit(nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1)), lr=0.05, loss=lambda y, t: (y - t.float()).square().mean()),
        "loss_or_output_mismatch", "unknown",
    ),
    "probabilities for a loss that wants their logarithms": (
        lambda: fit(nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES), nn.Softmax(1)), lr=0.5, steps=200, loss=F.nll_loss),
        "loss_or_output_mismatch", "output_activation",
    ),
    "an optimizer that climbs": (lambda: fit(mlp(3, nn.ReLU), lr=0.01, maximize=True), "loss_or_output_mismatch", "unknown"),
    "a schedule that ends before it has begun": (lambda: fit(mlp(3, nn.ReLU), lr=0.03, decay=0.3), "learning_rate_too_small", "learning_rate"),
    "a cut graph whose head learns what it can": (lambda: fit(Narrow(), lr=0.5, steps=200), "disconnected_parameters", "detached"),
    "a cut graph": (lambda: fit(Detached()), "disconnected_parameters", "detached"),
    "an optimizer for the last bias alone": (lambda: fit(mlp(3, nn.ReLU), parameters=last_bias), "disconnected_parameters", "not_in_optimizer"),
    "all but the last bias frozen": (lambda: fit(frozen(mlp(3, nn.ReLU))), "disconnected_parameters", "frozen"),
}  # fmt: skip


def shifted(layer: nn.Linear, bias: float) -> nn.Linear:
    nn.init.constant_(layer.bias, bias)
    return layer


@pytest.mark.parametrize("name", FAILS)
def test_what_fails_for_another_reason_is_named(name: str) -> None:
    torch.manual_seed(3)
    make, kind, cause = FAILS[name]
    model = judge(make())
    assert model.verdict == "not_learning", (model.reason, model.findings)
    assert (model.findings[0].kind, model.findings[0].cause) == (kind, cause), model.reason
    assert model.findings[0].evidence and model.findings[0].treatments


def test_steps_that_are_too_large_are_named_where_the_loss_stays_finite() -> None:
    torch.manual_seed(3)
    model = judge(fit(mlp(4, nn.LeakyReLU), lr=1.0, optimizer="Adam"))
    assert (model.findings[0].kind, model.findings[0].cause) == ("learning_rate_too_large", "learning_rate")


def test_updates_that_round_away_in_bfloat16() -> None:
    torch.manual_seed(3)
    net = mlp(3, nn.ReLU).bfloat16()
    model = judge(
        fit(net, lr=2e-4, inputs=lambda x: x.bfloat16(), loss=lambda y, t: F.cross_entropy(y.float(), t))
    )
    assert (model.verdict, model.findings[0].kind, model.findings[0].cause) == (
        "sick",
        "precision_underflow",
        "low_precision",
    )


def test_gradients_that_underflow_in_float16() -> None:
    torch.manual_seed(3)
    net = mlp(3, nn.Tanh).half()
    seen = fit(
        net, lr=0.1, inputs=lambda x: x.half(), loss=lambda y, t: F.cross_entropy(y.float(), t), scale=1e-7
    )
    model = judge(seen)
    assert (model.verdict, model.findings[0].kind, model.findings[0].cause) == (
        "sick",
        "precision_underflow",
        "low_precision",
    )


def test_an_overflow_of_float16_is_put_down_to_it() -> None:
    torch.manual_seed(3)
    net = mlp(3, nn.ReLU).half()
    big = fit(
        net, inputs=lambda x: (x * 3e4).half(), loss=lambda y, t: F.cross_entropy(y.float(), t), steps=40
    )
    model = judge(big)
    assert (model.findings[0].kind, model.findings[0].cause) == ("non_finite", "low_precision"), model.reason


class Logistic(nn.Module):
    """A sigmoid written by hand."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-x))


def test_activations_by_hand_are_blamed_as_such() -> None:
    torch.manual_seed(3)
    model = judge(train(mlp(9, Logistic), 0.1))
    assert (model.findings[0].kind, model.findings[0].cause) == (
        "vanishing_gradients",
        "saturating_activation",
    )


def test_a_net_that_answers_all_alike_has_not_learned_though_its_loss_fell() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(*mlp(9, nn.Sigmoid)[:-1], nn.Linear(32, FEATURES))
    inputs: list[Tensor] = []

    def kept(x: Tensor) -> Tensor:
        inputs[:] = [x]
        return x

    model = judge(
        fit(net, lr=0.1, steps=200, inputs=kept, loss=lambda y, _: (y - inputs[0] - 2).square().mean())
    )
    assert model.loss.last is not None and model.loss.first is not None
    assert model.loss.last < 0.8 * model.loss.first
    assert (model.verdict, model.findings[0].kind) == ("sick", "vanishing_gradients"), model.reason


def test_what_one_optimizer_does_not_hold_another_may() -> None:
    torch.manual_seed(3)
    body, head = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)

    def loop() -> None:
        stepper = torch.optim.SGD([*body.parameters(), *head.parameters()], 1e-7)
        for _ in range(60):
            stepper.zero_grad()
            F.cross_entropy(head(torch.tanh(body(X))), Y).backward()
            stepper.step()

    said = {f.kind for m in diagnosed(watched(loop)) for f in m.findings}
    assert "disconnected_parameters" not in said


WELL: dict[str, Callable[[], Seen]] = {
    "an encoder that is frozen on purpose": lambda: fit(part_frozen(), lr=0.3, steps=200),
    "zero last layer": lambda: fit(zero_head(), steps=200),
    "a sigmoid before a squared error": lambda: fit(
        nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid()), labels=one_unit, loss=F.mse_loss, lr=0.5, steps=200
    ),
    "an offset in the inputs": lambda: fit(mlp(3, nn.ReLU), inputs=lambda x: x + 3, lr=0.03, steps=300),
}  # fmt: skip


def part_frozen() -> nn.Sequential:
    net = mlp(3, nn.ReLU)
    net[0].requires_grad_(False)
    return net


def zero_head() -> nn.Sequential:
    net = mlp(3, nn.ReLU)
    nn.init.zeros_(net[-1].weight)
    return net


@pytest.mark.parametrize("name", WELL)
def test_what_only_looks_like_it_is_healthy(name: str) -> None:
    torch.manual_seed(3)
    model = judge(WELL[name]())
    assert model.verdict == "healthy", (model.reason, model.findings)


def _told(model: ModelDiagnosis) -> tuple[str, list[tuple[str, str]]]:
    return model.verdict, [(f.kind, f.cause) for f in model.findings]


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e2, 1e5])
@pytest.mark.parametrize("lr", [1e-7, 0.1])
def test_multiplying_the_loss_changes_nothing_where_the_rate_is_matched(lr: float, scale: float) -> None:
    torch.manual_seed(3)
    plain = _told(judge(fit(mlp(3, nn.ReLU), lr=lr)))
    torch.manual_seed(3)
    assert _told(judge(fit(mlp(3, nn.ReLU), lr=lr / scale, scale=scale))) == plain


def test_a_deeper_look_of_the_same_net_in_double_precision_says_the_same() -> None:
    torch.manual_seed(3)
    plain = _told(judge(train(mlp(8, nn.Sigmoid), 0.1)))
    torch.manual_seed(3)
    net = mlp(8, nn.Sigmoid).double()
    assert _told(judge(fit(net, inputs=lambda x: x.double()))) == plain
