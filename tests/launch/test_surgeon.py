"""A treatment goes into a script when it builds its optimizer, however the script is written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unvanish.errors import UnvanishError
from unvanish.launch.surgeon import Surgeon
from unvanish.schema.treatment import Prescription
from unvanish.treatment.candidate import of
from unvanish.treatment.operate import apply
from unvanish.treatment.recipe import fingerprint, recipe_for

NORM = (of("batchnorm"),)
RELU_HE = (of("activation", kind="relu"), of("init", scheme="he"))


def net(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, classes))


class Faults(list[str]):
    def __call__(self, error: UnvanishError) -> None:
        self.append(str(error))


def surgeon(prescriptions: Sequence[Prescription], **more: Any) -> tuple[Surgeon, Faults]:
    faults = Faults()
    return Surgeon(prescriptions, on_fault=faults, **more), faults


def step(
    model: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, x: Tensor | None = None
) -> None:
    optimizer.zero_grad()
    model(torch.ones(5, 4) if x is None else x).square().mean().backward()
    optimizer.step()


def held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(p) for g in optimizer.param_groups for p in g["params"]}


@pytest.mark.parametrize(
    "handed_over",
    [
        lambda m: m.parameters(),
        lambda m: list(m.parameters()),
        lambda m: [
            {"params": m[0].parameters(), "lr": 0.01},
            {"params": [*m[2].parameters(), *m[4].parameters()]},
        ],
        lambda m: m.named_parameters(),
    ],
    ids=["generator", "list", "groups", "named"],
)
def test_at_once_and_the_optimizer_holds_what_the_model_has(handed_over: Callable[[Any], Any]) -> None:
    model = net()
    work, faults = surgeon(NORM, mark=fingerprint(model))
    with work.at_work():
        optimizer = torch.optim.SGD(handed_over(model), lr=0.1, momentum=0.9)
        assert work.treated is model
        assert held(optimizer) == {id(p) for p in model.parameters()}
        step(model, optimizer)
    assert not faults
    assert sum(isinstance(m, nn.BatchNorm1d) for m in model.modules()) == 2


def test_the_same_weights_as_a_treatment_by_hand_and_the_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    model = net()
    work, _ = surgeon(RELU_HE, mark=fingerprint(model))
    before = torch.get_rng_state()
    with work.at_work():
        torch.optim.Adam(model.parameters())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    twin = net()
    apply(twin, RELU_HE)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_model_of_another_shape_is_left_alone() -> None:
    first, meant = net(), net(classes=7)
    work, faults = surgeon(NORM, mark=fingerprint(meant), patient=True)
    with work.at_work():
        step(first, torch.optim.SGD(first.parameters(), lr=0.1))
        assert not work.done
        optimizer = torch.optim.SGD(meant.parameters(), lr=0.1)
        step(meant, optimizer)
    assert work.treated is meant and not faults
    assert not any(isinstance(m, nn.BatchNorm1d) for m in first.modules())


def test_a_recipe_for_another_model_is_a_fault_before_the_first_step() -> None:
    model = net()
    faults = Faults()
    work = Surgeon.for_recipe(recipe_for(net(classes=7), NORM), on_fault=faults)
    with work.at_work():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        assert not faults
        step(model, optimizer)
    assert "for another model: the script trains a Sequential with 139 parameters" in faults[0]


def test_an_average_of_the_model_gets_the_same_treatment() -> None:
    model = net()
    average = copy.deepcopy(model).requires_grad_(False)
    work, faults = surgeon((*RELU_HE, *NORM), mark=fingerprint(model))
    with work.at_work():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pairs = list(zip(average.parameters(), model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs) and not faults
    assert not any(a.requires_grad for a, _ in pairs)
    assert held(optimizer) == {id(b) for _, b in pairs}
    for a, b in pairs:
        a.lerp_(b.detach(), 0.1)
    assert average(torch.ones(5, 4)).shape == (5, 3)


def test_a_swa_model_that_wraps_a_copy_does_as_well() -> None:
    model = net()
    average = torch.optim.swa_utils.AveragedModel(model)
    work, faults = surgeon(NORM, mark=fingerprint(model))
    with work.at_work():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step(model, optimizer)
        average.update_parameters(model)
    assert not faults
    assert [n for n, _ in average.module.named_parameters()] == [n for n, _ in model.named_parameters()]


def test_an_ensemble_is_treated_member_by_member() -> None:
    members = [net() for _ in range(3)]
    work, faults = surgeon(NORM, mark=fingerprint(members[0]))
    with work.at_work():
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in members]
        for member, optimizer in zip(members, optimizers, strict=True):
            step(member, optimizer)
    assert not faults
    assert all(any(isinstance(m, nn.BatchNorm1d) for m in member.modules()) for member in members)


def test_two_optimizers_share_one_model() -> None:
    model = net()
    work, faults = surgeon(NORM, mark=fingerprint(model))
    with work.at_work():
        body = torch.optim.SGD(model[0].parameters(), lr=0.1)
        head = torch.optim.SGD([*model[2].parameters(), *model[4].parameters()], lr=0.2)
        loss = model(torch.ones(5, 4)).square().mean()
        loss.backward()
        body.step()
        head.step()
    assert not faults
    assert sum(isinstance(m, nn.BatchNorm1d) for m in model.modules()) == 2


def moved_by(optimizer: torch.optim.Optimizer) -> list[float]:
    """How far one step moves each group's first element where the gradient is one: the rate that counts."""
    firsts = [g["params"][0] for g in optimizer.param_groups]
    before = [p.detach().clone() for p in firsts]
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
    return [float((b - p).detach().flatten()[0]) for b, p in zip(before, firsts, strict=True)]


def groups_of(model: nn.Sequential) -> list[dict[str, Any]]:
    return [{"params": list(model[0].parameters()), "lr": 1.0}, {"params": list(model[2].parameters())}]


def test_rates_are_scaled_for_all_optimizers_and_the_script_sees_its_own() -> None:
    model = net()
    work, _ = surgeon((), rate_factor=0.1)
    with work.at_work():
        one = torch.optim.SGD(groups_of(model), lr=0.5)
        two = torch.optim.SGD(model[4].parameters(), lr=0.2)
        schedule = torch.optim.lr_scheduler.StepLR(one, 1, gamma=0.5)
        assert moved_by(one) == pytest.approx([0.1, 0.05])
        assert [g["lr"] for g in one.param_groups] == [1.0, 0.5]
        schedule.step()
        assert moved_by(one) == pytest.approx([0.05, 0.025])
        assert moved_by(two) == pytest.approx([0.02])
    assert work.learning_rate == pytest.approx(0.1)


def test_a_rate_that_the_script_sets_by_hand_is_scaled_as_well() -> None:
    model = net()
    work, _ = surgeon((of("learning_rate", factor=0.01),))
    with work.at_work():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.param_groups[0]["lr"] = 5.0
        assert moved_by(optimizer) == pytest.approx([0.05])
        assert optimizer.param_groups[0]["lr"] == 5.0
    assert work.done


def test_a_rate_in_a_tensor_is_scaled_and_given_back() -> None:
    model = net()
    rate = torch.tensor(0.5)
    work, _ = surgeon((), rate_factor=0.1)
    with work.at_work():
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, foreach=False)
        assert moved_by(optimizer) == pytest.approx([0.05])
        assert optimizer.param_groups[0]["lr"] is rate and float(rate) == 0.5


def test_a_recipes_rate_is_that_of_the_first_group_and_the_others_keep_their_ratio() -> None:
    model = net()
    work, _ = surgeon((), learning_rate=0.3)
    with work.at_work():
        one = torch.optim.SGD(groups_of(model), lr=0.5)
        two = torch.optim.SGD(model[4].parameters(), lr=0.2)
        assert [*moved_by(one), *moved_by(two)] == pytest.approx([0.3, 0.15, 0.06])


def test_a_subclass_that_is_compiled_later_is_treated_before() -> None:
    model = net()
    work, faults = surgeon(NORM, mark=fingerprint(model))
    with work.at_work():
        wrapped = torch.compile(model, backend="eager")
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    assert work.treated is model and not faults
    assert held(optimizer) == {id(p) for p in model.parameters()}


def test_where_no_mark_is_given_the_first_model_that_is_trained_is_taken() -> None:
    model = net()
    work, faults = surgeon(NORM)
    with work.at_work():
        step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert work.treated is model and not faults


def test_what_needs_a_batch_waits_for_it() -> None:
    model = net()
    work, faults = surgeon((of("init", scheme="lsuv"),), mark=fingerprint(model))
    before = model[0].weight.detach().clone()
    with work.at_work():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        assert torch.equal(before, model[0].weight)
        step(model, optimizer, torch.randn(64, 4))
    assert not faults and not torch.equal(before, model[0].weight)


def test_a_treatment_that_can_not_be_carried_out_is_a_fault_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    before = copy.deepcopy(model.state_dict())
    work, faults = surgeon(NORM, mark=fingerprint(model))
    with work.at_work():
        torch.optim.SGD(model.parameters(), lr=0.1)
    assert "no layer has an activation" in faults[0]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_torch_is_as_it_was_afterwards() -> None:
    before = torch.optim.Optimizer.__init__
    work, _ = surgeon(NORM)
    with work.at_work():
        assert torch.optim.Optimizer.__init__ is not before
    assert torch.optim.Optimizer.__init__ is before
    model = net()
    step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert not work.done


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = net()

    def forward(self, *, x: Tensor, scale: float) -> Tensor:
        return self.layers(x * scale)


def test_what_a_model_is_called_with_by_name_is_the_batch_that_a_treatment_measures() -> None:
    model, tensors = ByName(), []
    work, faults = surgeon((of("init", scheme="lsuv"),))
    with work.at_work():
        optimizer = torch.optim.SGD(list(model.parameters())[:2], lr=0.0)
        tensors = [p.clone() for p in model.parameters()]
        model(x=torch.randn(64, 4), scale=100.0).mean().backward()
        optimizer.step()
    assert not faults and work.done and not work.idle
    first = model.layers[0]
    out = first(torch.randn(4096, 4) * 100.0)
    assert out.std().item() == pytest.approx(1.0, rel=0.2)  # measured at the scale that it was called with
    assert not torch.equal(tensors[0], first.weight)


def test_a_model_that_first_meets_its_batch_in_the_forward_pass_is_treated_in_that_very_pass() -> None:
    model = ByName()
    work, faults = surgeon((of("init", scheme="lsuv"),), mark=fingerprint(model), patient=True)
    with work.at_work():
        optimizer = torch.optim.SGD(list(model.layers[0].parameters()), lr=0.0)
        before = model.layers[2].weight.clone()
        model(x=torch.randn(64, 4), scale=1.0).mean().backward()
        optimizer.step()
    assert not faults and not torch.equal(before, model.layers[2].weight)


def test_calls_of_modules_are_torchs_own_again_once_the_treatment_is_in() -> None:
    own, model = nn.Module.__call__, net()
    work, _ = surgeon(RELU_HE)
    with work.at_work():
        assert nn.Module.__call__ is not own
        step(model, torch.optim.SGD(model.parameters(), lr=0.1))
        assert nn.Module.__call__ is own
    assert nn.Module.__call__ is own


def test_masters_kept_by_hand_are_idle() -> None:
    model = net()
    masters = copy.deepcopy(model).double()
    work, _ = surgeon(RELU_HE)
    with work.at_work():
        optimizer = torch.optim.SGD(masters.parameters(), lr=0.1)
        model(torch.ones(5, 4)).sum().backward()
        for master, parameter in zip(masters.parameters(), model.parameters(), strict=True):
            master.grad = parameter.grad.double() if parameter.grad is not None else None
        optimizer.step()
    assert work.done and work.idle


def test_parameters_that_are_used_without_a_call_of_their_module_are_trained() -> None:
    model = net()
    work, _ = surgeon(RELU_HE)
    with work.at_work():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        (model[0].weight.square().sum()).backward()
        optimizer.step()
    assert work.done and not work.idle
    assert not any(p._backward_hooks for p in model.parameters())
