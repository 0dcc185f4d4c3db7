"""Modes of many processes, each watched and recorded by itself; the twin is one that trains on the whole batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from mode_base import Mode, Setting, Training
from mode_nets import CLASSES, INPUTS, batch, mlp, sgd
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._ops._math_ops import _NormPartial
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad

from unvanish.schema.run import Run

ROWS = 12  # of the whole batch: the same number for each of two and of four ranks
JOINED = "stages are one model: the signal that one sends back is the one that the other gets"
Wrap = Callable[[nn.Module, Setting], nn.Module]


def place() -> tuple[int, int]:
    """(rank, ranks); the twin is alone."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def share(s: Setting) -> tuple[Tensor, Tensor]:
    """This rank's rows of a batch that all ranks draw alike."""
    rank, ranks = place()
    x, y = batch(s)
    return x[rank::ranks], y[rank::ranks]


def _on_ranks(
    wrap: Wrap,
    *,
    net: Callable[[Setting], nn.Module] = mlp,
    clip: float | None = None,
    after: Callable[[nn.Module], None] = lambda model: None,
) -> Callable[[Setting], Training]:
    """The loop that everyone knows; `wrap` spreads the net over the ranks, `after` comes before the step."""

    def make(s: Setting) -> Training:
        model = net(s)
        if not s.twin:
            model = wrap(model, s)
        opt = sgd(model, s)

        def step() -> None:
            x, y = share(s)
            opt.zero_grad()
            s.backward(F.cross_entropy(model(x), y))
            if not s.twin:
                after(model)
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()

        return Training(models=[model], optimizers=[opt], step=step)

    return make


# --- copies --------------------------------------------------------------------------------------------------


def ddp(**options: Any) -> Wrap:
    """DistributedDataParallel."""
    return lambda model, s: DistributedDataParallel(model, **options)


def _accumulated(parts: int) -> Callable[[Setting], Training]:
    """Micro-batches, the gradients of all but the last kept on the rank."""

    def make(s: Setting) -> Training:
        model: Any = mlp(s)
        if not s.twin:
            model = DistributedDataParallel(model)
        opt = sgd(model, s)

        def step() -> None:
            opt.zero_grad()
            for part in range(parts):
                x, y = share(s)
                alone = part < parts - 1 and not s.twin
                with model.no_sync() if alone else contextlib.nullcontext():
                    s.backward(F.cross_entropy(model(x), y) / parts)
            opt.step()

        return Training(models=[model], optimizers=[opt], step=step)

    return make


class _Branches(nn.Module):
    """A branch that only every other step uses."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.first, self.side, self.out = (
            nn.Linear(INPUTS, s.width),
            nn.Linear(s.width, s.width),
            nn.Linear(s.width, CLASSES),
        )
        self.to(s.dtype)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """With or without the branch."""
        h = torch.tanh(self.first(x))
        self.calls += 1
        if self.calls % 2:
            h = h + torch.tanh(self.side(h))
        out: Tensor = self.out(h)
        return out


def _clipping_engages(run: Run) -> None:
    assert all(0 < clip < 0.9 for clip in run.models[0].clips), list(run.models[0].clips)


def _mean_by_hand(model: nn.Module) -> None:
    for p in model.parameters():
        if p.grad is not None:
            distributed.all_reduce(p.grad)
            p.grad /= distributed.get_world_size()


# --- pieces --------------------------------------------------------------------------------------------------


def _every_layer(model: nn.Module, **options: Any) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def _fsdp(model: nn.Module, s: Setting) -> nn.Module:
    return _every_layer(model)


def _fsdp_as_one(model: nn.Module, s: Setting) -> nn.Module:
    fully_shard(model)
    return model


def _hsdp(model: nn.Module, s: Setting) -> nn.Module:
    return _every_layer(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "pieces")))


def _clipped_by_pieces(model: nn.Module) -> None:
    """As torch clips, by a norm of which each rank has its part: older versions hand it on so."""
    gradients: list[Any] = [p.grad for p in model.parameters()]
    own = torch.linalg.vector_norm(torch.cat([g.to_local().flatten() for g in gradients]))
    norm = DTensor.from_local(own, gradients[0].device_mesh, [_NormPartial(2.0)])
    clip_grad._clip_grads_with_norm_(model.parameters(), 0.05, norm)


def _clip_in_twin(s: Setting) -> Training:
    return _on_ranks(_fsdp, clip=0.05 if s.twin else None, after=_clipped_by_pieces)(s)


def _narrow(s: Setting) -> nn.Module:
    """Layers with fewer rows than there are ranks, and with a number that they do not divide."""
    return nn.Sequential(
        nn.Linear(INPUTS, 3), nn.Tanh(), nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, CLASSES)
    ).to(s.dtype)


def _fsdp_accumulated(s: Setting) -> Training:
    model: Any = mlp(s)
    if not s.twin:
        model = _every_layer(model)
    opt = sgd(model, s)

    def step() -> None:
        opt.zero_grad()
        for last in (False, True):
            x, y = share(s)
            if not s.twin:
                model.set_requires_gradient_sync(last)
            s.backward(F.cross_entropy(model(x), y) / 2)
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


# --- stages --------------------------------------------------------------------------------------------------


class _Whole(nn.Module):
    """Both stages in one process: what the twin trains."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.stage0, self.stage1 = _stages(s)

    def forward(self, x: Tensor) -> Tensor:
        """One after the other."""
        out: Tensor = self.stage1(self.stage0(x))
        return out


def _stages(s: Setting) -> tuple[nn.Module, nn.Module]:
    w = s.width
    first = nn.Sequential(nn.Linear(INPUTS, w), nn.Tanh(), nn.Linear(w, w), nn.Tanh())
    last = nn.Sequential(nn.Linear(w, w), nn.ReLU(), nn.Linear(w, CLASSES))
    return first.to(s.dtype), last.to(s.dtype)


def _pipeline(parts: int) -> Callable[[Setting], Training]:
    """Two stages by hand: activations are sent forwards, their gradients back; `parts` micro-batches a step."""

    def make(s: Setting) -> Training:
        if s.twin:
            whole = _Whole(s)
            return _all_stages(s, whole, sgd(whole, s), parts)
        rank, ranks = place()
        number, copies = rank // (ranks // 2), ranks // 2
        other = (rank + copies) % ranks
        stage: Any = _stages(s)[number]
        if copies > 1:
            groups = [distributed.new_group(range(i * copies, (i + 1) * copies)) for i in range(2)]
            stage = DistributedDataParallel(stage, process_group=groups[number])
        opt = sgd(stage, s)

        def step() -> None:
            opt.zero_grad()
            for _ in range(parts):
                x, y = batch(s)
                x, y = x[rank % copies :: copies], y[rank % copies :: copies]
                if number == 0:
                    out = stage(x)
                    distributed.send(out.detach(), other)
                    gradient = torch.empty_like(out)
                    distributed.recv(gradient, other)
                    torch.autograd.backward([out], [gradient])
                else:
                    came = torch.empty(len(x), s.width)
                    distributed.recv(came, other)
                    came.requires_grad_()
                    s.backward(F.cross_entropy(stage(came), y) / parts)
                    assert came.grad is not None
                    distributed.send(came.grad, other)
            opt.step()

        return Training(models=[stage], optimizers=[opt], step=step)

    return make


def _all_stages(s: Setting, whole: nn.Module, opt: torch.optim.Optimizer, parts: int) -> Training:
    def step() -> None:
        opt.zero_grad()
        for _ in range(parts):
            x, y = batch(s)
            s.backward(F.cross_entropy(whole(x), y) / parts)
        opt.step()

    return Training(models=[whole], optimizers=[opt], step=step)


MODES = (
    Mode(name="DDP, 2 ranks", make=_on_ranks(ddp()), ranks=2, rows=ROWS),
    Mode(name="DDP, 4 ranks", make=_on_ranks(ddp()), ranks=4, rows=ROWS),
    Mode(name="DDP, gradient accumulation under no_sync", make=_accumulated(3), ranks=2, rows=ROWS,
         note="signals by micro-batch, gradients of the whole"),
    Mode(name="DDP, static_graph", make=_on_ranks(ddp(static_graph=True)), ranks=2, rows=ROWS),
    Mode(name="DDP, find_unused_parameters", make=_on_ranks(ddp(find_unused_parameters=True), net=_Branches), ranks=2,
         rows=ROWS, note="a branch that every other step leaves out", signals=2),
    Mode(name="DDP, clipping by norm", make=_on_ranks(ddp(), clip=0.05), ranks=2, rows=ROWS, check=_clipping_engages),
    Mode(name="data parallel by hand: all_reduce of the gradients", make=_on_ranks(lambda m, s: m, after=_mean_by_hand),
         ranks=2, rows=ROWS, note="copies are known by their equal numbers"),
    Mode(name="FSDP2, 2 ranks", make=_on_ranks(_fsdp), ranks=2, rows=ROWS),
    Mode(name="FSDP2, the root alone", make=_on_ranks(_fsdp_as_one), ranks=2, rows=ROWS),
    Mode(name="FSDP2, 4 ranks, fewer rows than ranks", make=_on_ranks(_fsdp, net=_narrow), ranks=4, rows=ROWS),
    Mode(name="FSDP2, gradient accumulation", make=_fsdp_accumulated, ranks=2, rows=ROWS),
    Mode(name="FSDP2, clipping by norm", make=_on_ranks(_fsdp, clip=0.05), ranks=2, rows=ROWS, check=_clipping_engages),
    Mode(name="FSDP2, clipping by a norm in pieces", make=_clip_in_twin, ranks=2, rows=ROWS, check=_clipping_engages),
    Mode(name="pipeline of two stages by hand", make=_pipeline(1), ranks=2, rows=ROWS, signals=5, note=JOINED),
    Mode(name="pipeline of two stages, micro-batches", make=_pipeline(3), ranks=2, rows=ROWS, signals=5, note=JOINED),
    Mode(name="pipeline of two stages, each with DDP on two ranks", make=_pipeline(1), ranks=4, rows=ROWS, signals=5,
         note=JOINED),
    Mode(name="HSDP, 2 x 2 ranks", make=_on_ranks(_hsdp), ranks=4, rows=ROWS),
)  # fmt: skip
