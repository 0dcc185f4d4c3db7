"""Scripts that change the weights themselves, without an optimizer of torch's, against the same with one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from watching import Seen, watched

from unvanish.probe.by_hand import leaves_of

STEPS, RATE = 12, 0.1
Update = Callable[[nn.Module], None]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def batches() -> list[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    return [
        (torch.randn(16, 6, generator=drawn), torch.randint(3, (16,), generator=drawn)) for _ in range(STEPS)
    ]


def descend(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(RATE * p.grad)  # type: ignore[operator]


def descend_in_data(model: nn.Module) -> None:
    for p in model.parameters():
        p.data = p.data - RATE * p.grad  # type: ignore[operator]


def train(model: nn.Module, update: Update) -> None:
    for x, y in batches():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        update(model)


def seen(update: Update) -> tuple[Seen, nn.Module]:
    model = net()
    return watched(lambda: train(model, update)), model


@pytest.mark.parametrize("update", [descend, descend_in_data])
def test_it_is_watched_as_with_an_optimizer(update: Update) -> None:
    found, by_hand = seen(update)
    model = net()
    sgd = torch.optim.SGD(model.parameters(), RATE)
    expected = watched(lambda: train(model, lambda _: sgd.step())).model
    run = found.model
    assert not found.incidents
    unwatched = net()
    train(unwatched, update)
    assert all(torch.equal(a, b) for a, b in zip(by_hand.parameters(), unwatched.parameters(), strict=True))
    # the first backward pass only shows that it trains
    assert run.losses.tolist() == pytest.approx(expected.losses.tolist()[1:], rel=1e-5)
    assert [p.name for p in run.info.parameters] == [p.name for p in expected.info.parameters]
    width = len(run.info.parameters)
    for statistic in ("gradient_rms", "weight_rms", "update_rms", "first_order"):
        one, other = run.parameter_stats[statistic], expected.parameter_stats[statistic]
        assert one[:-width].tolist() == pytest.approx(other[width:-width].tolist(), rel=1e-4, abs=1e-7), (
            statistic
        )
    assert len(run.traces) >= 5
    twin = {t.step - 1: t for t in expected.traces}
    for trace in run.traces:
        if trace.step in twin:
            assert [s.norm for s in trace.stats] == pytest.approx(
                [s.norm for s in twin[trace.step].stats], rel=1e-4
            )


def test_gradients_from_autograd_grad() -> None:
    def train_by_grad(model: nn.Module) -> None:
        for x, y in batches():
            weights = list(model.parameters())
            found = torch.autograd.grad(F.cross_entropy(model(x), y), weights)
            assert all(p.grad is None for p in weights)
            with torch.no_grad():
                for p, g in zip(weights, found, strict=True):
                    p.sub_(RATE * g)

    model, original = net(), torch.autograd.grad
    seen_by_grad = watched(lambda: train_by_grad(model))
    assert torch.autograd.grad is original and not seen_by_grad.incidents
    run, (other, twin) = seen_by_grad.model, seen(descend)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert run.losses == other.model.losses
    for statistic in ("gradient_rms", "update_rms", "first_order"):
        mine, theirs = run.parameter_stats[statistic], other.model.parameter_stats[statistic]
        assert mine.tolist() == pytest.approx(theirs.tolist(), nan_ok=True), statistic
    assert [t.stats for t in run.traces] == [t.stats for t in other.model.traces]


def test_derivatives_that_go_into_a_loss_are_no_steps() -> None:
    """A physics-informed net: du/dx by torch.autograd.grad, and an optimizer for the rest."""
    model = net()
    sgd = torch.optim.SGD(model.parameters(), RATE)

    def steps() -> None:
        for x, y in batches():
            x.requires_grad_()
            u = model(x)
            (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            sgd.zero_grad()
            (F.cross_entropy(u, y) + slope.square().mean()).backward()
            sgd.step()

    found = watched(steps)
    assert len(found.model.steps) == STEPS and not found.incidents


def test_loose_tensors_are_named_as_the_script_calls_them() -> None:
    w, b = torch.randn(6, 3, requires_grad=True), torch.zeros(3, requires_grad=True)

    def steps() -> None:
        for x, y in batches():
            F.cross_entropy(x @ w + b, y).backward()
            with torch.no_grad():
                for p in (w, b):
                    p.sub_(RATE * p.grad)  # type: ignore[operator]
                    p.grad = None

    run = watched(steps).model
    assert len(run.losses) == STEPS - 1 and len(run.info.parameters) == 2


def test_gradients_that_change_nothing_are_no_training() -> None:
    model = net()

    def saliency() -> None:
        for x, y in batches():
            F.cross_entropy(model(x.requires_grad_()), y).backward()

    assert not watched(saliency).models


def test_an_optimizer_that_accumulates_keeps_its_steps() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), RATE)

    def steps() -> None:
        for i, (x, y) in enumerate(batches()):
            F.cross_entropy(model(x), y).backward()
            if i % 4 == 3:
                sgd.step()
                sgd.zero_grad()

    assert len(watched(steps).model.steps) == STEPS // 4


def test_an_optimizer_that_comes_later_has_the_word() -> None:
    model = net()

    def steps() -> None:
        train(model, descend)
        sgd = torch.optim.SGD(model.parameters(), RATE)
        train(model, lambda _: sgd.step())

    found = watched(steps)
    assert not found.incidents
    assert len(found.model.steps) == 2 * STEPS - 1


def test_leaves_are_those_that_get_gradients() -> None:
    model = net()
    model[0].requires_grad_(False)
    x, y = batches()[0]
    assert {id(p) for p in leaves_of(F.cross_entropy(model(x), y))} == {id(p) for p in model[2].parameters()}


def test_steps_that_are_nothing_are_steps() -> None:
    """Where every gradient is exactly zero the weights are written, and stay as they are."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].bias.fill_(1e4)
        model[2].weight.zero_()
    for frozen in (model[2].weight, model[2].bias):
        frozen.requires_grad_(False)

    def loop() -> None:
        for x, y in batches():
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    if p.grad is not None:
                        p.sub_(RATE * p.grad)

    (run,) = watched(loop).models
    assert len(run.steps) == STEPS - 1
