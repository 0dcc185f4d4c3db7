"""Modes of what lies around: data, other libraries' ways to call a model, copies, hooks, deferred building."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from mode_base import DEVICE, LASTING, Mode, Setting, Training
from mode_nets import CLASSES, INPUTS, batch, classify, mlp, sgd
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class Numbers(Dataset[tuple[Tensor, int]]):
    """Rows that a worker makes with a net of its own, which no one trains."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.net = nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.Tanh())

    def __len__(self) -> int:
        return self.rows * 60

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x = torch.from_numpy(np.random.default_rng(index).standard_normal(INPUTS).astype(np.float32))
        made = self.net(x)
        made.sum().backward()  # a child of a watched process that computes gradients itself
        return x + made.detach(), index % CLASSES


def _loaded(context: str) -> Callable[[Setting], Training]:
    def make(s: Setting) -> Training:
        model = mlp(s)
        opt = sgd(model, s)
        workers: dict[str, Any] = {} if s.twin else {
            "num_workers": 1, "multiprocessing_context": context, "persistent_workers": True,
        }  # fmt: skip
        loader = DataLoader(Numbers(s.rows), batch_size=s.rows, **workers)
        batches: list[Any] = []

        def step() -> None:
            if not batches:
                batches.append(iter(loader))  # the workers start after watching has begun
            x, y = next(batches[0])
            opt.zero_grad()
            s.backward(F.cross_entropy(model(x.to(s.dtype)), y))
            opt.step()

        return Training(models=[model], optimizers=[opt], step=step, close=batches.clear)

    return make


def _from_meta(s: Setting) -> nn.Module:
    if s.twin:
        return mlp(s)
    with torch.device("meta"):
        model = nn.Sequential(
            nn.Linear(INPUTS, s.width),
            nn.Tanh(),
            nn.Linear(s.width, s.width),
            nn.ReLU(),
            nn.Linear(s.width, CLASSES),
        )
    model = model.to_empty(device=DEVICE)
    for module in model:
        if isinstance(module, nn.Linear):
            module.reset_parameters()  # draws what nn.Linear drew when it was made
    return model.to(s.dtype)


def _lazy(s: Setting) -> Training:
    """Shapes that are only known at the first forward pass, which comes after watching began."""
    if s.twin:
        return classify(_shaped_late)(s)
    model = nn.Sequential(nn.LazyLinear(s.width), nn.Tanh(), nn.LazyLinear(CLASSES)).to(s.dtype)
    opt = sgd(model, s)

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


def _shaped_late(s: Setting) -> nn.Module:
    """The twin of lazy layers draws its weights as they do: after the first batch."""

    class Late(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if not getattr(self, "drawn", False):
                self.drawn = True
                for module in self:
                    if isinstance(module, nn.Linear):
                        drawn = nn.Linear(module.in_features, module.out_features)
                        module.load_state_dict({k: v.to(s.dtype) for k, v in drawn.state_dict().items()})
            out: Tensor = super().forward(x)
            return out

    state = torch.get_rng_state()
    model = Late(nn.Linear(INPUTS, s.width), nn.Tanh(), nn.Linear(s.width, CLASSES)).to(s.dtype)
    torch.set_rng_state(state)
    return model


def _functional(s: Setting) -> Training:
    """The model's forward with tensors of the script's own in the place of its parameters."""
    model = mlp(s)
    opt = sgd(model, s)

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        out = torch.func.functional_call(model, dict(model.named_parameters()), (x,))
        s.backward(F.cross_entropy(out, y))
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


class Square(torch.autograd.Function):
    """An activation with a derivative written by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """x^2 / 2."""
        ctx.save_for_backward(x)
        return x * x / 2

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Its derivative is x."""
        (x,) = ctx.saved_tensors
        return gradients[0] * x


class _Custom(nn.Module):
    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(INPUTS, s.width), nn.Linear(s.width, CLASSES)
        self.plain = s.twin
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.out(z * z / 2 if self.plain else Square.apply(z))


@cache
def _settled() -> None:
    """The first scripted net of a process is fused otherwise than all later ones, watched or not."""
    with torch.random.fork_rng():
        s = Setting()
        model = torch.jit.script(mlp(s))  # type: ignore[no-untyped-call]
        for _ in range(LASTING):
            x, y = batch(s)
            F.cross_entropy(model(x), y).backward()


def _scripted(s: Setting) -> nn.Module:
    if not s.twin:
        _settled()
    model = mlp(s)
    return model if s.twin else torch.jit.script(model)  # type: ignore[no-untyped-call, no-any-return]


def _traced(s: Setting) -> nn.Module:
    model = mlp(s)
    if s.twin:
        return model
    example = torch.zeros(s.rows, INPUTS, dtype=s.dtype)
    return torch.jit.trace(model, example)  # type: ignore[no-untyped-call, no-any-return]


def _hooked(s: Setting) -> Training:
    """A model with hooks of its own, of every kind, that change what passes."""
    model = mlp(s)
    opt = sgd(model, s)
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
    model[1].register_forward_hook(lambda module, args, output: output * 2)
    model[4].register_full_backward_hook(lambda module, ins, outs: None)
    model[2].weight.register_hook(lambda gradient: gradient * 3)
    model[2].bias.register_post_accumulate_grad_hook(lambda p: None)

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


def _copied(s: Setting) -> Training:
    """The model and the optimizer copied, pickled and saved between all steps."""
    model = mlp(s)
    opt = sgd(model, s)

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        copy.deepcopy(model)
        s.backward(F.cross_entropy(model(x), y))
        opt.step()
        if not s.twin:
            pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
            torch.save((model, model.state_dict(), opt.state_dict()), io.BytesIO())

    return Training(models=[model], optimizers=[opt], step=step)


def _reloaded(s: Setting) -> Training:
    """A checkpoint of model and optimizer is loaded in the middle."""
    model, count = mlp(s), [0]
    opt = sgd(model, s)
    kept: list[Any] = []

    def step() -> None:
        count[0] += 1
        if count[0] == 2:
            kept.extend((copy.deepcopy(model.state_dict()), copy.deepcopy(opt.state_dict())))
        if count[0] == 4:
            model.load_state_dict(kept[0], assign=True)
            opt.param_groups[0]["params"] = list(model.parameters())
        x, y = batch(s)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


class _Failing(nn.Module):
    """Raises at the first try of each step; the script tries again."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.inner = mlp(s)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


def _fails(s: Setting) -> Training:
    model = _Failing(s)
    opt = sgd(model, s)

    def step() -> None:
        x, y = batch(s)
        if not s.twin:
            with contextlib.suppress(RuntimeError):
                model(x[:, :3])
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


def _evaluated(s: Setting) -> Training:
    """Evaluated under no_grad and inference_mode between the steps."""
    model = mlp(s)
    opt = sgd(model, s)

    def step() -> None:
        x, y = batch(s)
        with torch.inference_mode():
            model.eval()(x)
        with torch.no_grad():
            model.train()(x)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


MODES = (
    Mode(name="DataLoader workers, forked", make=_loaded("fork"), timed=False),
    Mode(name="DataLoader workers, spawned", make=_loaded("spawn"), timed=False),
    Mode(name="meta device, then to_empty", make=classify(_from_meta)),
    Mode(name="lazy layers", make=_lazy, cpu_only="the twin draws its weights by the CPU's generator"),
    Mode(name="torch.func.functional_call", make=_functional),
    Mode(name="custom autograd.Function", make=classify(_Custom), signals=2),
    Mode(name="torch.jit.script", make=classify(_scripted), signals=0, cpu_only="fuses otherwise from one run to the next",
         note="the script's interpreter runs the layers: no operation is known by its module"),
    Mode(name="torch.jit.trace", make=classify(_traced), signals=0, cpu_only="as above", note="as torch.jit.script"),
    Mode(name="hooks of the model's own", make=_hooked),
    Mode(name="copied, pickled and saved while watched", make=_copied),
    Mode(name="a checkpoint loaded in the middle", make=_reloaded),
    Mode(name="a forward pass that raises", make=_fails),
    Mode(name="evaluated between the steps", make=_evaluated),
)  # fmt: skip
