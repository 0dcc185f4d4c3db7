"""The rules on small real nets that are trained here: sick ones, their look-alikes, and invariances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import CLASSES, FEATURES, Skip, he, judge, mlp, run_of, spread, train
from torch import nn
from watching import Seen

from unvanish.diagnose import engine
from unvanish.diagnose.facts import THRESHOLD, facts_of
from unvanish.diagnose.rule import Rule

SICK: dict[str, tuple[Callable[[], Seen], str, str, str | None]] = {
    "deep sigmoid": (lambda: train(mlp(10, nn.Sigmoid), 0.1), "vanishing_gradients", "saturating_activation", "0"),
    "5 sigmoid layers": (lambda: train(mlp(6, nn.Sigmoid), 0.05), "vanishing_gradients", "saturating_activation", "0"),
    "10 ReLU layers, default init": (lambda: train(mlp(12, nn.ReLU), 0.05), "vanishing_gradients", "init_too_small", "0"),
    "tanh, small init": (lambda: train(mlp(12, nn.Tanh, init=spread(0.05)), 0.05), "vanishing_gradients", "init_too_small", "0"),
    "ReLU without biases, small init": (
        lambda: train(mlp(10, nn.ReLU, bias=False, init=spread(0.04)), 0.05), "vanishing_gradients", "init_too_small", None,
    ),
    "20 sigmoid layers under Adam": (
        lambda: train(mlp(20, nn.Sigmoid), 1e-3, optimizer="Adam", steps=160), "vanishing_gradients", "saturating_activation", "0",
    ),
    "20 steps suffice": (lambda: train(mlp(10, nn.Sigmoid), 0.1, steps=20), "vanishing_gradients", "saturating_activation", "0"),
    "large init": (lambda: train(mlp(12, nn.ReLU, init=spread(1.5)), 0.1), "exploding_gradients", "init_too_large", None),
    "giant learning rate": (lambda: train(mlp(4, nn.ReLU), 500.0), "exploding_gradients", "learning_rate", None),
    "biases at -20": (lambda: train(_shifted(mlp(4, nn.ReLU), -20.0), 0.1), "dead_units", "bias_drift", "4"),
}  # fmt: skip


def _shifted(net: nn.Sequential, bias: float) -> nn.Sequential:
    for module in net:
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.bias, bias)
    return net


@pytest.mark.parametrize("name", SICK)
def test_sick_nets(name: str) -> None:
    make, kind, cause, layer = SICK[name]
    torch.manual_seed(3)
    model = judge(make())
    assert model.verdict == "sick", model.reason
    first = model.findings[0]
    assert (first.kind, first.cause) == (kind, cause), first.summary
    assert layer is None or first.layers[0] == layer
    assert first.severity in ("critical", "warning") and 0.5 < first.confidence <= 1
    if kind == "vanishing_gradients":
        assert first.attribution.total < THRESHOLD


WELL: dict[str, Callable[[], Seen]] = {
    "3 ReLU layers": lambda: train(mlp(3, nn.ReLU), 0.1),
    "20 ReLU layers, He": lambda: train(mlp(20, nn.ReLU, init=he), 0.02, steps=160),
    "12 sigmoid layers with batch norm": lambda: train(mlp(12, nn.Sigmoid, norm=nn.BatchNorm1d), 0.1),
    "3 sigmoid layers under Adam": lambda: train(mlp(3, nn.Sigmoid), 0.02, optimizer="Adam"),
    "20 residual blocks": lambda: train(
        nn.Sequential(
            nn.Linear(FEATURES, 32),
            *[Skip(nn.LayerNorm(32), nn.Linear(32, 32), nn.ReLU()) for _ in range(20)],
            nn.Linear(32, CLASSES),
        ),
        0.01,
    ),
    "loss times 1e-5": lambda: train(mlp(3, nn.ReLU), 1e4, scale=1e-5),
    "loss times 1e5": lambda: train(mlp(3, nn.ReLU), 1e-6, scale=1e5),
    "converged": lambda: train(mlp(3, nn.ReLU), 0.02, optimizer="Adam", steps=250),
    "batches of 4": lambda: train(mlp(4, nn.ReLU), 0.05, batch=4, steps=250),
    "dropout": lambda: train(
        nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, CLASSES)), 0.1
    ),
    "frozen on purpose": lambda: train(_frozen(mlp(3, nn.ReLU)), 0.1),
    "a head that starts at zero": lambda: train(_zero_head(mlp(4, nn.ReLU, init=he)), 0.1),
}


def _frozen(net: nn.Sequential) -> nn.Sequential:
    net[0].requires_grad_(False)
    return net


def _zero_head(net: nn.Sequential) -> nn.Sequential:
    nn.init.zeros_(net[-1].weight)  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize("name", WELL)
def test_well_nets(name: str) -> None:
    torch.manual_seed(3)
    model = judge(WELL[name]())
    assert model.verdict == "healthy", (model.reason, model.findings)
    assert not model.findings


def test_nothing_wrong_with_the_gradient_is_not_called_healthy_while_nothing_is_learnt() -> None:
    torch.manual_seed(3)
    model = judge(train(mlp(3, nn.ReLU), 1e-9))
    assert model.verdict == "not_learning"
    assert [f.kind for f in model.findings] == ["learning_rate_too_small"]


def test_a_net_in_its_first_steps_is_not_yet_anything() -> None:
    torch.manual_seed(3)
    model = judge(train(mlp(3, nn.ReLU), 0.1, steps=4))
    assert model.verdict == "inconclusive" and "only 4 steps" in model.reason


def _levels(net: nn.Module, *, scale: float = 1.0) -> list[float]:
    seen = train(net, 0.0, steps=1, scale=scale)
    return [signal.starvation for signal in facts_of(seen.model).profiles[0].layers]


def test_starvation_does_not_depend_on_the_scale_of_the_loss() -> None:
    torch.manual_seed(0)
    net = mlp(8, nn.Sigmoid)
    reference = _levels(net)
    for scale in (1e-5, 1e5):
        assert _levels(net, scale=scale) == pytest.approx(reference, abs=1e-3)


def test_starvation_does_not_move_when_a_layer_is_rescaled_and_the_next_one_undoes_it() -> None:
    torch.manual_seed(0)
    net = mlp(5, nn.ReLU, init=he)
    reference = _levels(net)
    with torch.no_grad():
        net[2].weight.mul_(100)  # type: ignore[operator, union-attr]
        net[2].bias.mul_(100)  # type: ignore[operator, union-attr]
        net[4].weight.div_(100)  # type: ignore[operator, union-attr]
    assert _levels(net) == pytest.approx(reference, abs=0.01)


def test_starvation_does_not_move_when_units_are_permuted() -> None:
    torch.manual_seed(0)
    net = mlp(5, nn.Sigmoid)
    reference = _levels(net)
    order = torch.randperm(32)
    with torch.no_grad():
        for tensor in (net[2].weight, net[2].bias):
            tensor.copy_(tensor[order].clone())  # type: ignore[union-attr, operator, index]
        net[4].weight.copy_(net[4].weight[:, order].clone())  # type: ignore[union-attr, operator, index]
    assert _levels(net) == pytest.approx(reference, abs=1e-4)


def test_a_rule_that_fails_is_listed_and_the_others_go_on() -> None:
    def broken(facts: Any) -> Any:
        raise ZeroDivisionError("a fault of ours")

    rule = Rule(kind="plateau", check=broken, why="w", wrong_when="x", source="y")
    torch.manual_seed(3)
    run = run_of(train(mlp(10, nn.Sigmoid), 0.1, steps=60))
    (model,) = engine.diagnose_run(run, version="0", rules=(rule, *engine.RULES)).models
    assert model.verdict == "sick"
    assert any(s.what == "plateau" and "a fault of ours" in s.why for s in model.skipped)


def test_a_rule_must_say_what_it_rests_on() -> None:
    with pytest.raises(ValueError, match="must state"):
        Rule(kind="plateau", check=lambda facts: (), why="", wrong_when="x", source="y")
