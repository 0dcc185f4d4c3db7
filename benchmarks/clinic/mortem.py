"""What torchmortem (PyPI) says of a script: its Autopsy around the script's own model, by its defaults.

    python benchmarks/clinic/mortem.py SCRIPT SEED FILE.json

The script is not changed: the model is the largest module that holds a parameter of the first optimizer that steps.
The first step has passed by then. Written: [[severity, category], ...] of its findings; an empty list where it says
nothing, or where it can't be used (bare tensors, a crash of its own).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook


class Beside:
    """An Autopsy that begins with the first step, and is told each loss."""

    def __init__(self) -> None:
        self.autopsy: Any = None
        self.loss: float | None = None
        self.tried = False
        self.backward = torch.Tensor.backward

    def noted(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Tensor.backward, with the loss noted."""
        if tensor.numel() == 1:
            self.loss = float(tensor.detach())
        self.backward(tensor, *args, **kwargs)  # type: ignore[no-untyped-call]

    def stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """After every step of any optimizer."""
        from torchmortem import Autopsy  # noqa: PLC0415 - only where it is installed

        if not self.tried:
            self.tried = True
            model = _model_of(optimizer)
            if model is not None:
                self.autopsy = Autopsy(model, optimizer=optimizer)
                self.autopsy.attach()
        elif self.autopsy is not None:
            self.autopsy.step(**({"loss": self.loss} if self.loss is not None else {}))

    def findings(self) -> list[tuple[str, str]]:
        """(severity, category) of each."""
        if self.autopsy is None:
            return []
        self.autopsy.detach()
        report = self.autopsy.get_report()
        return [(f.severity.name, f.category) for f in report.findings] if report is not None else []


def _model_of(optimizer: torch.optim.Optimizer) -> nn.Module | None:
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    modules = [m for m in gc.get_objects() if isinstance(m, nn.Module)]
    holding = [m for m in modules if any(id(p) in stepped for p in m.parameters())]
    return max(holding, key=lambda m: sum(p.numel() for p in m.parameters()), default=None)


def _method(call: Callable[..., None]) -> Callable[..., None]:
    def method(*args: Any, **kwargs: Any) -> None:
        call(*args, **kwargs)

    return method


def main() -> None:
    """Run the script, write what is said."""
    script, seed, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what the scripts draw from
    torch.manual_seed(seed)
    beside = Beside()
    torch.Tensor.backward = _method(beside.noted)  # type: ignore[method-assign]
    register_optimizer_step_post_hook(beside.stepped)
    sys.argv = [script]
    with contextlib.suppress(BaseException):
        runpy.run_path(script, run_name="__main__")
    try:
        said = beside.findings()
    except Exception:  # noqa: BLE001 - whatever it is: it says nothing then
        said = []
    out.write_text(json.dumps(said), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # without its report at exit


if __name__ == "__main__":
    main()
