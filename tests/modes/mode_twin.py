"""The twin: the same training in float64 with every module's output kept, read in the most obvious way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mode_base import Mode, Setting, Training, seed
from torch import Tensor, nn

Key = tuple[str, int]  # (path of the module, which of its calls in this loss)


def rms(tensor: Tensor) -> float:
    """Root mean square, of the absolute values where the tensor is complex."""
    wide = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    return float(wide.abs().double().square().mean().sqrt())


@dataclass
class TwinModel:
    """What is true of one model, by step: gradients and updates (rms), signals of every pass (norm), the losses."""

    module: nn.Module
    gradients: list[dict[str, float | None]] = field(default_factory=list)
    updates: list[dict[str, float]] = field(default_factory=list)
    passes: list[list[dict[Key, float]]] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    made: Counter[int] = field(default_factory=Counter)  # steps by optimizer: a model may have several

    def named(self, optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
        """The parameters that this optimizer steps."""
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [(n, p) for n, p in self.module.named_parameters() if id(p) in stepped]

    def stepped(self, optimizer: Any, before: dict[int, Tensor], passes: Sequence[Pass]) -> None:
        """Note one step of one of its optimizers."""
        named = self.named(optimizer)
        if not named:
            return
        at = self.made[id(optimizer)]
        self.made[id(optimizer)] += 1
        if at == len(self.gradients):
            self.gradients.append({})
            self.updates.append({})
            mine = [p.signals[id(self)] for p in passes]
            self.passes.append([s for s in mine if s])
            self.losses.append([p.loss for p in passes])
        self.gradients[at].update({n: None if p.grad is None else rms(p.grad) for n, p in named})
        self.updates[at].update({n: rms(p.detach() - before[id(p)]) for n, p in named})


@dataclass(frozen=True)
class Pass:
    """One backward pass: the loss, and by id of the model the norm of dL/d(output) of every module's call."""

    loss: float
    signals: dict[int, dict[Key, float]]


class Recorder:
    """Stands where a mode calls backward, keeps each leaf module's output with its gradient, and each step."""

    def __init__(self) -> None:
        self.models: list[TwinModel] = []
        self._kept: list[tuple[TwinModel, str, Tensor]] = []
        self._passes: list[Pass] = []
        self._seen = False  # a step was made with these passes
        self._before: dict[int, Tensor] = {}

    def follow(self, training: Training) -> None:
        """Hook the modules' outputs and the optimizers' steps."""
        self.models = [TwinModel(module) for module in training.models]
        for model in self.models:
            for path, module in model.module.named_modules():
                if next(module.children(), None) is None:
                    module.register_forward_hook(self._keeper(model, path))
        for optimizer in training.optimizers:
            optimizer.register_step_pre_hook(self._before_step)
            optimizer.register_step_post_hook(self._after_step)

    def next(self) -> None:
        """Forget the outputs of the step that is over."""
        self._kept = []

    def _keeper(self, model: TwinModel, path: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad and not output.is_leaf:
                output.retain_grad()
                self._kept.append((model, path, output))

        return keep

    def __call__(self, loss: Tensor, **options: Any) -> None:
        """Run the backward pass and read the gradient of everything that was kept."""
        for _, _, output in self._kept:
            output.grad = None
        loss.backward(**options)
        signals: dict[int, dict[Key, float]] = {id(m): {} for m in self.models}
        calls: Counter[tuple[int, str]] = Counter()
        for model, path, output in self._kept:
            if output.grad is not None:
                place = (id(model), path)
                signals[id(model)][path, calls[place]] = float(output.grad.abs().square().sum().sqrt())
                calls[place] += 1
        self._passes = [*([] if self._seen else self._passes), Pass(float(loss.detach()), signals)]
        self._seen = False

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            self._before.update({id(p): p.detach().clone() for p in group["params"]})

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for model in self.models:
            model.stepped(optimizer, self._before, self._passes)
        self._seen = True


def twin_of(mode: Mode, *, steps: int) -> list[TwinModel]:
    """Train the twin and give what is true."""
    recorder = Recorder()
    seed()
    setting = Setting(twin=True, dtype=torch.float64, width=mode.width, rows=mode.rows, backward=recorder)
    training = mode.make(setting)
    recorder.follow(training)
    for _ in range(steps):
        training.step()
        recorder.next()
    training.close()
    return recorder.models
