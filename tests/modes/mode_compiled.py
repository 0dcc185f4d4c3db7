"""Modes of torch.compile. What compiles has more tests in tests/probe/test_compile.py: graph counts, hooks, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mode_base import Mode, Setting, Training
from mode_nets import CLASSES, INPUTS, batch, mlp, sgd
from torch import Tensor, nn
from torch.nn import functional as F


class _WithHead(nn.Module):
    """A net of which only the body is compiled."""

    def __init__(self, s: Setting, **options: Any) -> None:
        super().__init__()
        self.body: Any = nn.Sequential(nn.Linear(INPUTS, s.width), nn.Tanh(), nn.Linear(s.width, s.width))
        self.head = nn.Linear(s.width, CLASSES)
        self.to(s.dtype)
        if not s.twin:
            self.body.compile(**options)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)))


def _whole(s: Setting, **options: Any) -> tuple[nn.Module, nn.Module]:
    model = mlp(s)
    return model, model if s.twin else torch.compile(model, **options)  # type: ignore[return-value]


def _part(s: Setting, **options: Any) -> tuple[nn.Module, nn.Module]:
    model = _WithHead(s, **options)
    return model, model


def _compiled(
    make_net: Callable[..., tuple[nn.Module, nn.Module]] = _whole, *, run_before: bool = False, **options: Any
) -> Callable[[Setting], Training]:
    """The loop that everyone knows around a compiled net; `run_before`: it is compiled before watching begins."""

    def make(s: Setting) -> Training:
        torch._dynamo.reset()
        model, called = make_net(s, **options)
        opt = sgd(model, s)

        def step() -> None:
            x, y = batch(s)
            opt.zero_grad()
            s.backward(F.cross_entropy(called(x), y))
            opt.step()

        if run_before:
            x, y = batch(s)
            F.cross_entropy(called(x), y).backward()
        return Training(models=[model], optimizers=[opt], step=step)

    return make


BESIDE = "signals of a traced step come from the model run once more beside the training, eagerly, on the same batch"

MODES = (
    Mode(name="torch.compile", make=_compiled(), note=BESIDE),
    Mode(name="torch.compile, fullgraph", make=_compiled(backend="aot_eager", fullgraph=True), note="as torch.compile"),
    Mode(name="torch.compile, run before watching began", make=_compiled(backend="aot_eager", run_before=True),
         note="as torch.compile"),
    Mode(name="a compiled part of a model", make=_compiled(_part, backend="aot_eager"), note="as torch.compile"),
)  # fmt: skip
