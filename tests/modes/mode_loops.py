"""Modes of the training loop: precision, scaling, accumulation, clipping, recomputation, several of everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mode_base import DEVICE, HALF, Mode, Setting, Training
from mode_nets import CLASSES, INPUTS, adam, batch, classify, mlp, sgd
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unvanish.schema.run import Run

INF_AT = 3  # the step at which a batch holds an Inf


def _smooth(s: Setting) -> nn.Module:
    """A net without a kink, where half a precision does not open or shut a unit."""
    w = s.width
    return nn.Sequential(
        nn.Linear(INPUTS, w), nn.Tanh(), nn.Linear(w, w), nn.Tanh(), nn.Linear(w, CLASSES)
    ).to(s.dtype)


def _scaled(
    dtype: torch.dtype | None = None, *, fused: bool = False, unscale: bool = False, skips: bool = False
) -> Callable[[Setting], Training]:
    """A GradScaler around Adam; the twin has neither scaler nor autocast, and leaves out the skipped steps."""

    def make(s: Setting) -> Training:
        model, count = _smooth(s), [0]
        opt = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused and not s.twin)
        scaler = torch.amp.GradScaler(DEVICE, init_scale=4096.0, growth_interval=2, enabled=not s.twin)

        def step() -> None:
            x, y = batch(s)
            count[0] += 1
            if skips and count[0] == INF_AT:
                if s.twin:  # what a skipped step drew is drawn, and the next batch is taken
                    step()
                    return
                x[0, 0] = float("inf")
            opt.zero_grad()
            with torch.autocast(
                DEVICE, dtype=dtype or torch.bfloat16, enabled=dtype is not None and not s.twin
            ):
                loss = F.cross_entropy(model(x), y)
            s.backward(scaler.scale(loss))
            if unscale:
                scaler.unscale_(opt)
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(opt)
            scaler.update()
            if skips and count[0] == INF_AT:
                step()

        return Training(models=[model], optimizers=[opt], step=step)

    return make


def _says_skips(run: Run) -> None:
    said = [f"{s.what}: {s.why}" for s in run.skipped]
    assert any("1 optimizer step" in line and "GradScaler" in line for line in said), said


def _autocast(dtype: torch.dtype) -> Callable[[Setting], Training]:
    def make(s: Setting) -> Training:
        model = _smooth(s)
        opt = sgd(model, s)

        def step() -> None:
            x, y = batch(s)
            opt.zero_grad()
            with torch.autocast(DEVICE, dtype=dtype, enabled=not s.twin):
                loss = F.cross_entropy(model(x), y)
            s.backward(loss)
            opt.step()

        return Training(models=[model], optimizers=[opt], step=step)

    return make


def _accumulated(parts: int) -> Callable[[Setting], Training]:
    """Micro-batches; what the optimizer sees is the gradient of the whole."""

    def make(s: Setting) -> Training:
        model = mlp(s)
        opt = sgd(model, s)

        def step() -> None:
            opt.zero_grad()
            for _ in range(parts):
                x, y = batch(s)
                s.backward(F.cross_entropy(model(x), y) / parts)
            opt.step()

        return Training(models=[model], optimizers=[opt], step=step)

    return make


def _clipped(clip: Callable[[Any], Any]) -> Callable[[Setting], Training]:
    def make(s: Setting) -> Training:
        model = mlp(s)
        opt = sgd(model, s)

        def step() -> None:
            x, y = batch(s)
            opt.zero_grad()
            s.backward(F.cross_entropy(model(x), y))
            clip(model.parameters())
            opt.step()

        return Training(models=[model], optimizers=[opt], step=step)

    return make


class _Recomputed(nn.Module):
    """A net whose middle is recomputed in the backward pass; the twin keeps it."""

    def __init__(self, s: Setting, *, reentrant: bool) -> None:
        super().__init__()
        self.head, self.tail = nn.Linear(INPUTS, s.width), nn.Linear(s.width, CLASSES)
        self.middle = nn.Sequential(nn.Linear(s.width, s.width), nn.Tanh())
        self.reentrant, self.plain = reentrant, s.twin
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.head(x))
        h = self.middle(h) if self.plain else checkpoint(self.middle, h, use_reentrant=self.reentrant)
        return self.tail(h)


def _checkpointed(*, reentrant: bool) -> Callable[[Setting], Training]:
    return classify(lambda s: _Recomputed(s, reentrant=reentrant))


def _two_optimizers(s: Setting) -> Training:
    """One net, an optimizer for its body and one for its head."""
    model = mlp(s)
    opts = [
        torch.optim.Adam(model[:4].parameters(), lr=0.01),
        torch.optim.SGD(model[4].parameters(), lr=0.1),
    ]

    def step() -> None:
        x, y = batch(s)
        for opt in opts:
            opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        for opt in opts:
            opt.step()

    return Training(models=[model], optimizers=opts, step=step)


def _gan(s: Setting) -> Training:
    """Discriminator and generator in turn, the fake made once for both."""
    w = s.width
    generator = nn.Sequential(nn.Linear(INPUTS, w), nn.Tanh(), nn.Linear(w, INPUTS)).to(s.dtype)
    discriminator = nn.Sequential(nn.Linear(INPUTS, w), nn.LeakyReLU(0.2), nn.Linear(w, 1)).to(s.dtype)
    opt_d = torch.optim.Adam(discriminator.parameters(), lr=0.01)
    opt_g = torch.optim.SGD(generator.parameters(), lr=0.1)
    bce = F.binary_cross_entropy_with_logits

    def step() -> None:
        real, noise = s.randn(s.rows, INPUTS), s.randn(s.rows, INPUTS)
        yes, no = torch.ones(s.rows, 1, dtype=s.dtype), torch.zeros(s.rows, 1, dtype=s.dtype)
        fake = generator(noise)
        opt_d.zero_grad()
        s.backward(bce(discriminator(real), yes) + bce(discriminator(fake.detach()), no))
        opt_d.step()
        opt_g.zero_grad()
        s.backward(bce(discriminator(fake), yes))
        opt_g.step()

    return Training(models=[discriminator, generator], optimizers=[opt_d, opt_g], step=step)


def _twice_through_one_graph(s: Setting) -> Training:
    model = mlp(s)
    opt = sgd(model, s)

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        s.backward(loss, retain_graph=True)
        s.backward(0.1 * loss)
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


def _two_losses(s: Setting) -> Training:
    """Two losses on one forward pass, with a backward pass each; gradients add up."""
    model = mlp(s)
    opt = sgd(model, s)

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        out = model(x)
        s.backward(F.cross_entropy(out, y), retain_graph=True)
        s.backward(0.5 * out.square().mean())
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


def _lbfgs(s: Setting) -> Training:
    """Closures that the optimizer calls several times; the last evaluation's gradient is the one that is left."""
    model = mlp(s)
    opt = torch.optim.LBFGS(model.parameters(), lr=0.05, max_iter=2)

    def step() -> None:
        x, y = batch(s)

        def closure() -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            s.backward(loss)
            return loss

        opt.step(closure)

    return Training(models=[model], optimizers=[opt], step=step)


def _sgd_closure(s: Setting) -> Training:
    """A closure with an optimizer that calls it once."""
    model = mlp(s)
    opt = sgd(model, s)

    def step() -> None:
        x, y = batch(s)

        def closure() -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            s.backward(loss)
            return loss

        opt.step(closure)

    return Training(models=[model], optimizers=[opt], step=step)


def _in_backward(s: Setting) -> Training:
    """One optimizer per parameter, stepped from its post-accumulate hook; the twin has one plain optimizer."""
    model = mlp(s)
    if s.twin:
        return _plain_sgd(s, model)
    opts = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def ready(parameter: Tensor) -> None:
        opts[parameter].step()
        opts[parameter].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(ready)

    def step() -> None:
        x, y = batch(s)
        s.backward(F.cross_entropy(model(x), y))

    return Training(models=[model], optimizers=list(opts.values()), step=step)


def _plain_sgd(s: Setting, model: nn.Module) -> Training:
    opt = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


def _scheduled(s: Setting) -> Training:
    model = mlp(s)
    opt = sgd(model, s)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.2, total_steps=4000)

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()
        schedule.step()

    return Training(models=[model], optimizers=[opt], step=step)


def _averaged(s: Setting) -> Training:
    """An exponential moving average of the weights beside the model, called in between as well."""
    model = mlp(s)
    opt = sgd(model, s)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )

    def step() -> None:
        x, y = batch(s)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()
        average.update_parameters(model)
        with torch.no_grad():
            average(x)

    return Training(models=[model], optimizers=[opt], step=step)


def _groups(net: nn.Module, s: Setting) -> torch.optim.Optimizer:
    first, *others = net.parameters()
    return torch.optim.AdamW(
        [{"params": [first], "lr": 0.05, "weight_decay": 0.1}, {"params": others}], lr=0.01
    )


SMALL_UPDATE = (
    2e-2  # Adam's first steps are the gradient's sign: rounding shows where the gradient is nearly 0
)

MODES = (
    Mode(name="eager, SGD", make=classify()),
    Mode(name="eager, Adam", make=classify(optimizer=adam())),
    Mode(name="zero_grad keeps the tensors", make=classify(keep_zeros=True)),
    Mode(name="foreach optimizer", make=classify(optimizer=adam(torch.optim.AdamW, foreach=True))),
    Mode(name="fused optimizer", make=classify(optimizer=adam(fused=True))),
    Mode(name="RMSprop, for-loop", make=classify(optimizer=adam(torch.optim.RMSprop, foreach=False))),
    Mode(name="optimizer groups with different rates", make=classify(optimizer=_groups)),
    Mode(name="schedulers", make=_scheduled),
    Mode(name="float64 training", make=classify(), dtype=torch.float64, tolerance=1e-9, update_tolerance=1e-8),
    Mode(name="bf16 weights", make=classify(), dtype=torch.bfloat16, tolerance=0.15, update_tolerance=0.4,
         note="weights themselves in bfloat16: the twin, in float64, drifts away from them"),
    Mode(name="bf16 autocast", make=_autocast(torch.bfloat16), tolerance=HALF, update_tolerance=HALF),
    Mode(name="fp16 autocast", make=_autocast(torch.float16), tolerance=HALF / 4, update_tolerance=HALF / 4),
    Mode(name="AMP: GradScaler alone", make=_scaled(), update_tolerance=SMALL_UPDATE),
    Mode(name="AMP: fp16 and GradScaler", make=_scaled(torch.float16), tolerance=HALF, update_tolerance=HALF),
    Mode(name="AMP: GradScaler, fused", make=_scaled(fused=True), update_tolerance=SMALL_UPDATE,
         note="the optimizer divides by the scale itself; so does what is recorded"),
    Mode(name="AMP: GradScaler, unscale_ and clipping", make=_scaled(unscale=True), update_tolerance=SMALL_UPDATE),
    Mode(name="AMP: GradScaler with a skipped step", make=_scaled(skips=True), update_tolerance=SMALL_UPDATE,
         check=_says_skips, note="a skipped step is no step, and the run says how many there were"),
    Mode(name="gradient accumulation", make=_accumulated(3), note="signals by micro-batch, gradients of the whole"),
    Mode(name="clipping by norm", make=_clipped(lambda p: nn.utils.clip_grad_norm_(p, 0.05)),
         note="gradients as the optimizer sees them: after the clip"),
    Mode(name="clipping by value", make=_clipped(lambda p: nn.utils.clip_grad_value_(p, 0.01))),
    Mode(name="activation checkpointing", make=_checkpointed(reentrant=False)),
    Mode(name="activation checkpointing, reentrant", make=_checkpointed(reentrant=True), signals=2,
         skipped="use_reentrant=False",
         note="the recomputed part's graph exists only within the backward pass: its operations are not seen, and said"),
    Mode(name="several optimizers on one model", make=_two_optimizers),
    Mode(name="GAN", make=_gan),
    Mode(name="retain_graph", make=_twice_through_one_graph),
    Mode(name="two losses, a backward pass each", make=_two_losses),
    Mode(name="LBFGS closure", make=_lbfgs, steps=3),
    Mode(name="closure of SGD", make=_sgd_closure),
    Mode(name="optimizer in backward", make=_in_backward),
    Mode(name="EMA copy beside", make=_averaged),
)  # fmt: skip
