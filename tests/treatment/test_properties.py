"""Every treatment on random nets of every style: carried out or refused, and taken back bit by bit."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import nn
from treat_models import (
    Attentive,
    Attributes,
    Bare,
    BlockLoop,
    Branches,
    Conv,
    Elman,
    Functional,
    FunctionalLoop,
    Gated,
    Stepwise,
    Strict,
    Structured,
    Tied,
    chain,
)

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply, apply_when_ready
from unvanish.treatment.registry import TREATMENTS


def of(treatment: str, target: str = "*", **parameters: object) -> tuple[Prescription, ...]:
    return (Prescription(treatment=treatment, target=target, parameters=parameters),)  # type: ignore[arg-type]


PLANS: dict[str, tuple[Prescription, ...]] = {
    "activation": of("activation", kind="leaky_relu", slope=0.1),
    "selu": of("activation", kind="selu"),
    "prelu": of("activation", kind="prelu"),
    "init": of("init", scheme="xavier"),
    "batchnorm": of("batchnorm"),
    "layernorm": of("layernorm"),
    "groupnorm": of("groupnorm"),
    "other_norms": of("batchnorm", at="norms"),
    "residual": of("residual", scale=0.5),
    "simplify": of("simplify", layers=2),
    "learning_rate": of("learning_rate", factor=0.5),
    "clip": of("clip", norm=0.1),
    "clip_value": of("clip", value=0.1),
    "gru": of("gated_rnn", cell="gru"),
    "lstm": of("gated_rnn", cell="lstm"),
    "inputs": of("inputs"),
    "float32": of("precision", mode="float32"),
    "bfloat16": of("precision", mode="bfloat16"),
    "guarded": of("precision", mode="guarded"),
    "loss_scaling": of("precision", mode="loss_scaling"),
    "master_weights": of("precision", mode="master_weights"),
    "reconnect": of("reconnect"),
    "output_identity": of("output", kind="identity"),
    "output_log_softmax": of("output", kind="log_softmax"),
    "much": of("activation", kind="elu") + of("groupnorm") + of("residual") + of("clip", norm=1.0) + of("learning_rate", factor=2),
    "more": of("inputs") + of("residual") + of("activation", kind="gelu") + of("batchnorm") + of("precision", mode="loss_scaling"),
}  # fmt: skip
STYLES: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    **{
        build.__name__: (build, lambda: torch.randn(12, 8))
        for build in (
            Attentive, Attributes, Bare, BlockLoop, Branches, Functional, FunctionalLoop, Gated, Stepwise, Strict,
            Structured, Tied, chain,
        )
    },
    "Conv": (Conv, lambda: torch.randn(12, 1, 8, 8)),
    "Elman": (lambda: Elman(num_layers=2), lambda: torch.randint(11, (12, 5))),
    "Gru": (lambda: Elman(nn.GRU, bidirectional=True), lambda: torch.randint(11, (12, 5))),
    "Transformer": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(32, 3)),
        lambda: torch.randn(12, 4, 8),
    ),
}  # fmt: skip
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3),
    "momentum": lambda p: torch.optim.SGD(
        [{"params": p[1:]}, {"params": p[:1], "lr": 1e-4}], lr=1e-3, momentum=0.9
    ),
    "adam": lambda p: torch.optim.Adam(
        [{"params": p[::2]}, {"params": p[1::2], "weight_decay": 0.1}], lr=1e-4, eps=1e-4
    ),
}


def total(out: Any) -> torch.Tensor:
    if isinstance(out, torch.Tensor):
        return out.float().square().mean()
    tensors = [t for t in out.values() if isinstance(t, torch.Tensor)]
    return torch.stack([total(t) for t in tensors]).sum()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        total(model(x)).backward()
        optimizer.step()


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """All that an undo has to bring back, with identities."""
    return {
        "tree": [(n, id(m), type(m), m.training) for n, m in model.named_modules(remove_duplicate=False)],
        "attributes": [[(k, id(v)) for k, v in m.__dict__.items()] for m in model.modules()],
        "hooks": [
            [len(d) for k, d in m.__dict__.items() if k.endswith("_hooks") and d is not None]
            for m in model.modules()
        ],
        "names": [
            (n, id(p), p.requires_grad, p.dtype, p.data_ptr(), len(p._backward_hooks or ()), id(p.grad))
            for n, p in model.named_parameters(remove_duplicate=False)
        ],
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "groups": [{**g, "params": [id(p) for p in g["params"]]} for g in optimizer.param_groups],
        "moments": {
            id(p): {k: torch.as_tensor(v).clone() for k, v in s.items()} for p, s in optimizer.state.items()
        },
        "step hooks": [len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)],
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [k for k in a if not same(a[k], b[k])]


def trained_ids(model: nn.Module) -> set[int]:
    return {id(p) for p in model.parameters() if p.requires_grad}


def held_ids(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(p) for g in optimizer.param_groups for p in g["params"]}


def seeded(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return total(model(x)).detach()


@st.composite
def cases(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor, torch.optim.Optimizer]:
    """A net of some style, perhaps in half or double precision, perhaps partly frozen, after two steps of training."""
    build, data = STYLES[draw(st.sampled_from(sorted(STYLES)))]
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float64, torch.float16]))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    model, x = build().to(dtype), data()
    x = x.to(dtype) if x.is_floating_point() else x
    if draw(st.booleans()):
        parameters = list(model.parameters())
        parameters[draw(st.integers(0, len(parameters) - 2))].requires_grad_(False)
    optimizer = OPTIMIZERS[draw(st.sampled_from(sorted(OPTIMIZERS)))](
        [p for p in model.parameters() if p.requires_grad]
    )
    train(model, optimizer, x, 2)
    model.train(draw(st.booleans()))
    return model, x, optimizer


@settings(max_examples=60, deadline=None)
@given(case=cases(), plan=st.sampled_from(sorted(PLANS)))
def test_treated_or_refused_and_taken_back(
    case: tuple[nn.Module, torch.Tensor, torch.optim.Optimizer], plan: str
) -> None:
    model, x, optimizer = case
    output, rng = seeded(model, x), torch.get_rng_state()
    before = everything(model, optimizer)
    try:
        done = apply(model, PLANS[plan], optimizer=optimizer, batch=x)
    except SurgeryError as error:
        refusal: SurgeryError | None = error
    else:
        refusal = None
    if refusal is not None:
        event("refused")
        assert refusal.mend
        assert "please report" not in refusal.mend
        assert differing(before, everything(model, optimizer)) == []
        assert torch.equal(torch.get_rng_state(), rng)
        return
    event("treated")
    assert torch.equal(torch.get_rng_state(), rng)
    assert held_ids(optimizer) == trained_ids(model)
    assert len({p.device for p in model.parameters()}) == 1
    done.undo()
    done.undo()
    assert differing(before, everything(model, optimizer)) == []
    assert same(seeded(model, x), output)


@settings(max_examples=40, deadline=None)
@given(case=cases(), plan=st.sampled_from(sorted(PLANS)))
def test_a_treated_model_is_a_model(
    case: tuple[nn.Module, torch.Tensor, torch.optim.Optimizer], plan: str
) -> None:
    """It is copied, pickled, saved, loaded into, and trained, as any other."""
    model, x, optimizer = case
    untreated = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        done = apply(model, PLANS[plan], optimizer=optimizer, batch=x)
    except SurgeryError:
        return
    model.eval()
    wanted = seeded(model, x)
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]  # noqa: S301
    for twin in copies:
        assert same(seeded(twin, x), wanted)
    copies[0].load_state_dict(torch.load(saved, weights_only=True))
    keys = done.key_map()
    now = dict(model.named_parameters())
    assert set(keys.values()) <= set(now)
    renamed = {keys[k]: v for k, v in untreated.items() if k in keys and keys[k] in model.state_dict()}
    assert renamed
    _missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected
    model.train()
    train(model, optimizer, x, 3)
    train(copies[1].train(), torch.optim.SGD(copies[1].parameters(), lr=1e-4), x, 1)
    if all(torch.isfinite(v).all() for v in untreated.values()):  # float16 may have overflown before
        assert all(torch.isfinite(p).all() for p in model.parameters())
    done.undo()
    train(model, optimizer, x, 1)


@settings(max_examples=25, deadline=None)
@given(case=cases(), plan=st.sampled_from(sorted(set(PLANS) - {"init"})))
def test_treated_in_the_middle_of_its_own_call_it_does_what_it_does_when_treated_before(
    case: tuple[nn.Module, torch.Tensor, torch.optim.Optimizer], plan: str
) -> None:
    model, x, _ = case
    twin = copy.deepcopy(model)
    optimizers = [
        torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=1e-3) for m in (model, twin)
    ]
    try:
        apply(twin, PLANS[plan], optimizer=optimizers[1], batch=x, seed=3)
    except SurgeryError:
        return
    begun: list[object] = []

    def treat(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not begun:
            begun.append(None)
            begun.append(apply(module, PLANS[plan], optimizer=optimizers[0], batch=args[0], seed=3))

    model.register_forward_pre_hook(treat)
    assert same(seeded(model, x), seeded(twin, x))
    assert same(seeded(model, x), seeded(twin, x))


@pytest.mark.parametrize("style", sorted(STYLES))
def test_what_waits_for_its_batch_comes_to_the_same(style: str) -> None:
    build, data = STYLES[style]
    torch.manual_seed(0)
    model, x = build(), data()
    twin = copy.deepcopy(model)
    optimizers = [
        torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=1e-3) for m in (model, twin)
    ]
    plan = of("inputs") + of("clip", norm=0.1)
    try:
        apply(twin, plan, optimizer=optimizers[1], batch=x, seed=3)
    except SurgeryError:
        return
    apply_when_ready(model, plan, optimizer=optimizers[0], seed=3)
    assert same(seeded(model, x), seeded(twin, x))


def test_every_treatment_is_among_the_plans() -> None:
    assert {p.treatment for plan in PLANS.values() for p in plan} == set(TREATMENTS.names())
