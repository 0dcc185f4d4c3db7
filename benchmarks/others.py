"""Other ways to watch a training, each as its documentation says, for benchmarks/overhead.py.

Each way gives, for a workload and a folder, a context manager around the training; what it yields is called after
every step with the loss. `rare` is the same way with its heavy part left out, and `period` says at how many steps
apart the heavy part comes by default: the cost at defaults is then taken from both. Libraries are imported when
used, and a way whose library is missing is left out.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from workloads import Workload

After = Callable[[Tensor], None]
Use = Callable[[Workload, Path], AbstractContextManager[After]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to watch. `every`: at every step; `default`: at its defaults, as it is (see the module's text)."""

    name: str
    package: str | None
    every: Use
    default: Use | None = None
    rare: Use | None = None
    period: int = 1
    note: str

    @property
    def there(self) -> bool:
        """Whether its library is installed."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


def nothing(_: Tensor) -> None:
    """After a step there is nothing to do."""


# --- hooks as one writes them oneself ------------------------------------------------------------------------


@contextmanager
def naive_hooks(work: Workload, _: Path) -> Iterator[After]:
    """The rms of every layer's output, of the gradient there, and of every parameter's gradient, with .item()."""
    seen: list[float] = []

    def look(tensor: Any) -> None:
        if isinstance(tensor, tuple):
            tensor = tensor[0]
        if isinstance(tensor, Tensor):
            seen.append(tensor.detach().square().mean().sqrt().item())

    layers = [m for m in work.model.modules() if not list(m.children())]
    handles = [m.register_forward_hook(lambda _m, _i, out: look(out)) for m in layers]
    handles += [m.register_full_backward_hook(lambda _m, _i, out: look(out)) for m in layers]

    def after(_: Tensor) -> None:
        for p in work.model.parameters():
            look(p.grad)

    try:
        yield after
    finally:
        for handle in handles:
            handle.remove()


# --- wandb ----------------------------------------------------------------------------------------------------


def wandb_watch(frequency: int) -> Use:
    """wandb.watch(log="all"), offline, with wandb.log of the loss at every step, as its manual has it."""

    @contextmanager
    def use(work: Workload, out: Path) -> Iterator[After]:
        os.environ.update(WANDB_SILENT="true", WANDB_MODE="offline", WANDB_DIR=str(out))
        import wandb  # noqa: PLC0415 - only where it is installed

        with wandb.init(project="overhead", dir=str(out), mode="offline") as run:
            run.watch(work.model, log="all", log_freq=frequency)
            yield lambda loss: run.log({"loss": loss.item()})
            run.unwatch(work.model)

    return use


# --- TensorBoard ------------------------------------------------------------------------------------------------


@contextmanager
def tensorboard_histograms(work: Workload, out: Path) -> Iterator[After]:
    """Histograms of every weight and gradient, and the loss."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - only where it is installed

    count = 0
    with SummaryWriter(str(out)) as writer:

        def after(loss: Tensor) -> None:
            nonlocal count
            count += 1
            writer.add_scalar("loss", loss.item(), count)
            for name, p in work.model.named_parameters():
                writer.add_histogram(name, p, count)
                writer.add_histogram(f"{name}.grad", p.grad, count)

        yield after


@contextmanager
def tensorboard_loss(_: Workload, out: Path) -> Iterator[After]:
    """The loss alone: what the steps between two histograms cost."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

    with SummaryWriter(str(out)) as writer:
        yield lambda loss: writer.add_scalar("loss", loss.item())


# --- torchmortem -------------------------------------------------------------------------------------------------


def torchmortem(sampling: str) -> Use:
    """Its Autopsy, with this preset."""

    @contextmanager
    def use(work: Workload, _: Path) -> Iterator[After]:
        from torchmortem import Autopsy  # noqa: PLC0415 - only where it is installed

        autopsy = Autopsy(work.model, optimizer=work.optimizer, sampling=sampling)
        autopsy.attach()
        try:
            yield lambda loss: autopsy.step(loss=loss.item())
        finally:
            for collector in autopsy._collectors:  # detach() alone, without the analysis that follows
                collector.detach()
            autopsy._attached = False

    return use


WAYS = (
    Way(
        name="wandb.watch(log='all'), offline",
        package="wandb",
        every=wandb_watch(1),
        rare=wandb_watch(10**9),
        period=1000,
        note="histograms of weights and gradients; every 1,000 steps by default",
    ),
    Way(
        name="torchmortem",
        package="torchmortem",
        every=torchmortem("thorough"),
        default=torchmortem("balanced"),
        note="'balanced' by default, 'thorough' at every step",
    ),
    Way(
        name="TensorBoard histograms",
        package="tensorboard",
        every=tensorboard_histograms,
        rare=tensorboard_loss,
        period=100,
        note="of weights and gradients; it has no default, taken here as every 100 steps",
    ),
    Way(
        name="naive hooks with .item()",
        package=None,
        every=naive_hooks,
        note="forward and full backward hooks on every layer, and gradients",
    ),
)
