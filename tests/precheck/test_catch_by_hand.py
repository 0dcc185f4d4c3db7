"""A script that updates its weights by hand is caught at the end of its first backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unvanish.precheck.catch import Catch
from unvanish.precheck.check import check_all
from unvanish.probe.engine import StopTraining


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2))


@pytest.fixture
def catch() -> Iterator[Catch]:
    catching = Catch()
    catching.begin()
    yield catching
    catching.end()


def by_backward(loss: Tensor, _: nn.Module) -> None:
    loss.backward()


def by_grad(loss: Tensor, model: nn.Module) -> None:
    torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("passing", [by_backward, by_grad])
def test_the_model_is_caught_with_its_gradients_and_a_record(
    catch: Catch, passing: Callable[[Tensor, nn.Module], None]
) -> None:
    torch.manual_seed(0)
    model, x = net(), torch.randn(16, 4)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(StopTraining):
        passing(nn.functional.cross_entropy(model(x), torch.zeros(16, dtype=torch.long)), model)
    caught = catch.end()
    assert caught.stepped and len(caught.subjects) == 1
    (subject,) = caught.subjects
    assert subject.model is model and subject.record is not None and len(subject.record.traces) == 1
    assert subject.gradients is not None and all(
        size is not None and size > 0 for size in subject.gradients.values()
    )
    assert all(map(torch.equal, before, model.parameters()))
    assert passing is by_backward or all(p.grad is None for p in model.parameters())
    assert check_all(caught.subjects, caught.records).models[0].verdict == "healthy"


def test_gradients_that_are_accumulated_for_an_optimizer_are_not_by_hand(catch: Catch) -> None:
    model, x = net(), torch.randn(16, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(x).square().mean().backward()
    with pytest.raises(StopTraining):
        optimizer.step()
    caught = catch.end()
    assert caught.stepped and [s.model for s in caught.subjects] == [model]


def test_an_optimizer_of_other_weights_is_waited_for(catch: Catch) -> None:
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)  # and then the model is built anew
    model, x = net(), torch.randn(16, 4)
    model(x).square().mean().backward()
    with pytest.raises(StopTraining):
        optimizer.step()
    assert not catch.end().subjects


def test_weights_that_move_beside_the_optimizer_of_others_are_trained_by_hand(catch: Catch) -> None:
    _idle = torch.optim.SGD(net().parameters(), lr=0.1)
    model, x = net(), torch.randn(16, 4)
    model(x).square().mean().backward()
    for p in model.parameters():
        p.data.sub_(0.1 * p.grad)  # type: ignore[operator]
    with pytest.raises(StopTraining):
        model(x).square().mean().backward()
    assert [s.model for s in catch.end().subjects] == [model]


def test_what_leads_to_no_weight_of_a_module_goes_on(catch: Catch) -> None:
    model, x = net(), torch.randn(16, 4, requires_grad=True)
    torch.autograd.grad(model(x).square().mean(), x)
    (x**2).sum().backward()
    with pytest.raises(StopTraining):
        model(x).square().mean().backward()
    assert len(catch.end().subjects) == 1


def test_bare_tensors_are_known_when_they_have_moved_and_the_check_says_what_to_do(catch: Catch) -> None:
    weights: list[Any] = [torch.randn(4, 4, requires_grad=True) for _ in range(3)]
    steps: list[int] = []

    def train() -> None:
        for step in range(5):
            h = torch.randn(16, 4)
            for w in weights:
                h = torch.tanh(h @ w)
            h.square().mean().backward()
            for w in weights:
                w.data.sub_(0.1 * w.grad)
                w.grad = None
            steps.append(step)

    with pytest.raises(StopTraining):
        train()
    caught = catch.end()
    assert steps == [0] and caught.stepped and not caught.subjects
    diagnosis = check_all([], caught.records)
    assert any("put the layers into an nn.Module" in s.why for s in diagnosis.models[0].skipped)
