"""Norms between layer and activation: where the features are, how many groups, and what one sample does to another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from treat_models import Conv, FunctionalLoop, Strict, chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.anatomy import read_anatomy
from unvanish.treatment.norms import FeatureBatchNorm, FeatureGroupNorm
from unvanish.treatment.operate import apply
from unvanish.treatment.treatments.groupnorm import groups_for


def norm(treatment: str, **parameters: object) -> tuple[Prescription, ...]:
    return (Prescription(treatment=treatment, parameters=parameters),)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(features=st.integers(1, 2048))
def test_the_default_number_of_groups_is_the_largest_that_fits(features: int) -> None:
    groups = groups_for(features)
    naive = [g for g in range(1, 33) if features % g == 0 and features / g >= 4]
    assert groups == (max(naive) if naive else 1)


@pytest.mark.parametrize("shape", [(6, 8), (3, 5, 8), (2, 3, 4, 8), (8,)])
def test_feature_norms_are_torchs_own_over_rows(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(*shape)
    rows = x.reshape(-1, 8)
    group, plain_group = FeatureGroupNorm(2, 8), nn.GroupNorm(2, 8)
    assert torch.allclose(group(x), plain_group(rows).reshape(shape))
    if len(rows) > 1:
        batch, plain_batch = FeatureBatchNorm(8), nn.BatchNorm1d(8)
        assert torch.allclose(batch(x), plain_batch(rows).reshape(shape))
        assert torch.equal(batch.running_mean, plain_batch.running_mean)


def test_a_batch_norm_behind_a_linear_on_sequences_normalises_features_and_not_steps() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    apply(model, norm("batchnorm"))
    x = torch.randn(
        16, 8, 4
    )  # as many steps as features: torch's own BatchNorm1d would take the steps, silently
    inner = model[1](model[0](x))
    assert inner.mean((0, 1)).abs().max() < 1e-5
    assert torch.allclose(inner.var((0, 1), unbiased=False), torch.ones(8), atol=1e-3)


@pytest.mark.parametrize("treatment", ["groupnorm", "layernorm"])
def test_a_sample_is_treated_alike_in_every_batch_and_in_evaluation(treatment: str) -> None:
    torch.manual_seed(0)
    for build, x in ((chain, torch.randn(8, 8)), (Conv, torch.randn(8, 1, 8, 8))):
        model = build()
        apply(model, norm(treatment))
        together = model(x)
        alone = torch.cat([model(row[None]) for row in x])
        assert torch.allclose(together, alone, atol=1e-6)
        assert torch.equal(model.eval()(x), together)


def test_convolutions_get_groups_of_channels_and_linears_of_features() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 2)
    )
    apply(model, norm("groupnorm"))
    assert type(model[1]) is nn.GroupNorm
    assert model[1].num_groups == 16
    assert isinstance(model[5], FeatureGroupNorm)
    assert model[5].num_groups == 6
    model(torch.randn(2, 1, 3, 3))


def test_groups_that_do_not_divide_are_refused_and_nothing_is_left() -> None:
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 1))
    with pytest.raises(SurgeryError, match="4 groups do not divide the 10 features of 2"):
        apply(model, norm("groupnorm", groups=4))
    assert len(model) == 5
    with pytest.raises(SurgeryError, match="single feature"):
        apply(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)), norm("groupnorm", groups=8))
    apply(model, norm("groupnorm", groups=2))
    assert [m.num_groups for m in model if isinstance(m, nn.GroupNorm)] == [2, 2]


def test_recurrent_steps_get_a_norm_without_statistics_and_no_batch_norm() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.act, self.head = nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = self.act(self.step(x))
            return self.head(x)

    for treatment in ("layernorm", "groupnorm"):
        model = Recurrent()
        apply(model, norm(treatment))
        model(torch.randn(2, 8))
    with pytest.raises(SurgeryError, match="called 3 times"):
        apply(Recurrent(), norm("batchnorm"))


def test_scripts_still_find_the_layer_behind_its_name() -> None:
    model = FunctionalLoop()
    weight = model.layers[0].weight
    apply(model, norm("batchnorm"))
    assert model.layers[0].weight is weight
    assert model.layers[0].in_features == 8
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = model.layers[0].no_such_thing
    assert [layer.normed for layer in read_anatomy(model).layers] == [True] * 4 + [False]


def test_a_layer_whose_sum_is_activated_has_no_place_for_a_norm() -> None:
    with pytest.raises(SurgeryError, match="no layer has an activation straight behind it"):
        apply(Strict(), norm("groupnorm"), batch=torch.randn(4, 8))


class OwnNorm(nn.Module):
    """As scripts write it: without an epsilon."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(0)) / x.std(0)


def normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.GroupNorm(8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 8), OwnNorm(), nn.ReLU(), nn.Linear(8, 4), nn.LayerNorm(4),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("treatment", "wanted"),
    [
        ("layernorm", ["GroupNorm", "PlainNorm", "LayerNorm"]),
        ("groupnorm", ["GroupNorm", "PlainNorm", "FeatureGroupNorm"]),
        ("batchnorm", ["SecondAxisBatchNorm", "PlainNorm", "FeatureBatchNorm"]),
    ],
)
def test_norms_are_replaced_where_they_stand_and_come_back(treatment: str, wanted: list[str]) -> None:
    torch.manual_seed(0)
    model, x = normed(), torch.randn(6, 1, 7, 7)
    before, output = [type(m) for m in model], model(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    undo = apply(model, norm(treatment, at="norms"), optimizer=optimizer)
    assert [type(model[i]).__name__ for i in (1, 6, 9)] == wanted
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    undo.undo()
    assert [type(m) for m in model] == before
    assert torch.equal(model(x), output)


def test_a_norm_of_one_value_each_passes_nothing_and_its_successor_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 5), nn.GroupNorm(8, 8), nn.Flatten(), nn.Linear(8, 2))
    x = torch.randn(6, 1, 5, 5)
    model(x).square().sum().backward()
    assert model[0].weight.grad.abs().max() < 1e-4
    apply(model, norm("layernorm", at="norms"))
    model.zero_grad()
    model(x).square().sum().backward()
    assert model[0].weight.grad.abs().max() > 1e-2


def test_where_a_norm_is_over_one_value_the_others_stay() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1), nn.LayerNorm(1), nn.Linear(1, 4))
    apply(model, norm("batchnorm", at="norms"))
    assert [type(m).__name__ for m in model][1::2] == ["LayerNorm", "FeatureBatchNorm"]


def test_a_norm_of_the_wanted_kind_stays_unless_its_gain_is_lost() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    with pytest.raises(SurgeryError, match="of that kind already"):
        apply(model, norm("layernorm", at="norms"))
    nn.init.zeros_(model[1].weight)
    apply(model, norm("layernorm", at="norms"))
    assert torch.equal(model[1].weight, torch.ones(4))
    with pytest.raises(SurgeryError, match="holds no norm"):
        apply(nn.Linear(2, 2), norm("batchnorm", at="norms"))
