"""Small nets, what they are trained on, and how a training is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from watching import Seen, watched

from unvanish.diagnose import engine
from unvanish.schema.finding import Diagnosis, ModelDiagnosis
from unvanish.schema.run import Run, RunInfo

CLASSES, FEATURES = 5, 16


def data(rows: int = 512) -> tuple[Tensor, Tensor]:
    """Five clouds of points: easy to learn for any net that gets a gradient."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, FEATURES, generator=rng) * 1.2
    labels = torch.randint(CLASSES, (rows,), generator=rng)
    return centres[labels] + torch.randn(rows, FEATURES, generator=rng), labels


X, Y = data()


def mlp(
    depth: int, act: Callable[[], nn.Module], *, norm: Any = None, init: Any = None, bias: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth - 1):
        layers.append(nn.Linear(FEATURES if i == 0 else 32, 32, bias=bias))
        layers += [norm(32)] if norm else []
        layers.append(act())
    net = nn.Sequential(*layers, nn.Linear(32, CLASSES, bias=bias))
    for module in net:
        if init is not None and isinstance(module, nn.Linear):
            init(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


class Skip(nn.Module):
    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def train(
    net: nn.Module,
    lr: float,
    *,
    steps: int = 120,
    optimizer: str = "SGD",
    scale: float = 1.0,
    batch: int = 64,
) -> Seen:
    rng = torch.Generator().manual_seed(1)

    def loop() -> None:
        stepper = getattr(torch.optim, optimizer)(net.parameters(), lr)
        for _ in range(steps):
            rows = torch.randint(len(X), (batch,), generator=rng)
            stepper.zero_grad()
            (F.cross_entropy(net(X[rows]), Y[rows]) * scale).backward()
            stepper.step()

    return watched(loop)


def run_of(seen: Seen) -> Run:
    info = RunInfo(id="x", created="", command=(), script=None, seed=None, versions={}, device="cpu", pid=0)
    return Run(
        info=info, path="x", status="finished", ended=None, message=None, models=seen.models, skipped=tuple(seen.skipped)
    )  # fmt: skip


def diagnosed(seen: Seen) -> tuple[ModelDiagnosis, ...]:
    diagnosis: Diagnosis = engine.diagnose_run(run_of(seen), version="0")
    return diagnosis.models


def judge(seen: Seen) -> ModelDiagnosis:
    (model,) = diagnosed(seen)
    return model


def he(weight: Tensor) -> Tensor:
    return nn.init.kaiming_normal_(weight, nonlinearity="relu")


def spread(std: float) -> Callable[[Tensor], Tensor]:
    return lambda weight: nn.init.normal_(weight, 0, std)
