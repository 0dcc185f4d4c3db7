"""The check: verdicts on nets whose fate is known, changes that carry, and a model that is as before."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from precheck_nets import CASES, Functional, Recalls, Restless, batch, he, sigmoids
from torch import nn
from torch.nn import functional as F

import unvanish
from unvanish.errors import CaptureError, UsageError


@pytest.mark.parametrize(
    ("build", "verdict", "kind", "cause"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_the_verdict(build: Callable[[], nn.Module], verdict: str, kind: str, cause: str) -> None:
    torch.manual_seed(0)
    diagnosis = unvanish.check(build(), batch(), F.cross_entropy)
    (model,) = diagnosis.models
    first = model.findings[0] if model.findings else None
    assert diagnosis.verdict == verdict
    assert (first.kind, first.cause) == (kind, cause) if kind else first is None


def test_the_message_of_the_product() -> None:
    """Three popular fixes leave the sigmoid net stuck, and the chain-rule factor says so before training."""
    torch.manual_seed(0)
    check = unvanish.check(sigmoids(), batch(), F.cross_entropy).check
    assert check is not None
    by_name = {c.name: c for c in check.changes}
    for name, gain in (("relu", 0.167), ("xavier", 0.055), ("lsuv", 0.155)):
        assert not by_name[name].carries
        assert by_name[name].measured_gain == pytest.approx(gain, rel=0.15)
        assert by_name[name].predicted_gain == pytest.approx(gain, rel=0.15)
    for name, gain in (
        ("relu_he", 1.0),
        ("leaky_relu_he", 1.0),
        ("centred", 0.9),
        ("batchnorm", 1.05),
        ("residual", 1.1),
    ):
        assert by_name[name].carries, name
        assert by_name[name].measured_gain == pytest.approx(gain, rel=0.15)
    assert [c.carries for c in check.changes] == sorted((c.carries for c in check.changes), reverse=True)
    assert check.changes[0].name in ("relu_he", "leaky_relu_he", "centred")
    assert check.depth is not None and (check.depth.now, check.depth.greatest) == (13, 2)
    assert check.predicted_gain == pytest.approx(0.0198, rel=0.05)
    assert check.measured_gain == pytest.approx(0.0198, rel=0.15)


def test_the_json_holds_the_contract_s_keys_and_the_check() -> None:
    torch.manual_seed(0)
    diagnosis = unvanish.check(sigmoids(depth=3), batch())
    data = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert {"schema", "tool", "verdict", "models", "run", "check"} == set(data)
    check = data["check"]
    assert {"layers", "depth", "changes", "wall_seconds"} <= set(check)
    assert {"name", "predicted", "band", "measured", "why_no_prediction"} <= set(check["layers"][1])
    assert {"name", "treatment", "predicted_gain", "measured_gain", "carries", "words"} <= set(
        check["changes"][0]
    )
    assert check["layers"][1]["band"][0] < check["layers"][1]["measured"] < check["layers"][1]["band"][1]
    assert "Verdict" in str(diagnosis)


def state(model: nn.Module) -> Any:
    return {
        "tensors": {k: v.clone() for k, v in model.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "spaces": [sorted(m.__dict__) for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def seed_all() -> None:
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002 - the global generators must not move


def draw() -> tuple[float, ...]:
    return torch.rand(1).item(), random.random(), float(np.random.rand())  # noqa: NPY002


def test_the_model_and_the_random_states_are_as_before() -> None:
    torch.manual_seed(0)
    model, (x, y) = Restless(), batch()
    F.cross_entropy(model(x), y).backward()
    model.two.eval()
    called: list[torch.Tensor] = []
    model.one.weight.register_hook(called.append)
    before, attributes = state(model), (model.calls, list(model.seen), model.last)
    seed_all()
    unvanish.check(model, (x, y), F.cross_entropy)
    drawn = draw()
    seed_all()
    assert drawn == draw()
    assert same(before, state(model))
    assert (model.calls, model.seen, model.last) == attributes
    assert not called
    assert nn.Module.__call__.__module__.startswith("torch")


def test_the_same_seed_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    model = he()
    a, b = (unvanish.check(copy.deepcopy(model), batch(), seed=3).check for _ in range(2))
    assert a is not None and b is not None
    assert a.layers == b.layers
    assert [c.signal for c in a.changes] == [c.signal for c in b.changes]


def test_the_signal_is_that_of_autograd() -> None:
    """The slow twin: one random cotangent, sent back by hand, its norms at every layer's output in float64."""
    torch.manual_seed(0)
    model, (x, _) = sigmoids(depth=4).double(), batch()
    x = x.double()
    from unvanish.precheck.layers import gains_of
    from unvanish.precheck.measure import measure
    from unvanish.schema.call import Batch

    gains = gains_of(measure(model, Batch(args=(x,)), probes=1, seed=7))
    outputs, h = [], x
    for module in model:
        h = module(h)
        if isinstance(module, nn.Linear):
            outputs.append(h)
    noise = torch.randn(h.shape, generator=torch.Generator().manual_seed(7)).double()
    norms = [float(g.norm()) for g in torch.autograd.grad((h * noise).sum(), outputs)]
    twins = [(a / b) ** 2 for a, b in pairwise(norms)]
    assert [g.measured for g in gains[1:]] == pytest.approx(twins, rel=1e-9)


def test_an_adaptive_optimizer_is_not_known_here_and_rates_do_not_matter() -> None:
    torch.manual_seed(0)
    (model,) = unvanish.check(sigmoids(depth=4), batch()).models
    assert model.findings[0].severity == "critical"


def test_what_fades_through_time() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 60, 4)
    (model,) = unvanish.check(Recalls(), x).models
    assert model.verdict == "sick" and model.findings[0].cause == "recurrence"


def test_where_theory_has_no_say_it_says_so_and_measures() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.Softmax(-1), nn.Linear(64, 64), nn.GLU(), nn.Linear(32, 10))
    check = unvanish.check(net, batch()[0]).check
    assert check is not None
    assert all(layer.predicted is None and layer.why_no_prediction for layer in check.layers)
    assert all(layer.measured is not None for layer in check.layers[1:])


def test_without_weights_theory_speaks_alone() -> None:
    with torch.device("meta"):
        model, x = sigmoids(), torch.randn(64, 64)
    diagnosis = unvanish.check(model, x)
    check = diagnosis.check
    assert check is not None and diagnosis.verdict == "sick"
    assert check.predicted_gain == pytest.approx(0.0198, rel=0.05)
    assert check.measured_gain is None and all(layer.measured is None for layer in check.layers)
    assert {c.name: c.carries for c in check.changes}["relu_he"]
    assert not {c.name: c.carries for c in check.changes}["relu"]
    assert all(p.is_meta for p in model.parameters())


def test_a_large_batch_is_thinned_for_a_large_net() -> None:
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(1024, 1024), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(1024, 10))
    began = time.perf_counter()
    diagnosis = unvanish.check(
        model, (torch.randn(8192, 1024), torch.zeros(8192, dtype=torch.long)), F.cross_entropy
    )
    assert time.perf_counter() - began < 60
    (model_,) = diagnosis.models
    assert any("of its 8192 rows" in s.why for s in model_.skipped)
    assert model_.loss.first is not None


def test_batches_of_every_kind() -> None:
    torch.manual_seed(0)
    model, (x, y) = he(depth=2), batch()
    assert unvanish.check(model, x).models[0].loss.first is None
    assert unvanish.check(model, [x, y]).models[0].loss.first is None
    assert unvanish.check(model, (x, y), F.cross_entropy).models[0].loss.first == pytest.approx(2.4, abs=1.0)
    assert unvanish.check(model, {"input": x, "labels": y}, F.cross_entropy).models[0].loss.first is not None


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((nn.Linear, torch.zeros(2, 2)), UsageError, "instantiate it first"),
        (("net", torch.zeros(2, 2)), UsageError, "received a str"),
        ((nn.ReLU(), torch.zeros(2, 2)), UsageError, "no parameters"),
        ((nn.Linear(4, 2), 3.0), UsageError, "as the training loop has it"),
        ((nn.Linear(4, 2), {"nothing": torch.zeros(2, 4)}), UsageError, "its arguments are input"),
        ((nn.Linear(4, 2), torch.zeros(2, 3)), CaptureError, "the model fails on the batch"),
        ((nn.Linear(4, 2).requires_grad_(False), torch.zeros(2, 4)), CaptureError, "requires_grad"),
        ((nn.Linear(4, 2), torch.zeros(2, 4), lambda o: o), CaptureError, "return one number"),
        ((nn.Linear(4, 2), torch.zeros(2, 4), F.cross_entropy), CaptureError, "the loss function fails"),
    ],
)
def test_bad_input_names_mistake_and_mend(
    arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        unvanish.check(*arguments)


def test_functional_activations_are_seen_and_swapped() -> None:
    torch.manual_seed(0)
    diagnosis = unvanish.check(Functional(), batch()[0])
    check = diagnosis.check
    assert check is not None and check.predicted_gain == pytest.approx(0.0198, rel=0.1)
    carries = {change.name: change.carries for change in check.changes}
    assert carries["relu_he"] and not carries["xavier"]  # functions called in forward are swapped, too
    assert {c.name: c.carries for c in check.changes}["centred"]
