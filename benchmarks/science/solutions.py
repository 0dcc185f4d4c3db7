"""The five solutions, and three half-fixes, on one stuck net: gains, and what training comes to.

The net: 12 layers of width 64, sigmoid, torch's default init, 6 classes of digits, 250 steps of plain SGD. A seed's
loss is the mean over its last 25 steps at the best rate of the grid. It is stuck where that is not 5 % below chance.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from science.nets import phi
from science.row import estimate
from science.task import BATCH, batches, chance, digits
from unvanish.schema.architecture import LayerSpec
from unvanish.theory.gaussian import second_moment
from unvanish.theory.mean_field import VANISHING_GAIN
from unvanish.theory.predict import gain_per_layer, predict_gains
from unvanish.treatment.anatomy import read_anatomy
from unvanish.treatment.catalogue import seed_candidates
from unvanish.treatment.operate import apply

DEPTH, WIDTH, CLASSES, STEPS, TAIL = 12, 64, 6, 250, 25
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
SEEDS = 5
BELOW_CHANCE = 0.95
DEFAULT: dict[str, Any] = {"sw2": 1 / 3, "sb2": 1 / (3 * WIDTH)}
LEAKY = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A named net. `candidate` of treatment.catalogue is what is done; `stuck`: what is known of it."""

    name: str
    candidate: str | None
    specs: tuple[LayerSpec, ...]
    stuck: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training a variant came to: per seed the best loss over the rates, and which rate that was."""

    variant: Variant
    predicted: float
    measured: float
    standard_error: float
    losses: tuple[float, ...]
    rates: tuple[float, ...]

    @property
    def stuck(self) -> int:
        """On how many seeds no rate brings the loss 5 % below chance."""
        return sum(loss > BELOW_CHANCE * chance(CLASSES) for loss in self.losses)

    @property
    def left(self) -> float:
        """The predicted rms gain from the last hidden layer to the first."""
        return math.pow(self.predicted, (len(self.variant.specs) - 2) / 2)

    @property
    def predicted_stuck(self) -> bool:
        """Whether less of the signal is left than SGD trains with: e^-3."""
        return self.left < VANISHING_GAIN

    @property
    def as_known(self) -> bool:
        """Whether all seeds are stuck, or none, as the variant says."""
        return self.stuck == (len(self.losses) if self.variant.stuck else 0)


def variants() -> tuple[Variant, ...]:
    """In the order of the table."""
    lsuv = _specs("sigmoid", 1 / second_moment(phi("sigmoid"), 1.0))
    lsuv = (replace(lsuv[0], weight_variance=1 / _input_square()), *lsuv[1:])
    centred = _specs("sigmoid", 16.0, 4.0, bias_centres=True)
    centred = (replace(centred[0], weight_variance=1.0, bias_variance=0.0, bias_centres=False), *centred[1:])
    normed = _specs("sigmoid", norm="batch", batch=BATCH, **DEFAULT)
    made = (
        ("default sigmoid", None, _specs("sigmoid", **DEFAULT), True),
        ("simplify to 3 layers", "simplify", _specs("sigmoid", depth=3, **DEFAULT), False),
        ("ReLU alone, init unchanged", "relu_alone", _specs("relu", **DEFAULT), True),
        ("ReLU + He", "relu_he", _specs("relu", 2.0), False),
        ("LeakyReLU + He", "leaky_relu_he",
         _specs("leaky_relu", 2 / (1 + LEAKY**2), activation_parameters={"negative_slope": LEAKY}), False),
        ("sigmoid + Xavier", "xavier", _specs("sigmoid", 1.0), True),
        ("sigmoid + LSUV", "lsuv", lsuv, True),
        ("sigmoid, orthogonal gain 4, b = -W/2", "init", centred, False),
        ("sigmoid + batch norm before it", "batchnorm", normed, False),
        ("sigmoid + identity skips", "residual", _specs("sigmoid", skip="identity", **DEFAULT), False),
    )  # fmt: skip
    return tuple(Variant(name=n, candidate=c, specs=s, stuck=k) for n, c, s, k in made)


def _input_square() -> float:
    return float(digits(CLASSES)[0].pow(2).mean())


def _specs(
    activation: str, sw2: float, sb2: float = 0.0, depth: int = DEPTH, **options: Any
) -> tuple[LayerSpec, ...]:
    """`depth` weighted layers, the output layer among them."""
    widths = [WIDTH] * depth + [CLASSES]
    made = [
        LayerSpec(name=f"layer {i}", fan_in=a, fan_out=b, weight_variance=sw2, bias_variance=sb2,
                  activation=activation, **options)
        for i, (a, b) in enumerate(pairwise(widths))
    ]  # fmt: skip
    made[-1] = replace(made[-1], activation="identity", norm="none", skip="none")
    made[0] = replace(made[0], input_second_moment=_input_square())
    return tuple(made)


def build(variant: Variant, seed: int) -> nn.Sequential:
    """The stuck net, treated."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(DEPTH - 1):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Sigmoid()]
    net = nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))
    if variant.candidate is not None:
        candidate = next(c for c in seed_candidates() if c.name == variant.candidate)
        apply(net, candidate.prescriptions, batch=digits(CLASSES)[0][:BATCH], seed=seed)
    return net


def measured_gain(net: nn.Sequential, x: Tensor) -> float:
    """Geometric mean over the hidden layers of the squared gain of delta; with a batch norm times Var z."""
    outputs: list[Tensor] = []
    hooks = [
        layer.module.register_forward_hook(lambda _m, _i, out: outputs.append(out))
        for layer in read_anatomy(net).layers
    ]
    out = net(x)
    for hook in hooks:
        hook.remove()
    signals = torch.autograd.grad(out, outputs, torch.randn_like(out))
    normed = any(isinstance(m, nn.BatchNorm1d) for m in net.modules())
    strength = [
        float(d.double().pow(2).mean()) * (float(z.detach().double().var(0).mean()) if normed else 1.0)
        for d, z in zip(signals, outputs, strict=True)
    ][:-1]
    return math.exp(math.log(strength[0] / strength[-1]) / (len(strength) - 1))


def train(variant: Variant, seed: int, rate: float, steps: int = STEPS) -> float:
    """The mean loss of the last steps; infinite where it is not finite."""
    net = build(variant, seed)
    torch.manual_seed(1000 + seed)  # the same data order for all
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    losses = []
    for x, y in batches(steps, CLASSES):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return math.inf
    return statistics.fmean(losses[-TAIL:])


def trained(variant: Variant, *, seeds: int = SEEDS, rates: Sequence[float] = RATES) -> Trained:
    """Gains of as many nets, and what training comes to."""
    predicted = gain_per_layer(predict_gains(variant.specs))
    assert predicted is not None, variant.name
    x = digits(CLASSES)[0]
    gains = []
    for seed in range(max(seeds, SEEDS)):
        net = build(variant, seed).double()
        gains.append(math.log(measured_gain(net, x[BATCH * seed : BATCH * (seed + 1)].double())))
    log_gain, error = estimate(gains)
    found = [min((train(variant, seed, rate), rate) for rate in rates) for seed in range(seeds)]
    return Trained(
        variant=variant,
        predicted=predicted,
        measured=math.exp(log_gain),
        standard_error=math.exp(log_gain) * error,
        losses=tuple(loss for loss, _ in found),
        rates=tuple(rate for _, rate in found),
    )
