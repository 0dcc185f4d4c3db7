"""The calls of one real forward pass: the same graph that a symbolic trace gives, and no traces on the model."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from treat_models import (
    Attentive,
    Attributes,
    Bare,
    BlockLoop,
    Conv,
    Functional,
    FunctionalLoop,
    Gated,
    Stepwise,
    Strict,
)

from unvanish.schema.call import Batch
from unvanish.treatment.anatomy import read_anatomy
from unvanish.treatment.flow import Flow, record_flow, trace_flow
from unvanish.treatment.roles import HIDDEN
from unvanish.treatment.undisturbed import undisturbed

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def signature(flow: Flow) -> list[tuple[object, ...]]:
    """Without the code object of the site: torch.fx runs a copy of a forward that has keyword-only arguments."""
    return [
        (
            s.kind,
            s.path,
            s.activation,
            s.behind,
            s.gates,
            s.makes_output,
            s.site and (s.site.line, s.site.end_column),
        )
        for s in flow.stages
    ]


@pytest.mark.parametrize(
    ("build", "x"),
    [
        (Attributes, X), (FunctionalLoop, X), (BlockLoop, X), (Functional, X), (Attentive, X), (Bare, X), (Gated, X),
        (Conv, torch.randn(2, 1, 8, 8)), (Stepwise, X),
    ],
)  # fmt: skip
def test_both_ways_to_read_a_model_agree(build: type[nn.Module], x: torch.Tensor) -> None:
    model = build()
    traced, recorded = trace_flow(model), record_flow(model, Batch(args=(x,)))
    assert traced is not None and recorded is not None
    assert signature(recorded) == signature(traced)
    assert recorded.regions == traced.regions
    assert recorded.returns_one == traced.returns_one


def test_a_model_that_branches_is_known_with_a_batch_alone() -> None:
    model = Strict()
    assert read_anatomy(model).source == "containers"
    anatomy = read_anatomy(model, batch=Batch(args=(X,)))
    assert anatomy.source == "run"
    assert [layer.calls for layer in anatomy.layers] == [4, 4, 1]
    assert anatomy.roles.count(HIDDEN) == 4
    assert model.seen == 0


def test_nothing_is_left_on_the_model_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm, self.last, self.count = nn.Linear(8, 8), nn.BatchNorm1d(8), None, 0
            self.history: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print("forward")
            self.count += 1
            self.history.append(x)
            self.last = self.norm(self.fc(x))
            self.extra = self.last.requires_grad
            return self.last if x.sum() > -1e9 else x

    model = Remembers()
    state = random.getstate()
    mean = model.norm.running_mean.clone()
    assert record_flow(model, Batch(args=(X,))) is not None
    assert (model.last, model.count, model.history) == (None, 0, [])
    assert capsys.readouterr().out == ""
    assert not hasattr(model, "extra")
    assert torch.equal(model.norm.running_mean, mean)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert random.getstate() == state
    assert torch.is_grad_enabled()


def test_a_model_that_fails_on_the_batch_is_not_read_and_comes_back() -> None:
    model = Strict()
    assert record_flow(model, Batch(args=(torch.full((2, 8), torch.nan),))) is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model(X).shape == (4, 3)


def test_optional_arguments_are_left_out_of_a_trace() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.gate, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1)

        def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
            h = torch.tanh(self.fc(x))
            if context is not None:
                h = h * torch.sigmoid(self.gate(context))
            return self.head(h)

    flow = trace_flow(Optional())
    assert flow is not None
    assert [s.path or s.name for s in flow.stages] == ["fc", "tanh", "head"]


def test_sizes_may_be_made_of_the_data() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1] == 8
            h = torch.zeros(x.shape[0], 8)
            for _ in range(2):
                h = torch.tanh(self.fc(x) + h)
            return h

    flow = trace_flow(Sized())
    assert flow is not None
    assert [s.path or s.name for s in flow.stages] == ["fc", "add", "tanh"] * 2
    assert torch.zeros(2).sum() == 0  # torch's own function is back


def test_undisturbed_puts_attributes_back_after_an_error() -> None:
    model = Strict()

    def fail() -> None:
        with undisturbed(model):
            model.seen, model.other = 7, 1
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert model.seen == 0
    assert not hasattr(model, "other")
