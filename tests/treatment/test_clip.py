"""Clipping before the optimizer's step: against the script that calls clip_grad_norm_ itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from treat_models import chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


def clip(target: str = "*", **parameters: object) -> tuple[Prescription, ...]:
    return (Prescription(treatment="clip", target=target, parameters=parameters),)  # type: ignore[arg-type]


def twins() -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    model = chain(4, act=nn.Tanh)
    return model, copy.deepcopy(model)


def loss_of(model: nn.Module) -> torch.Tensor:
    return (model(X) * 100).pow(2).mean()


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["norm", "value"])
@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=1e-2),
        lambda p: torch.optim.AdamW([{"params": p[:3]}, {"params": p[3:], "lr": 1e-3}], fused=True),
    ],
)
def test_it_is_what_a_line_in_the_script_would_do(kind: str, build: Any) -> None:
    treated, plain = twins()
    optimizer, other = build(list(treated.parameters())), build(list(plain.parameters()))
    apply(treated, clip(**{kind: 0.01}), optimizer=optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(treated).backward()
        optimizer.step()
        other.zero_grad()
        loss_of(plain).backward()
        if kind == "norm":
            nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
        else:
            nn.utils.clip_grad_value_(plain.parameters(), 0.01)
        other.step()
    assert equal(treated, plain)


def test_undo_takes_the_hooks_off_and_a_step_is_a_step_again() -> None:
    treated, plain = twins()
    optimizer, other = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (treated, plain))
    done = apply(treated, clip(norm=1e-3), optimizer=optimizer)
    done.undo()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    for model, each in ((treated, optimizer), (plain, other)):
        loss_of(model).backward()
        each.step()
    assert equal(treated, plain)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscaled_by_hand", [False, True])
def test_gradients_of_a_grad_scaler_are_clipped_without_its_scale(
    fused: bool, unscaled_by_hand: bool
) -> None:
    treated, plain = twins()
    optimizer = torch.optim.Adam(treated.parameters(), lr=1e-2, eps=1.0, fused=fused)
    other = torch.optim.Adam(
        plain.parameters(), lr=1e-2, eps=1.0
    )  # with eps = 1 Adam sees the size of a gradient
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    apply(treated, clip(norm=0.5), optimizer=optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(loss_of(treated)).backward()
        if unscaled_by_hand:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        other.zero_grad()
        loss_of(plain).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        other.step()
    for p, q in zip(treated.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


@pytest.mark.parametrize("named", [False, True])
def test_the_gradients_that_a_closure_makes_are_clipped(named: bool) -> None:
    treated, plain = twins()
    optimizer, other = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (treated, plain))
    apply(treated, clip(norm=0.01), optimizer=optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(treated)
        loss.backward()
        return loss

    returned = optimizer.step(closure=closure) if named else optimizer.step(closure)
    loss_of(plain).backward()
    nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    other.step()
    assert equal(treated, plain)
    assert float(returned.detach()) == float(loss_of(twins()[0]).detach())


def test_every_evaluation_of_lbfgs_is_clipped() -> None:
    treated, _ = twins()
    optimizer = torch.optim.LBFGS(treated.parameters(), max_iter=3)
    norms: list[float] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(treated)
        loss.backward()
        return loss

    apply(treated, clip(norm=1e-2), optimizer=optimizer)
    original = optimizer._gather_flat_grad
    optimizer._gather_flat_grad = lambda: norms.append(float(original().norm())) or original()  # type: ignore[func-returns-value]
    optimizer.step(closure)
    assert len(norms) >= 2
    assert max(norms) <= 1e-2 * (1 + 1e-4)


def test_several_optimizers_clip_their_own_share() -> None:
    treated, plain = twins()
    first, second = (
        torch.optim.SGD(list(treated.parameters())[s], lr=0.1) for s in (slice(4), slice(4, None))
    )
    apply(treated, clip(norm=0.01), optimizer=[first, second])
    loss_of(treated).backward()
    first.step()
    untouched = list(treated.parameters())[4].grad
    loss_of(plain).backward()
    assert untouched is not None
    assert torch.equal(untouched, list(plain.parameters())[4].grad)  # type: ignore[arg-type]
    second.step()
    moved = [(p - q).detach().norm() for p, q in zip(treated.parameters(), plain.parameters(), strict=True)]
    for share in (moved[:4], moved[4:]):
        assert float(torch.stack(share).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_target_limits_it_and_a_second_model_in_the_optimizer_is_left_alone() -> None:
    treated, plain = twins()
    other = nn.Linear(8, 1)
    optimizer = torch.optim.SGD([*treated.parameters(), *other.parameters()], lr=0.1)
    apply(treated, clip("0", norm=1e-6), optimizer=optimizer)
    (loss_of(treated) + other(X).sum()).backward()
    before = other.weight.detach().clone()
    optimizer.step()
    assert float((other.weight - before).norm()) > 0.1
    loss_of(plain).backward()
    moved = [float((p - q).norm()) for p, q in zip(treated.parameters(), plain.parameters(), strict=True)]
    assert moved[0] < 1e-6
    assert moved[2] > 1e-4


@pytest.mark.parametrize(
    ("parameters", "said"),
    [({}, "one of norm and value"), ({"norm": 1.0, "value": 1.0}, "one of"), ({"norm": 0.0}, "must lie")],
)
def test_it_wants_one_limit(parameters: dict[str, float], said: str) -> None:
    model, _ = twins()
    with pytest.raises(SurgeryError, match=said):
        apply(model, clip(**parameters), optimizer=torch.optim.SGD(model.parameters()))


def test_what_can_not_be_clipped_is_refused() -> None:
    model, stranger = twins()
    with pytest.raises(SurgeryError, match="no optimizer at hand"):
        apply(model, clip(norm=1.0))
    with pytest.raises(SurgeryError, match="holds no parameter of this model"):
        apply(model, clip(norm=1.0), optimizer=torch.optim.SGD(stranger.parameters()))
    sparse = nn.Sequential(nn.Embedding(4, 4, sparse=True), nn.Linear(4, 1))
    with pytest.raises(SurgeryError, match="sparse"):
        apply(sparse, clip(value=1.0), optimizer=torch.optim.SGD(sparse.parameters()))

    class Unhooked(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            self.param_groups = [{"params": list(params)}]
            self.state = {}  # type: ignore[assignment]

    with pytest.raises(SurgeryError, match="step hooks"):
        apply(model, clip(norm=1.0), optimizer=Unhooked(model.parameters()))


def test_sparse_gradients_have_a_norm_too() -> None:
    torch.manual_seed(0)
    treated = nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 1))
    plain = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 1))
    plain.load_state_dict(treated.state_dict())
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (treated, plain)]
    apply(treated, clip(norm=1e-3), optimizer=optimizers[0])
    tokens = torch.tensor([1, 1, 4])  # twice the same row: its gradient comes in two pieces
    for model, optimizer in zip((treated, plain), optimizers, strict=True):
        model(tokens).square().sum().backward()
        if model is plain:
            nn.utils.clip_grad_norm_(plain.parameters(), 1e-3)
        optimizer.step()
    for p, q in zip(treated.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-8)
