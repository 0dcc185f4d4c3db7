"""Standardised inputs: measured on the first batch, in front of whoever sees the data."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from treat_models import Attributes, Branches, Conv, Elman, Strict, chain

from unvanish.errors import SurgeryError
from unvanish.schema.call import Batch
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply, apply_when_ready, needs_batch
from unvanish.treatment.standardise import Standardise, standardiser

INPUTS = (Prescription(treatment="inputs"),)
RAW = (
    torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 4, 8)
    + torch.arange(8) * 50
)


def standard(x: torch.Tensor) -> torch.Tensor:
    """The obvious twin, in float64."""
    d = x.double()
    return ((d - d.mean(0)) / d.std(0, unbiased=False)).float()


class Sum(nn.Module):
    """The data goes into a layer, and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
        return self.head(x + torch.tanh(self.fc(x))) + shift


@pytest.mark.parametrize("build", [chain, Attributes, Branches, Sum, Strict])
def test_the_model_sees_standardised_data_in_every_style(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = build()
    wanted = model(standard(RAW))
    before = copy.deepcopy(model.state_dict())
    done = apply(model, INPUTS, batch=RAW)
    assert torch.allclose(model(RAW), wanted, atol=1e-4)
    other = RAW[:3] * 2  # another batch: the numbers of the first one hold
    stats = next(m for m in model.modules() if isinstance(m, Standardise))
    assert torch.allclose(stats(other), (other - RAW.mean(0)) / RAW.std(0, unbiased=False), rtol=1e-3)
    keys = done.key_map()
    assert all(torch.equal(model.state_dict()[keys.get(k, k)], v) for k, v in before.items())
    done.undo()
    assert list(model.state_dict()) == list(before)
    assert torch.equal(model(standard(RAW)), wanted)


def test_images_are_standardised_by_channel_and_sequences_by_feature() -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 3, 5, 5) * torch.tensor([1.0, 10.0, 255.0]).view(3, 1, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    apply(model, INPUTS, batch=images)
    seen = model[0](images)
    assert isinstance(model[0], Standardise)
    assert seen.mean((0, 2, 3)).abs().max() < 1e-4
    assert torch.allclose(seen.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-4)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor | PackedSequence) -> torch.Tensor:
            return self.head(self.rnn(x)[1][-1])

    reader = Reader()
    apply(reader, INPUTS, batch=RAW.view(16, 4, 8))
    assert torch.allclose(reader.rnn.front(RAW), standard(RAW), atol=1e-4)
    packed = reader(pack_sequence([RAW[:4], RAW[4:6]]))
    assert torch.allclose(packed[1], reader(RAW[None, 4:6])[0], atol=1e-6)
    assert reader.rnn.hidden_size == 4  # the layer is still what the name means


def test_constant_features_are_zero_and_stay_of_modest_size() -> None:
    x = RAW.clone()
    x[:, 2], x[:, 5] = 0.1, 0.0
    model = chain(3)
    apply(model, INPUTS, batch=x)
    seen = model[0](x)
    assert not seen[:, 5].any()
    assert seen[:, 2].abs().max() < 1e-6
    x[0, 2] = 1.1
    assert float(model[0](x)[0, 2]) == pytest.approx(1.0)


def test_a_flattened_image_is_standardised_pixel_by_pixel() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(32, 1, 4, 4) * torch.arange(1, 17).view(4, 4)
    apply(model, INPUTS, batch=x)
    assert [type(m) for m in model][:3] == [nn.Flatten, Standardise, nn.Linear]
    assert model[1].mean.numel() == 16


def test_two_inputs_through_one_layer_are_measured_together() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(8, 4), nn.Linear(8, 1)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cat([self.fc(a).tanh(), self.fc(b).tanh()], 1))

    model = Pair()
    apply(model, INPUTS, batch=Batch(args=(RAW[:32],), kwargs={"b": RAW[32:]}))
    assert torch.allclose(model.fc.front(RAW), standard(RAW), atol=1e-4)


def test_data_in_a_dict_and_data_in_parts_are_found() -> None:
    class Watcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.fc, self.head = nn.LSTM(8, 4), nn.Linear(16, 4), nn.Linear(4, 1)

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            both = torch.cat([batch["a"], batch["b"]], -1)
            return self.head(self.lstm(batch["series"])[0][-1] + self.fc(both))

    model = Watcher()
    apply(model, INPUTS, batch=Batch(args=({"a": RAW, "b": RAW.flip(0), "series": RAW.view(1, 64, 8)},)))
    assert torch.allclose(model.lstm.front(RAW), standard(RAW), atol=1e-4)
    assert torch.allclose(model.fc.front.mean, torch.cat([RAW.mean(0)] * 2), rtol=1e-4)


def test_tokens_beside_numbers_are_left_alone() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.fc, self.head = nn.Embedding(5, 4), nn.Linear(8, 4), nn.Linear(4, 1)

        def forward(self, token: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(token) + self.fc(x))

    model = Mixed()
    apply(model, INPUTS, batch=Batch(args=(torch.randint(5, (64,)), RAW)))
    assert torch.allclose(model.fc.front(RAW), standard(RAW), atol=1e-4)
    assert type(model.embed) is nn.Embedding


def test_at_the_door_the_argument_is_found_by_place_and_by_name() -> None:
    model = Sum()
    wanted = model(standard(RAW))
    apply(model, INPUTS, batch=RAW)
    assert type(model).__name__ == "Sum"
    for got in (model(RAW), model(x=RAW), model(RAW, 1.0) - 1.0, model(shift=1.0, x=RAW) - 1.0):
        assert torch.allclose(got, wanted, atol=1e-3)
    assert torch.equal(copy.deepcopy(model)(RAW), model(RAW))
    assert "standardise.mean" in model.state_dict()


def test_half_precision_and_double_keep_their_dtype() -> None:
    for dtype in (torch.float16, torch.float64):
        model = chain(3).to(dtype)
        x = torch.randn(16, 8, dtype=dtype)
        apply(model, INPUTS, batch=x)
        assert {b.dtype for b in model.buffers()} == {dtype}
        assert model(x).dtype == dtype


def test_it_waits_for_the_first_batch_and_treats_that_batch_already() -> None:
    assert needs_batch(INPUTS[0])
    for build in (chain, Sum):
        torch.manual_seed(0)
        model = build()
        wanted = model(standard(RAW))
        done = apply_when_ready(model, INPUTS)
        assert done.pending
        assert torch.allclose(model(RAW), wanted, atol=1e-3)
        assert torch.allclose(model(RAW), wanted, atol=1e-3)
        done.undo()
        assert torch.equal(model(standard(RAW)), wanted)


def test_a_treated_model_can_be_pickled() -> None:
    model = Attributes()
    apply(model, INPUTS, batch=RAW)
    twin = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert torch.equal(twin(RAW), model(RAW))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.fc(x * mask)


class Listing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + sum(part(x) for part in self.children())


@pytest.mark.parametrize(
    ("build", "batch", "said"),
    [
        (Elman, torch.randint(11, (4, 5)), "tokens"),
        (chain, None, "needs a real batch"),
        (chain, RAW[:1], "single row"),
        (chain, torch.ones(4, 8), "no feature of the data at 0 varies"),
        (chain, torch.full((4, 8), torch.nan), "NaN"),
        (chain, torch.ones(4, 9), "fails on the batch"),
        (Masked, Batch(args=(RAW, RAW)), "which of the 2 arguments"),
        (Listing, RAW, "list of its own parts"),
        (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1)), RAW, "batch norm standardises"),
        (lambda: nn.Sequential(nn.LSTM(8, 4)), torch.randint(5, (4, 8)), "fails on the batch"),
    ],
)
def test_what_can_not_be_standardised_is_refused(build: object, batch: object, said: str) -> None:
    model = build()  # type: ignore[operator]
    tree = [(n, id(m)) for n, m in model.named_modules()]
    with pytest.raises(SurgeryError, match=said) as caught:
        apply(model, INPUTS, batch=batch)
    assert caught.value.mend
    assert [(n, id(m)) for n, m in model.named_modules()] == tree
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_twice_is_refused() -> None:
    model = Conv()
    x = torch.randn(4, 1, 8, 8)
    apply(model, INPUTS, batch=x)
    with pytest.raises(SurgeryError, match="standardised already"):
        apply(model, INPUTS, batch=x)


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_the_measurement_is_the_textbooks(axis: int) -> None:
    x = torch.randn(4, 5, 6, 7)
    seen = standardiser([x[:2], x[2:]], axis, "here")(x)
    others = [a for a in range(4) if a != axis % 4]
    assert seen.mean(others).abs().max() < 1e-5
    assert torch.allclose(seen.std(others, unbiased=False), torch.ones(x.shape[axis]), atol=1e-5)
