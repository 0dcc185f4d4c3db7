"""Half precision and its four cures, against float32 and float64 twins."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from treat_models import Structured, chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.loss_scale import SLOT, START
from unvanish.treatment.operate import apply

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
HALVES = [torch.float16, torch.bfloat16]


def precision(mode: str, target: str = "*") -> tuple[Prescription, ...]:
    return (Prescription(treatment="precision", target=target, parameters={"mode": mode}),)


def net(dtype: torch.dtype = torch.float16, depth: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return chain(depth, act=nn.Tanh).to(dtype)


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def loss_of(model: nn.Module, dtype: torch.dtype, factor: float = 1.0) -> torch.Tensor:
    return ((model(X.to(dtype)).float() - Y) ** 2).mean() * factor


# --- float32, bfloat16 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "made"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_float16_autocast_around_the_call_becomes_another(mode: str, made: torch.dtype) -> None:
    model = net(torch.float32)
    twin, plain = copy.deepcopy(model), model(X)
    done = apply(model, precision(mode))
    assert torch.equal(model(X), plain)  # no autocast, no change
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        with torch.autocast("cpu", dtype=torch.float16):
            out = each(X)
            assert each(X.half()).dtype == made
        assert out.dtype == made
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert each(X).dtype == torch.bfloat16
    if mode == "float32":
        tiny = 1e-9 * out.sum()
        (tiny * 1.0).backward()
        assert each[0].weight.grad.abs().max() > 0
    done.undo()
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(model(X), twin(X)) and model(X).dtype == torch.float16


@pytest.mark.parametrize("half", HALVES)
def test_float32_computes_in_float32_behind_the_scripts_dtype(half: torch.dtype) -> None:
    model = net(half)
    twin = copy.deepcopy(model).float()
    optimizer = torch.optim.Adam(model.parameters())
    done = apply(model, precision("float32"), optimizer=optimizer)
    out = model(X.to(half))
    assert out.dtype == half
    assert torch.equal(out, twin(X.to(half).float()).to(half))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    out.float().sum().backward()
    optimizer.step()
    assert {s["exp_avg"].dtype for s in optimizer.state.values()} == {torch.float32}
    done.undo()
    assert {p.dtype for p in model.parameters()} == {half}
    assert not optimizer.state


def test_undo_brings_the_very_bits_moments_and_gradients_back() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss_of(model, torch.float16).backward()
    optimizer.step()
    values = [p.detach().clone() for p in model.parameters()]
    grads = [p.grad for p in model.parameters()]
    storages = [p.data_ptr() for p in model.parameters()]
    moments = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    for mode in ("float32", "bfloat16", "loss_scaling", "master_weights"):
        apply(model, precision(mode), optimizer=optimizer).undo()
        for p, value, grad, place, moment in zip(
            model.parameters(), values, grads, storages, moments, strict=True
        ):
            assert p.dtype == value.dtype
            assert torch.equal(p, value)
            assert p.grad is grad
            assert p.data_ptr() == place
            assert optimizer.state[p]["momentum_buffer"] is moment
            assert not p._backward_hooks
        assert not optimizer._optimizer_step_pre_hooks
        assert SLOT not in model.__dict__
        assert type(model) is nn.Sequential


def test_bfloat16_has_the_range_that_float16_lacks() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight.mul_(1e4)
        model[0].bias.fill_(6e4)
    assert not torch.isfinite(model[0](X.half())).all()
    apply(model, precision("bfloat16"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.isfinite(model[0](X.bfloat16())).all()
    assert model(X.half()).dtype == torch.float16


class Pair(NamedTuple):
    first: Any
    second: Any


def test_whatever_goes_in_and_out_is_cast_and_nothing_else() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm = nn.Linear(8, 3), nn.BatchNorm1d(3)
            self.scale = torch.ones(3, dtype=torch.float16)

        def forward(self, x: dict[str, torch.Tensor], *, index: torch.Tensor) -> dict[str, object]:
            y = self.norm(self.fc(x["x"])) * self.scale
            return {"pair": Pair(y[index], [y]), "index": index, "rows": len(y), "none": None}

    model = Many().half()
    apply(model, precision("float32"))
    out = model({"x": X.half()}, index=torch.arange(4))
    assert isinstance(out["pair"], Pair)
    assert out["pair"].first.dtype == out["pair"].second[0].dtype == torch.float16
    assert out["index"].dtype == torch.int64
    assert (out["rows"], out["none"]) == (32, None)
    assert model.norm.running_mean.dtype == model.scale.dtype == torch.float32


def test_results_that_forward_widens_itself_stay_wide() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x).float() * 1e6

    model = Wide().half()
    apply(model, precision("float32"))
    assert model(X.half()).dtype == torch.float32
    assert torch.isfinite(model(X.half())).all()


def test_a_part_can_be_widened_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 3)).half()
    apply(model, precision("float32", "1"))
    assert [p.dtype for p in model.parameters()] == [torch.float16] * 2 + [torch.float32] * 2 + [
        torch.float16
    ] * 2
    assert model(X.half()).dtype == torch.float16
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8))).half()
    model[1][0].weight = model[0].weight
    with pytest.raises(SurgeryError, match="shares a weight"):
        apply(model, precision("float32", "1"))


class Casts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.half())


class OwnAutocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            return self.fc(x)


@pytest.mark.parametrize(
    ("model", "mode", "said"),
    [
        (chain().double(), "float32", "the weights are float64, not float16"),
        (OwnAutocast(), "bfloat16", "enters torch.autocast itself"),
        (chain().bfloat16(), "bfloat16", "the weights are bfloat16"),
        (Casts().half(), "float32", r"casts to half precision itself \(\.half\)"),
        (nn.Sequential(nn.Linear(8, 8).half(), nn.Linear(8, 1).bfloat16()), "float32", "mixes"),
        (chain(), "master_weights", "no trained weight is in half precision"),
        (chain().double(), "loss_scaling", "needs no loss scaling"),
        (chain().bfloat16(), "loss_scaling", "needs no loss scaling"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_mend(model: nn.Module, mode: str, said: str) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(SurgeryError, match=said) as caught:
        apply(model, precision(mode), optimizer=sgd(model))
    assert caught.value.mend
    assert all(
        torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items()
    )


@pytest.mark.parametrize("mode", ["loss_scaling", "master_weights"])
def test_these_two_need_an_optimizer_and_come_once(mode: str) -> None:
    model = net()
    with pytest.raises(SurgeryError, match="no optimizer at hand"):
        apply(model, precision(mode))
    optimizer = sgd(model)
    apply(model, precision("loss_scaling"), optimizer=optimizer)
    with pytest.raises(SurgeryError, match="scaled already"):
        apply(model, precision(mode), optimizer=optimizer)


# --- loss scaling -----------------------------------------------------------------------------------------


def test_gradients_are_the_true_ones_at_parameters_and_inputs_in_float32() -> None:
    model = net(torch.float32)
    twin, optimizer = copy.deepcopy(model), sgd(model)
    apply(model, precision("loss_scaling"), optimizer=optimizer)
    x, z = X.clone().requires_grad_(), X.clone().requires_grad_()
    (model(x) - Y).pow(2).mean().backward()
    (twin(z) - Y).pow(2).mean().backward()
    assert torch.allclose(x.grad, z.grad, atol=1e-9)  # a power of two: exact but for the smallest
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)  # the script's own clipping sees true gradients
    nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
    assert all(
        torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), twin.parameters(), strict=True)
    )


def test_a_signal_that_float16_loses_under_autocast_arrives() -> None:
    def gradient(*, scaled: bool) -> torch.Tensor:
        model = net(torch.float32, depth=6)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.3)
        if scaled:
            apply(model, precision("loss_scaling"), optimizer=sgd(model))
        with torch.autocast("cpu", dtype=torch.float16):
            out = model(X)
        (out.float() * 1e-4).mean().backward()
        return model[0].weight.grad

    assert not gradient(scaled=False).any()
    true = net(torch.float64, depth=6)
    with torch.no_grad():
        for p in true.parameters():
            p.mul_(0.3)
    (true(X.double()) * 1e-4).mean().backward()
    assert torch.allclose(gradient(scaled=True).double(), true[0].weight.grad, rtol=0.05, atol=1e-11)


def test_a_step_that_meets_infinity_is_skipped_and_the_scale_halves() -> None:
    model = net(torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    apply(model, precision("loss_scaling"), optimizer=optimizer)
    state = model.__dict__[SLOT]
    before = [p.detach().clone() for p in model.parameters()]
    (model(X) * torch.tensor(3e38)).sum().backward()
    assert not all(torch.isfinite(p.grad).all() for p in model.parameters())
    kept = [p.grad for p in model.parameters()]
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert not optimizer.state
    assert all(p.grad is g for p, g in zip(model.parameters(), kept, strict=True))
    optimizer.zero_grad()
    model(X).sum().backward()
    assert state.scale == START / 2
    optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_the_scale_doubles_after_two_thousand_good_steps() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    optimizer = sgd(model, 0.0)
    apply(model, precision("loss_scaling"), optimizer=optimizer)
    state, x = model.__dict__[SLOT], torch.ones(1, 1)
    model(x).sum().backward()
    for _ in range(2000):
        assert state.scale == START
        optimizer.step()
    model(x)
    assert state.scale == 2 * START


def test_a_result_may_be_changed_in_place_and_one_that_can_not_be_reached_is_an_error() -> None:
    class Box:
        def __init__(self, x: torch.Tensor) -> None:
            self.x = x

    class Boxed(nn.Module):
        def __init__(self, *, box: bool) -> None:
            super().__init__()
            self.fc, self.box = nn.Linear(8, 3), box

        def forward(self, x: torch.Tensor) -> object:
            return Box(self.fc(x)) if self.box else self.fc(x)

    for box in (False, True):
        model = Boxed(box=box)
        apply(model, precision("loss_scaling"), optimizer=sgd(model))
        if box:
            with pytest.raises(SurgeryError, match="returns a Box"):
                model(X)
        else:
            out = model(X)
            out += 1
            out.sum().backward()
            assert torch.allclose(model.fc.bias.grad, torch.full((3,), 32.0))


def test_dicts_are_scaled_and_frozen_parts_are_left_alone() -> None:
    model = Structured()
    twin, optimizer = copy.deepcopy(model), sgd(model)
    apply(model, precision("loss_scaling"), optimizer=optimizer)
    for each in (model, twin):
        out = each(X)
        assert out["rows"] == 32
        (out["mean"].sum() + out["value"].pow(2).sum()).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.allclose(p.grad, q.grad)


def test_what_is_unfrozen_later_is_unscaled_too() -> None:
    model = net(torch.float32)
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    apply(model, precision("loss_scaling"), optimizer=optimizer)
    model[0].requires_grad_(True)
    twin = net(torch.float32)
    for each in (model, twin):
        each(X).sum().backward()
    assert torch.allclose(model[0].weight.grad, twin[0].weight.grad)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_a_copy_does_not_scale_since_no_optimizer_is_hooked_for_it(make: object) -> None:
    model = net(torch.float32)
    apply(model, precision("loss_scaling"), optimizer=sgd(model))
    twin, plain = make(model), net(torch.float32)  # type: ignore[operator]
    for each in (twin, plain):
        each(X).sum().backward()
    assert all(
        torch.equal(p.grad, q.grad) for p, q in zip(twin.parameters(), plain.parameters(), strict=True)
    )


# --- master weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", HALVES)
def test_updates_too_small_for_half_precision_add_up(half: torch.dtype) -> None:
    treated, lost, true = net(half), net(half), net(torch.float32)
    with torch.no_grad():
        for p, q in zip(true.parameters(), treated.parameters(), strict=True):
            p.copy_(q)
    optimizers = [sgd(m, 1e-5) for m in (treated, lost, true)]
    apply(treated, precision("master_weights"), optimizer=optimizers[0])
    start = [p.detach().clone() for p in true.parameters()]
    for _ in range(60):
        for model, optimizer in zip((treated, lost, true), optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(model, torch.float32 if model is true else half, factor=10).backward()
            optimizer.step()
    moved = sum((p - s).norm() for p, s in zip(true.parameters(), start, strict=True))
    masters = optimizers[0]._optimizer_step_pre_hooks
    assert masters
    off = {}
    for name, model in (("treated", treated), ("lost", lost)):
        off[name] = sum(
            (p.float() - q).abs().gt(0.75 * torch.finfo(half).eps * q.abs() + 1e-6).sum()
            for p, q in zip(model.parameters(), true.parameters(), strict=True)
        )
    assert moved > 0
    assert (
        off["treated"] < off["lost"] / 4
    )  # the rounded masters are where float32 is; updates alone were lost


def test_for_the_time_of_a_step_the_optimizer_sees_float32() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    apply(model, precision("master_weights"), optimizer=optimizer)
    seen: list[set[torch.dtype]] = []
    optimizer.register_step_pre_hook(
        lambda o, _a, _k: seen.append(
            {t.dtype for g in o.param_groups for p in g["params"] for t in (p, p.grad)}
        )
    )
    held = list(model.parameters())
    loss_of(model, torch.float16).backward()
    optimizer.step()
    assert seen == [{torch.float32}]
    assert all(a is b for a, b in zip(held, model.parameters(), strict=True))
    assert {t.dtype for p in held for t in (p, p.grad)} == {torch.float16}
    assert {s["exp_avg_sq"].dtype for s in optimizer.state.values()} == {torch.float32}
    optimizer.load_state_dict(
        copy.deepcopy(optimizer.state_dict())
    )  # which casts moments to the weights' dtype
    loss_of(model, torch.float16).backward()
    optimizer.step()
    assert {s["exp_avg_sq"].dtype for s in optimizer.state.values()} == {torch.float32}


@pytest.mark.parametrize("clipped", [False, True])
def test_gradients_below_float16_reach_the_masters(clipped: bool) -> None:
    """The gradients of the first layers are around 1e-9, and Adam normalises them: they must not be zero."""

    def trained(*, treated: bool, dtype: torch.dtype) -> nn.Module:
        model = net(dtype)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-20)
        if treated:
            apply(model, precision("master_weights"), optimizer=optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            (model(X.to(dtype)) * 1e-5).mean().backward()
            if clipped:
                nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
            optimizer.step()
        return model

    treated, true = trained(treated=True, dtype=torch.float16), trained(treated=False, dtype=torch.float32)
    start = net()
    for p, q, s in zip(treated.parameters(), true.parameters(), start.parameters(), strict=True):
        direction = torch.cosine_similarity(
            (p.float() - s.float()).flatten(), (q - s.float()).flatten(), dim=0
        )
        assert direction > 0.98


def test_weights_that_the_script_writes_are_the_ones_that_count() -> None:
    model = net()
    optimizer = sgd(model, 1e-4)
    apply(model, precision("master_weights"), optimizer=optimizer)
    loss_of(model, torch.float16).backward()
    optimizer.step()
    other = net(depth=4)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.5)
    model.load_state_dict(other.state_dict())
    optimizer.zero_grad()
    loss_of(model, torch.float16).backward()
    optimizer.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(p.float(), q.float(), atol=2e-3)


def test_a_closure_is_evaluated_in_half_precision() -> None:
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    apply(model, precision("master_weights"), optimizer=optimizer)
    dtypes: set[torch.dtype] = set()

    def closure() -> torch.Tensor:
        dtypes.update(p.dtype for p in model.parameters())
        optimizer.zero_grad()
        loss = loss_of(model, torch.float16)
        loss.backward()
        return loss

    first = float(optimizer.step(closure).detach())
    for _ in range(3):
        optimizer.step(closure)
    assert dtypes == {torch.float16}
    assert float(loss_of(model, torch.float16).detach()) < 0.8 * first
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_an_infinite_gradient_skips_the_masters_too() -> None:
    model = net()
    optimizer = sgd(model)
    apply(model, precision("master_weights"), optimizer=optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    (model(X.half()) * 60000).sum().backward()
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    optimizer.zero_grad()
    loss_of(model, torch.float16).backward()
    optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_accumulated_gradients_are_summed_in_float32() -> None:
    model = net()
    twin = copy.deepcopy(model).float()
    optimizer, other = sgd(model, 1.0), sgd(twin, 1.0)
    apply(model, precision("master_weights"), optimizer=optimizer)
    moved: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(
        lambda o, _a, _k: moved.extend(p.grad.clone() for p in model.parameters())
    )
    for rows in range(0, 32, 4):
        for each, dtype in ((model, torch.float16), (twin, torch.float32)):
            (each(X[rows : rows + 4].to(dtype)) * 1e-3).mean().backward()
    optimizer.step()
    other.step()
    for got, q in zip(moved, twin.parameters(), strict=True):
        assert got.dtype == torch.float32
        assert float((got - q.grad).norm()) <= 0.01 * float(q.grad.norm())
