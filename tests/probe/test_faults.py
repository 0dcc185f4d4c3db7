"""A fault in any function of the probe, one after the other: training knows nothing of it, and the user does."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pytest
import torch
from injecting import Injection, Place
from torch import nn
from torch.nn import functional as F
from torch.optim import optimizer as optim_module
from torch.utils.checkpoint import checkpoint
from watching import random_states, seed

from unvanish.probe.buffer import Buffer
from unvanish.probe.engine import Probe
from unvanish.schema.run import BlockEvent, Event, Incident

STEPS = 5
# Their bodies are nothing but a guard around the rest: a fault can't be in them, only in what they call.
GUARDS = {
    "_after_step", "_before_step", "_begin_backward", "_end_backward", "_clipped", "_step_was_skipped", "_fault",
    "fault", "hook", "prehook", "backward", "__call__", "scale", "maybe_step", "clip", "look", "_meet", "call",
    "inner", "flush", "_flush", "_collect", "_add", "_store", "wrapper",
}  # fmt: skip
# These answer "not known" instead, as they do for tensors that the script has freed.
ANSWERS = {"_classes", "_values", "_elements"}


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(8, 16), nn.LayerNorm(16)
        self.block = nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Dropout(0.2))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.norm(self.stem(x)))
        return self.head(h + checkpoint(self.block, h, use_reentrant=False))


def train(after: Callable[[], None] = lambda: None, *, caught: list[BaseException] | None = None) -> Any:
    """A loop with nearly everything in it: a scaler that skips, clipping, a fused optimizer beside another.

    `caught`: KeyboardInterrupt and SystemExit end the step that they come from, and the next one is made.
    """
    seed(1)
    net = Recomputed()
    fused = torch.optim.Adam(net.block.parameters(), 0.01, fused=True)
    plain = torch.optim.SGD([*net.stem.parameters(), *net.norm.parameters(), *net.head.parameters()], 0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    seed(2)
    for number in range(STEPS):
        x, y = torch.randn(12, 8), torch.randint(3, (12,))
        if number == 3:
            x[0, 0] = float("inf")
        try:
            fused.zero_grad()
            plain.zero_grad()
            scaler.scale(F.cross_entropy(net(x), y)).backward()
            scaler.unscale_(plain)
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            scaler.step(plain)
            scaler.step(fused)
            scaler.update()
            after()
        except (KeyboardInterrupt, SystemExit) as signal:
            if caught is None:
                raise
            caught.append(signal)
            scaler = torch.amp.GradScaler("cpu", init_scale=256.0)  # the old one is in the middle of a step
    return [p.detach().numpy().tobytes() for p in net.parameters()], random_states()


@dataclass
class Outcome:
    result: Any
    events: list[Event]
    told: list[str]


def watched(injection: Injection, *, caught: list[BaseException] | None = None) -> Outcome:
    """The writer's work is done in this thread, so that faults can be put into it too."""
    events: list[Event] = []
    told: list[str] = []
    buffer = Buffer(events.extend, told.append)
    probe = Probe(buffer)
    probe.attach()
    try:
        with injection.inside():
            result = train(buffer.flush, caught=caught)
    finally:
        sys.setprofile(None)
        probe.detach()
        buffer.close()
    return Outcome(result, events, told)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """The search for optimizers looks at every object there is: fewer are there."""
    train()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def places() -> list[tuple[Place, int]]:
    """All functions that can fail, with the number of their calls."""
    counting = Injection()
    plain, seen = train(), watched(counting)
    assert seen.result == plain and not seen.told
    found = [(p, n) for p, n in sorted(counting.calls.items()) if _function(p) not in GUARDS]
    assert len(found) > 200
    return [(p, n) for p, n in found if _function(p) != "<genexpr>"]  # may be entered to be thrown away


def _function(place: Place) -> str:
    return place[1].rpartition(".")[2]


@pytest.fixture
def clean() -> Iterator[None]:
    def state() -> tuple[Any, ...]:
        hooks = (*optim_module._global_optimizer_pre_hooks, *optim_module._global_optimizer_post_hooks)
        return torch.autograd.backward, torch.compile, nn.Module.__call__, torch.amp.GradScaler.scale, hooks

    before = state()
    yield
    assert state() == before


def sweep(
    places: Sequence[tuple[Place, int]], nth: Callable[[int], int], errors: Sequence[type[Exception]]
) -> list[str]:
    """All functions whose fault does harm, or is not told."""
    plain, wrong, tried = train(), [], 0
    for (place, calls), error in zip(places, cycle(errors)):
        injection = Injection(place, nth(calls), error("ours"))
        try:
            seen = watched(injection)
        except Exception as raised:  # noqa: BLE001 - any error that reaches the loop is what this looks for
            wrong.append(f"{place}: {raised!r} reaches the loop")
            continue
        if not injection.raised:  # what is cached is not called again
            continue
        tried += 1
        kept = [e for e in seen.events if isinstance(e, Incident)]
        if seen.result != plain:
            wrong.append(f"{place}: training is another one")
        elif _function(place) in ANSWERS:
            continue
        elif len(seen.told) != 1 or not kept or "ours" not in kept[0].what:
            wrong.append(f"{place}: told {seen.told}, kept {kept}")
        elif not any(isinstance(e, BlockEvent) for e in seen.events):
            wrong.append(f"{place}: nothing else was recorded")
    assert tried > 0.8 * len(places)
    return wrong


def test_a_fault_is_told_once_and_harms_nothing(places: list[tuple[Place, int]], clean: None) -> None:
    """A quarter of the functions, each in the middle of its calls."""
    assert sweep(places[::4], lambda calls: calls // 2, [ZeroDivisionError]) == []


@pytest.mark.slow
def test_so_is_one_of_any_kind_in_any_function(places: list[tuple[Place, int]], clean: None) -> None:
    errors = [MemoryError, RecursionError, AssertionError, ZeroDivisionError]
    assert sweep(places, lambda calls: 0, errors) == []


@pytest.mark.slow
def test_what_ends_the_program_is_not_swallowed_and_watching_can_go_on(
    places: list[tuple[Place, int]], clean: None
) -> None:
    """Ctrl-C in a notebook, in the middle of a function of ours, and then training goes on."""
    wrong = []
    for (place, calls), signal in zip(places, cycle([KeyboardInterrupt, SystemExit])):
        caught: list[BaseException] = []
        injection = Injection(place, calls // 2, signal("ours"))
        seen = watched(injection, caught=caught)
        steps = [s for e in seen.events if isinstance(e, BlockEvent) for s in e.steps]
        if injection.raised and len(caught) != 1:
            wrong.append(f"{place}: {signal.__name__} was swallowed")
        elif seen.told:
            wrong.append(f"{place}: told {seen.told}")
        elif steps != sorted(set(steps)) or len(steps) < STEPS - 3:
            wrong.append(f"{place}: steps {steps}")
    assert wrong == []
