"""Parameters that were left out come back, into the right group."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from treat_models import Structured, chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply, safety_of


def reconnect(target: str = "*") -> tuple[Prescription, ...]:
    return (Prescription(treatment="reconnect", target=target),)


def groups_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[list[str]]:
    names = {id(p): n for n, p in model.named_parameters()}
    return [[names[id(p)] for p in g["params"]] for g in optimizer.param_groups]


def test_frozen_ones_are_trained_and_keep_their_place_in_the_optimizer() -> None:
    model = chain(3)
    model[2].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held = groups_of(optimizer, model)
    done = apply(model, reconnect(), optimizer=optimizer)
    assert all(p.requires_grad for p in model.parameters())
    assert groups_of(optimizer, model) == held
    before = model[2].weight.detach().clone()
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    assert not torch.equal(model[2].weight, before)
    done.undo()
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, False, True, True]


def test_unheld_ones_join_the_group_of_their_neighbours() -> None:
    model = chain(4)
    groups = [
        {"params": [model[0].weight], "lr": 0.5, "momentum": 0.9},
        {"params": model[6].parameters(), "lr": 0.1},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    moments = dict(optimizer.state)
    apply(model, reconnect(), optimizer=optimizer)
    assert groups_of(optimizer, model) == [
        [
            "0.weight",
            "0.bias",
            "2.weight",
            "2.bias",
        ],  # by the same module, else by the distance in module order
        ["6.weight", "6.bias", "4.weight", "4.bias"],
    ]
    assert [(g["lr"], g["momentum"]) for g in optimizer.param_groups] == [(0.5, 0.9), (0.1, 0)]
    assert all(optimizer.state[p] is moment for p, moment in moments.items())


def test_it_undoes_bit_by_bit_with_two_optimizers() -> None:
    model = Structured()
    first = torch.optim.Adam(model.body.parameters())
    second = torch.optim.SGD(model.mean.parameters(), lr=0.1)
    done = apply(model, reconnect(), optimizer=[first, second])
    assert groups_of(first, model) == [["body.weight", "body.bias"]]
    assert set(groups_of(second, model)[0]) == {n for n, _ in model.named_parameters()} - {
        "body.weight",
        "body.bias",
    }
    done.undo()
    assert groups_of(second, model) == [["mean.weight", "mean.bias"]]
    assert not model.frozen.weight.requires_grad


def test_a_target_is_kept_to_and_no_optimizer_is_needed_to_unfreeze() -> None:
    model = chain(4)
    model.requires_grad_(False)
    apply(model, reconnect("2"))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["2.weight", "2.bias"]


def test_it_is_unsafe() -> None:
    assert safety_of(reconnect()) == "unsafe"


def test_what_is_cut_off_in_forward_is_named_with_its_line() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.a(x))
            return self.b(h.detach())

    model = Cut()
    line = Cut.forward.__code__.co_firstlineno + 2
    with pytest.raises(SurgeryError, match="cuts the gradient off is in forward") as caught:
        apply(model, reconnect(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert f".detach() in {Cut.forward.__qualname__}, line {line}" in caught.value.mend


def test_what_has_nothing_to_reconnect_is_refused() -> None:
    model = chain()
    with pytest.raises(SurgeryError, match="trained already"):
        apply(model, reconnect(), optimizer=torch.optim.SGD(model.parameters()))
    with pytest.raises(SurgeryError, match="no optimizer to look at"):
        apply(model, reconnect())
    with pytest.raises(SurgeryError, match="holds no parameter of this model"):
        apply(model, reconnect(), optimizer=torch.optim.SGD(chain().parameters()))
