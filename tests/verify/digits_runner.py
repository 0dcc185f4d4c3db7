"""A runner on a real net: the 12-layer sigmoid classifier on scikit-learn's digits, trained in process."""

from __future__ import annotations

import functools
import math
import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from unvanish.treatment.anatomy import read_anatomy
from unvanish.treatment.operate import apply_when_ready
from unvanish.verify.trial import TrialOutcome, TrialSpec

DEPTH, WIDTH, BATCH, RATE = 12, 64, 64, 0.1


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32)
    return (x - x.mean(0)) / (x.std(0) + 1e-6), torch.tensor(labels)


def run(spec: TrialSpec) -> TrialOutcome:
    start = time.perf_counter()
    torch.set_num_threads(1)
    x, y = digits()
    torch.manual_seed(spec.seed)
    layers: list[nn.Module] = []
    for i in range(DEPTH - 1):
        layers += [nn.Linear(64 if i == 0 else WIDTH, WIDTH), nn.Sigmoid()]
    net = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE * spec.learning_rate_factor)
    apply_when_ready(net, spec.prescriptions, optimizer=optimizer)
    losses, gain = [], None
    order, place = torch.randperm(len(x)), 0
    while len(losses) < spec.steps:
        if place + BATCH > len(x):
            order, place = torch.randperm(len(x)), 0
        rows = order[place : place + BATCH]
        place += BATCH
        loss = F.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if len(losses) == 1:
            gain = measured_gain(net, x[rows])
        if not math.isfinite(losses[-1]):
            break
        optimizer.step()
    shares = torch.bincount(y) / len(y)
    return TrialOutcome(
        spec=spec,
        losses=tuple(losses),
        measured_gain=gain,
        depth=len(read_anatomy(net).layers),
        learning_rate=optimizer.param_groups[0]["lr"],
        chance=float(-(shares * shares.log()).sum()),
        wall_seconds=time.perf_counter() - start,
    )


def measured_gain(net: nn.Module, x: torch.Tensor) -> float:
    """Squared gain per layer, gauge-free: rms(dL/dz) std(z) over the next layer's; random cotangent."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.module.register_forward_hook(lambda _m, _i, out: seen.append(out))
        for layer in read_anatomy(net).layers
    ]
    out = net(x)
    for hook in hooks:
        hook.remove()
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    signals = torch.autograd.grad(out, seen, cotangent)
    strength = [float(d.pow(2).mean()) * float(z.detach().var()) for d, z in zip(signals, seen, strict=True)]
    hidden = strength[:-1]
    return (hidden[0] / hidden[-1]) ** (1 / (len(hidden) - 1)) if hidden[-1] > 0 else 0.0
