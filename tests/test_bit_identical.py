"""Watching changes nothing: weights after 50 steps and all random states, with and without, bit by bit."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import random
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import optimizer as optim_module
from torch.utils.checkpoint import checkpoint

from unvanish.probe.buffer import Buffer
from unvanish.probe.engine import Probe
from unvanish.schema.run import Event, Incident, Skipped

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [*sorted((ROOT / "tests" / "scripts").glob("*.py")), ROOT / "examples" / "digits_sigmoid.py"]
STEPS = 50


class _Enough(BaseException):
    """Ends a script after so many steps, in the same way watched and unwatched."""


def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - scripts may use the global generator
    random.seed(0)


def _random_state() -> tuple[Any, ...]:
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002


def _outcome(train: Callable[[], Any], *, watch: bool, steps: int = STEPS) -> tuple[Any, ...]:
    """(all stepped weights as bytes, the random states, events of the probe)."""
    optimizers: dict[int, torch.optim.Optimizer] = {}
    count = [0]

    def stepped(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        optimizers[id(optimizer)] = optimizer
        count[0] += 1
        if count[0] >= steps:
            raise _Enough

    _seed()
    events: list[Event] = []
    buffer = Buffer(events.extend)
    probe = Probe(buffer)
    if watch:
        buffer.start()
        probe.attach()
    handle = optim_module.register_optimizer_step_post_hook(stepped)
    try:
        with contextlib.suppress(_Enough, SystemExit):
            train()
    finally:
        handle.remove()
        if watch:
            probe.detach()
            buffer.close()
    weights = [
        p.detach().to_dense().numpy().tobytes()
        for o in optimizers.values()
        for g in o.param_groups
        for p in g["params"]
    ]
    assert weights, "nothing was trained"
    return weights, _random_state(), events


def _script(path: Path) -> Callable[[], None]:
    def train() -> None:
        argv, sys.argv = sys.argv, [str(path)]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                runpy.run_path(str(path), run_name="__main__")
        finally:
            sys.argv = argv

    return train


def _same(train: Callable[[], Any], *, steps: int = STEPS) -> list[Event]:
    _outcome(train, watch=False, steps=1)  # what is imported for the first time may draw random numbers
    plain = _outcome(train, watch=False, steps=steps)
    watched = _outcome(train, watch=True, steps=steps)
    assert watched[0] == plain[0], "weights differ"
    assert watched[1] == plain[1], "random states differ"
    events: list[Event] = watched[2]
    return events


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_scripts_train_the_same(path: Path) -> None:
    events = _same(_script(path))
    assert not [e for e in events if isinstance(e, Incident)]


def _net(*, width: int = 16) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3)
    )  # fmt: skip


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(12, 8), torch.randint(3, (12,))


def _loop(
    step: Callable[[nn.Module, torch.optim.Optimizer], Any], make: Any = torch.optim.SGD, **options: Any
) -> Any:
    def train() -> None:
        model = _net()
        optimizer = make(model.parameters(), **{"lr": 0.05, **options})
        for _ in range(STEPS):
            step(model, optimizer)

    return train


def _plain(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = _batch()
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def _keeps_gradients(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = _batch()
    optimizer.zero_grad(set_to_none=False)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def _accumulates_and_clips(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    for _ in range(3):
        x, y = _batch()
        (F.cross_entropy(model(x), y) / 3).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()


def _twice_through_one_graph(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = _batch()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward(retain_graph=True)
    (0.1 * loss).backward()
    optimizer.step()


def _with_closure(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = _batch()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)


def _recomputed(*, reentrant: bool) -> Callable[[nn.Module, torch.optim.Optimizer], None]:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        x, y = _batch()
        optimizer.zero_grad()
        F.cross_entropy(checkpoint(model, x.requires_grad_(), use_reentrant=reentrant), y).backward()
        optimizer.step()

    return step


def _half(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = _batch()
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()


def _scaled() -> Callable[[nn.Module, torch.optim.Optimizer], None]:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        scaler = step.__dict__.setdefault("scaler", torch.amp.GradScaler("cpu", init_scale=256.0))
        x, y = _batch()
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def _forward_that_fails(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with contextlib.suppress(RuntimeError):
        model(torch.randn(2, 5))
    _plain(model, optimizer)


MODES: dict[str, Callable[[], None]] = {
    "sgd": _loop(_plain),
    "adam": _loop(_plain, torch.optim.Adam),
    "adamw foreach": _loop(_plain, torch.optim.AdamW, foreach=True),
    "adam fused": _loop(_plain, torch.optim.Adam, fused=True),
    "zero_grad keeps": _loop(_keeps_gradients, momentum=0.9),
    "accumulation and clipping": _loop(_accumulates_and_clips),
    "retain_graph": _loop(_twice_through_one_graph),
    "lbfgs": _loop(_with_closure, torch.optim.LBFGS),
    "checkpoint": _loop(_recomputed(reentrant=False)),
    "checkpoint, reentrant": _loop(_recomputed(reentrant=True)),
    "autocast bf16": _loop(_half),
    "grad scaler": _loop(_scaled()),
    "a forward that fails": _loop(_forward_that_fails),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_train_the_same(mode: str) -> None:
    events = _same(MODES[mode])
    assert not [e for e in events if isinstance(e, Incident)]


def test_sparse_gradients_and_unfrozen_parameters_train_the_same() -> None:
    def train() -> None:
        torch.manual_seed(1)
        table, head = nn.Embedding(20, 6, sparse=True), nn.Linear(6, 3)
        head.bias.requires_grad_(False)
        sparse, dense = torch.optim.SparseAdam(table.parameters(), 0.01), torch.optim.SGD([head.weight], 0.1)
        for i in range(STEPS):
            if i == 10:
                head.bias.requires_grad_(True)
                dense.add_param_group({"params": [head.bias]})
            loss = F.cross_entropy(head(table(torch.randint(20, (9, 4))).mean(1)), torch.randint(3, (9,)))
            sparse.zero_grad()
            dense.zero_grad()
            loss.backward()
            sparse.step()
            dense.step()

    assert not [e for e in _same(train) if isinstance(e, Incident)]


def test_a_compiled_training_step_trains_the_same_and_says_what_was_not_measured() -> None:
    def train() -> None:
        model = _net()
        step = torch.compile(lambda x: model(x).sum(), backend="aot_eager")
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            step(torch.randn(8, 8)).backward()
            optimizer.step()

    said = [e for e in _same(train) if isinstance(e, Skipped)]
    assert any("torch.compile" in e.why for e in said)


@pytest.mark.parametrize(
    "place",
    [
        "backward.explore",
        "engine.site",
        "engine.weigh",
        "parameters.quantiles",
        "parameters.ParameterRing.look_before",
        "parameters.ParameterRing.look_gradients",
        "parameters.ParameterRing.look_after",
        "parameters.ParameterRing.reduce",
        "parameters.ParameterRing.norms",
        "sites.moments",
        "models.Watched.consider",
    ],
)
def test_a_fault_of_ours_leaves_training_untouched_and_is_kept(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _outcome(MODES["sgd"], watch=False)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(f"unvanish.probe.{place}", broken)
    watched = _outcome(MODES["sgd"], watch=True)
    assert watched[:2] == plain[:2]
    incidents = [e for e in watched[2] if isinstance(e, Incident)]
    assert incidents and "a fault of ours" in incidents[0].what


def test_a_fault_inside_a_gradient_hook_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _outcome(MODES["sgd"], watch=False)

    def broken(*args: Any) -> Any:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("unvanish.probe.backward.take", broken)
    watched = _outcome(MODES["sgd"], watch=True)
    assert watched[:2] == plain[:2]
    assert any("a fault of ours" in e.what for e in watched[2] if isinstance(e, Incident))


def test_off_means_off() -> None:
    before = (torch.autograd.backward, torch.compile, nn.Module.__call__)
    hooks = (len(optim_module._global_optimizer_pre_hooks), len(optim_module._global_optimizer_post_hooks))
    buffer = Buffer(lambda events: None)
    probe = Probe(buffer)
    probe.attach()
    assert torch.autograd.backward is not before[0]
    model = _net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        _plain(model, optimizer)
        twin = copy.deepcopy(model)
        assert pickle.loads(pickle.dumps(model)).state_dict().keys() == twin.state_dict().keys()  # noqa: S301
        torch.save(model.state_dict(), io.BytesIO())
        torch.save(model, io.BytesIO())
    assert list(model.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias", "5.weight", "5.bias"]
    probe.detach()
    assert (torch.autograd.backward, torch.compile, nn.Module.__call__) == before
    assert hooks == (
        len(optim_module._global_optimizer_pre_hooks),
        len(optim_module._global_optimizer_post_hooks),
    )
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())
