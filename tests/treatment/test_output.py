"""The activation that makes the output, and what may stand there instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from treat_models import BlockLoop, Branches, Functional, Structured, chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def output(kind: str, target: str = "*") -> tuple[Prescription, ...]:
    return (Prescription(treatment="output", target=target, parameters={"kind": kind}),)


@pytest.mark.parametrize(
    ("end", "kind", "wanted"),
    [
        (nn.Softmax(dim=1), "identity", lambda z: z),
        (nn.ReLU(), "identity", lambda z: z),
        (nn.Sigmoid(), "log_softmax", lambda z: F.log_softmax(z, -1)),
        (nn.Softmax(dim=0), "log_softmax", lambda z: F.log_softmax(z, 0)),
        (nn.Softmax(dim=1), "sigmoid", torch.sigmoid),
        (nn.LogSoftmax(dim=1), "identity", lambda z: z),
    ],
)
@pytest.mark.parametrize("tail", [[], [nn.Flatten()]])
def test_a_module_at_the_end_is_exchanged(
    end: nn.Module, kind: str, wanted: object, tail: list[nn.Module]
) -> None:
    body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    model = nn.Sequential(*body, end, *tail)
    before = model(X)
    done = apply(model, output(kind))
    assert torch.allclose(model(X), wanted(body(X)))  # type: ignore[operator]
    assert type(model[1]) is nn.ReLU
    done.undo()
    assert torch.equal(model(X), before)


def test_a_function_at_the_end_is_exchanged_in_the_running_forward() -> None:
    torch.manual_seed(0)
    model = Functional().eval()
    logits: list[torch.Tensor] = []
    model.out.register_forward_hook(lambda _m, _i, z: logits.append(z))
    before = model(X, temperature=2.0)
    done = apply(model, output("log_softmax"))
    assert torch.allclose(model(X, temperature=2.0), F.log_softmax(logits[-1] / 2.0, 1))
    done.undo()
    done = apply(model, output("identity"))
    assert torch.equal(model(X, temperature=2.0), logits[-1] / 2.0)
    done.undo()
    assert torch.equal(model(X, temperature=2.0), before)


def test_what_a_loss_wants_is_put_behind_a_bare_last_layer() -> None:
    for model in (chain(3), Branches()):
        raw = model(X)
        keys = list(model.state_dict())
        apply(model, output("log_softmax"), batch=X)
        assert torch.allclose(model(X), F.log_softmax(raw, -1))
        assert list(model.state_dict()) == keys
    with pytest.raises(SurgeryError, match="with no activation"):
        apply(chain(3), output("identity"))


def test_classes_of_a_convolution_are_on_axis_1() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1))
    apply(model, output("log_softmax"))
    total = model(torch.randn(2, 1, 5, 5)).exp().sum(1)
    assert torch.allclose(total, torch.ones_like(total))


def test_one_unit_gets_a_gradient_again() -> None:
    model = nn.Sequential(nn.Linear(8, 1), nn.Softmax(dim=1))
    model(X).sum().backward()
    assert not model[0].weight.grad.abs().max() > 1e-6
    model.zero_grad()
    apply(model, output("sigmoid"))
    model(X).sum().backward()
    assert model[0].weight.grad.abs().max() > 1e-3


def test_an_instance_used_in_hidden_layers_too_is_not_exchanged() -> None:
    act = nn.Sigmoid()
    model = nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 1), act)
    with pytest.raises(SurgeryError, match="used in hidden layers as well"):
        apply(model, output("identity"))


@pytest.mark.parametrize(
    ("build", "kind", "said"),
    [
        (Structured, "identity", "several values"),
        (BlockLoop, "sigmoid", "made by sigmoid already"),
        (
            lambda: nn.Sequential(nn.Linear(8, 3), nn.LayerNorm(3)),
            "identity",
            "neither an activation nor a layer",
        ),
        (lambda: nn.Linear(8, 3), "sigmoid", "made by linear"),
    ],
)
def test_what_no_module_makes_is_refused(build: object, kind: str, said: str) -> None:
    with pytest.raises(SurgeryError, match=said) as caught:
        apply(build(), output(kind), batch=X)  # type: ignore[operator]
    assert caught.value.mend


def test_it_is_about_the_whole_model() -> None:
    with pytest.raises(SurgeryError, match="whole model"):
        apply(chain(), output("sigmoid", "0"))
