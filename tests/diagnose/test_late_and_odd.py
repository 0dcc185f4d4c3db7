"""What falls ill on the way, and what is made ill by odd means: each cause by its name, and look-alikes left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nets import CLASSES, FEATURES, X, Y, diagnosed, he, judge, mlp, spread
from torch import Tensor, nn
from torch.nn import functional as F
from watching import Seen, watched

Batch = Callable[[Tensor, Tensor], Tensor]


def fit(
    net: nn.Module,
    loss: Batch | None = None,
    *,
    lr: float = 0.1,
    steps: int = 150,
    optimizer: str = "SGD",
    inputs: Callable[[Tensor], Tensor] = lambda x: x,
    before: Callable[[int, nn.Module, torch.optim.Optimizer], torch.optim.Optimizer | None] = lambda *_: None,
    clip: float | None = None,
    **options: object,
) -> Seen:
    rng = torch.Generator().manual_seed(1)
    criterion: Batch = loss or F.cross_entropy

    def loop() -> None:
        stepper = getattr(torch.optim, optimizer)(
            [p for p in net.parameters() if p.requires_grad], lr, **options
        )
        for step in range(steps):
            stepper = before(step, net, stepper) or stepper
            rows = torch.randint(len(X), (64,), generator=rng)
            stepper.zero_grad()
            criterion(net(inputs(X[rows])), Y[rows]).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            stepper.step()

    return watched(loop)


class Through(nn.Module):
    """A function between two layers."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 32) -> None:
        super().__init__()
        self.below, self.above = nn.Linear(FEATURES, width), nn.Linear(width, CLASSES)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.above(self.function(self.below(x)))
        return out


class Growing(nn.Module):
    """Gets another block in the middle of the training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(FEATURES, 32), nn.ModuleList(), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for block in self.blocks:
            x = block(x).relu()
        out: Tensor = self.head(x)
        return out


def a_block_of_zeros(
    step: int, net: nn.Module, stepper: torch.optim.Optimizer
) -> torch.optim.Optimizer | None:
    if step != 60:
        return None
    layer = nn.Linear(32, 32)
    for p in layer.parameters():
        nn.init.zeros_(p)
    net.blocks.append(layer)  # type: ignore[union-attr, operator]
    return torch.optim.SGD(net.parameters(), 0.1)


def another_head(step: int, net: nn.Module, _: torch.optim.Optimizer) -> None:
    if step == 60:
        net[-1] = nn.Linear(32, CLASSES)  # type: ignore[index, operator]
        net[:-1].requires_grad_(False)  # type: ignore[index]


class Sharpened(nn.Module):
    """A mixture whose softmax gets harder at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(FEATURES, CLASSES) for _ in range(4))
        self.experts.requires_grad_(False)
        self.router = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 4))
        self.temperature = 1.0

    def forward(self, x: Tensor) -> Tensor:
        share = torch.softmax(self.router(x) / self.temperature, -1)
        return (share[..., None] * torch.stack([e(x) for e in self.experts], 1)).sum(1)


class Gated(nn.Module):
    def __init__(self, shut: float) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(32, 32), nn.Linear(32, 32)
        nn.init.constant_(self.gate.bias, shut)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x) * torch.sigmoid(self.gate(x))


def rounded_straight_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def normed(gain: float, shift: float) -> nn.Sequential:
    net = mlp(4, nn.ReLU, norm=nn.BatchNorm1d)
    for module in net:
        if isinstance(module, nn.BatchNorm1d):
            nn.init.constant_(module.weight, gain)
            nn.init.constant_(module.bias, shift)
    return net


def closed(act: Callable[[], nn.Module], bias: float) -> nn.Sequential:
    net = mlp(6, act, init=he)
    for module in net[:-1]:
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.bias, bias)
    return net


def masked(y: Tensor, t: Tensor) -> Tensor:
    """All of the gradient is below float16's smallest number, and is gone behind the cast."""
    return F.cross_entropy(y.half().float(), t) * 1e-9


class Millivolts(nn.Module):
    """Gives the right size at the end, where the backward pass begins."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 32), nn.GELU(), nn.Linear(32, FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x * 1e3) * 1e-3
        return out


def millivolts() -> Seen:
    net = Millivolts()

    def loop() -> None:
        stepper = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            x = 1e-3 * torch.rand(64, FEATURES)
            stepper.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                out = net(x)
            F.mse_loss(out.float(), x).backward()
            stepper.step()

    return watched(loop)


def from_a_checkpoint() -> Seen:
    """The net is built anew after its optimizer, and gets the weights of the first one."""
    net = mlp(3, nn.Tanh)
    stepper = torch.optim.Adam(net.parameters(), 1e-2)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    net = mlp(3, nn.Tanh)
    net.load_state_dict(kept)

    def loop() -> None:
        for _ in range(60):
            rows = torch.randint(len(X), (64,))
            net.zero_grad()
            F.cross_entropy(net(X[rows]), Y[rows]).backward()
            stepper.step()

    return watched(loop)


class Scan(nn.Module):
    """A state that is multiplied at each of 80 steps."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.rate, self.drive = nn.Parameter(torch.linspace(-1.5, 1.0, 8)), nn.Linear(1, 8, bias=False)
        self.head = nn.Linear(8, 1)
        self.sign = sign

    def forward(self, u: Tensor) -> Tensor:
        decay, drive, state = (
            torch.exp(0.15 * self.sign * self.rate.exp()),
            self.drive(u),
            torch.zeros(len(u), 8),
        )
        for t in range(u.shape[1]):
            state = decay * state + drive[:, t]
        out: Tensor = self.head(state)
        return out


def scanning(sign: float) -> Seen:
    net = Scan(sign)

    def loop() -> None:
        stepper = torch.optim.RMSprop(net.parameters(), 1e-2)
        for _ in range(150):
            u = torch.rand(32, 80, 1)
            stepper.zero_grad()
            F.mse_loss(net(u), u[:, -4:].sum(1) - 2.0).backward()
            stepper.step()

    return watched(loop)


def cut_the_rate(step: int, _: nn.Module, stepper: torch.optim.Optimizer) -> None:
    if step % 2 == 0:
        stepper.param_groups[0]["lr"] = max(1e-8, 0.1 * stepper.param_groups[0]["lr"])


def elsewhere() -> Seen:
    """The weights are copied after the optimizer was built; the copies are what the loss depends on."""
    held = [torch.randn(FEATURES, 8, requires_grad=True), torch.randn(8, CLASSES, requires_grad=True)]
    copies = [w.detach().double().requires_grad_() for w in held]

    def loop() -> None:
        stepper = torch.optim.Adam(held, 1e-2)
        for step in range(60):
            loss = F.cross_entropy((X.double() @ copies[0]).tanh() @ copies[1], Y) / (1 + 0.05 * step)
            stepper.zero_grad()
            loss.backward()
            stepper.step()

    return watched(loop)


ILL: dict[str, tuple[Callable[[], Seen], str, str, str | None]] = {
    "a round() in the middle": (lambda: fit(Through(torch.round, 2), lr=0.3), "disconnected_parameters", "detached", "below"),
    "a sign() in the middle": (lambda: fit(Through(torch.sign, 2), lr=0.3), "disconnected_parameters", "detached", "below"),
    "a gradient that is lost in a cast": (lambda: fit(mlp(3, nn.Tanh), masked, optimizer="Adam"), "precision_underflow", "low_precision", None),
    "clipped to next to nothing": (lambda: fit(mlp(3, nn.ReLU), clip=1e-5), "learning_rate_too_small", "learning_rate", None),
    "inputs that saturate the first layer": (
        lambda: fit(mlp(3, nn.Tanh), inputs=lambda x: 200 * (x + 8), lr=0.05), "vanishing_gradients", "inputs", "0"),
    "a block of zeros that comes later": (lambda: fit(Growing(), before=a_block_of_zeros), "dead_units", "init_too_small", "blocks.0"),
    "a head that comes later, and no optimizer has": (
        lambda: fit(mlp(3, nn.ReLU, init=he), before=another_head), "disconnected_parameters", "not_in_optimizer", "4"),
    "gates that are shut": (
        lambda: fit(nn.Sequential(nn.Linear(FEATURES, 32), *[Gated(-9.0) for _ in range(3)], nn.Linear(32, CLASSES))),
        "vanishing_gradients", "saturating_activation", None),
    "norms of gain and shift zero": (lambda: fit(normed(0.0, 0.0)), "dead_units", "normalization", None),
    "norms that shift below zero": (lambda: fit(normed(1.0, -9.0)), "dead_units", "bias_drift", None),
    "a threshold that nothing passes": (
        lambda: fit(Through(lambda x: F.threshold(x, 50.0, 0.0))), "dead_units", "bias_drift", "below"),
    "leaky units that are all below zero": (
        lambda: fit(closed(lambda: nn.LeakyReLU(1e-3), -40.0)), "vanishing_gradients", "bias_drift", "0"),
    "weights that saturate every layer": (
        lambda: fit(mlp(10, nn.Tanh, init=spread(1.5)), lr=0.1), "exploding_gradients", "init_too_large", "0"),
    "a smooth net that starts far too large": (
        lambda: fit(mlp(10, nn.SiLU, init=spread(0.7)), lr=1e-3, optimizer="Adam"), "exploding_gradients", "init_too_large", "0"),
    "the script itself makes it small": (
        lambda: fit(nn.Sequential(*[m for _ in range(4) for m in (Tiny(FEATURES), nn.ReLU())], nn.Linear(FEATURES, CLASSES))),
        "vanishing_gradients", "init_too_small", None),
    "starved, and then closed by what is left to move": (
        lambda: fit(mlp(9, nn.ReLU, init=spread(0.02)), momentum=0.9, weight_decay=1e-4, inputs=lambda x: 0.1 * x, steps=250),
        "vanishing_gradients", "init_too_small", "0"),
    "a number takes what half precision has left": (
        millivolts, "precision_underflow", "low_precision", None),
    "a scan that grows with time": (lambda: scanning(1.0), "exploding_gradients", "recurrence", None),
    "an optimizer of the net before": (from_a_checkpoint, "disconnected_parameters", "not_in_optimizer", None),
    "a rate that is cut to nothing early": (
        lambda: fit(mlp(3, nn.Tanh), optimizer="Adam", lr=1e-3, before=cut_the_rate), "learning_rate_too_small", "learning_rate", None),
    "what the optimizer holds gets no gradient, and the loss falls all the same": (
        elsewhere, "disconnected_parameters", "not_in_optimizer", None),
}  # fmt: skip


class Tiny(nn.Linear):
    def __init__(self, width: int) -> None:
        super().__init__(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0.01


@pytest.mark.parametrize("name", ILL)
def test_the_cause_is_named(name: str) -> None:
    torch.manual_seed(0)
    training, kind, cause, layer = ILL[name]
    model = judge(training())
    (first, *_) = model.findings
    assert (first.kind, first.cause) == (kind, cause), first.summary
    if layer is not None:
        assert first.layers[0] == layer, first.layers


def test_a_router_that_is_shut_on_the_way() -> None:
    torch.manual_seed(0)
    net = Sharpened()

    def sharpen(step: int, *_: object) -> None:
        net.temperature = max(1e-5, 0.7**step)

    y = torch.randn(4, FEATURES)

    def loss(answer: Tensor, t: Tensor) -> Tensor:
        return F.mse_loss(answer, 3 * F.one_hot(t, CLASSES).float() + y[0, 0])

    model = judge(fit(net, loss, before=sharpen, optimizer="Adam", lr=1e-3, steps=200))
    (first, *_) = model.findings
    assert (first.kind, first.cause) == ("vanishing_gradients", "attention_saturation"), first.summary
    assert first.first_step is not None and 5 < first.first_step < 60


def test_weights_that_round_back_where_the_loss_starts_below_chance() -> None:
    """Gains near one: a step of 0.0003 is less than half of the spacing of bfloat16 there."""
    torch.manual_seed(0)
    net = Scaled(FEATURES).bfloat16()
    target = X * (1 + 0.3 * torch.randn(FEATURES))
    rows = iter(range(10_000))

    def loop() -> None:
        stepper = torch.optim.Adam(net.parameters(), 3e-4)
        for _ in range(150):
            at = torch.arange(64) + 64 * (next(rows) % 8)
            stepper.zero_grad()
            F.mse_loss(net(X[at].bfloat16()).float(), target[at]).backward()
            stepper.step()

    model = judge(watched(loop))
    assert [f.kind for f in model.findings] == ["precision_underflow"], model.reason


class Scaled(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def end_the_rate(step: int, stepper: torch.optim.Optimizer) -> None:
    stepper.param_groups[0]["lr"] = 1e-2 * (1 - step / 150)


def frozen_beside_a_head() -> Seen:
    """An optimizer over what is frozen on purpose, stepped along with that of the head."""
    body, head = mlp(3, nn.ReLU, init=he)[:-1], nn.Linear(32, CLASSES)
    body.requires_grad_(False)

    def loop() -> None:
        idle, stepper = torch.optim.SGD(body.parameters(), 0.1), torch.optim.SGD(head.parameters(), 0.1)
        for _ in range(60):
            rows = torch.randint(len(X), (64,))
            stepper.zero_grad()
            F.cross_entropy(head(body(X[rows])), Y[rows]).backward()
            stepper.step()
            idle.step()

    return watched(loop)


WELL: dict[str, Callable[[], Seen]] = {
    "straight-through rounding": lambda: fit(Through(rounded_straight_through), lr=0.3),
    "a router that settles": lambda: fit(Sharpened(), optimizer="Adam", lr=1e-2),
    "large inputs behind a norm": lambda: fit(
        nn.Sequential(nn.BatchNorm1d(FEATURES), *mlp(3, nn.Tanh)), inputs=lambda x: 2000 * x
    ),
    "a scan that forgets": lambda: scanning(-1.0),
    "a rate that ends at nothing": lambda: fit(
        mlp(3, nn.Tanh),
        optimizer="Adam",
        lr=1e-2,
        before=lambda step, _, stepper: end_the_rate(step, stepper),
    ),
    "gates that are open": lambda: fit(
        nn.Sequential(nn.Linear(FEATURES, 32), *[Gated(2.0) for _ in range(2)], nn.Linear(32, CLASSES))
    ),
    "clipping that engages at every step": lambda: fit(mlp(3, nn.ReLU, init=he), lr=1.0, clip=0.2),
    "bfloat16 that learns": lambda: fit(
        mlp(3, nn.Tanh).bfloat16(), lambda y, t: F.cross_entropy(y.float(), t), inputs=lambda x: x.bfloat16()
    ),
}


@pytest.mark.parametrize("name", WELL)
def test_look_alikes_are_left_alone(name: str) -> None:
    torch.manual_seed(0)
    model = judge(WELL[name]())
    assert model.verdict == "healthy", model.reason


def test_what_is_frozen_beside_a_head_that_learns_is_no_fault() -> None:
    torch.manual_seed(0)
    assert {model.verdict for model in diagnosed(frozen_beside_a_head())} == {"healthy"}
