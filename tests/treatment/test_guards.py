"""Functions that are kept where they have a value and a slope: each beside the plain one, and where that fails."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.guards import LEAST, NEAR, Guards
from unvanish.treatment.operate import apply

GUARDED = (Prescription(treatment="precision", parameters={"mode": "guarded"}),)
Function = Callable[[torch.Tensor], torch.Tensor]
FUNCTIONS: dict[str, tuple[Function, list[float]]] = {
    "sqrt": (lambda x: x.sqrt(), [0.0, -0.5]),
    "torch.sqrt": (torch.sqrt, [0.0]),
    "rsqrt": (torch.rsqrt, [0.0]),
    "log": (lambda x: x.log(), [0.0, -1.0]),
    "log2": (torch.log2, [0.0]),
    "x / x": (lambda x: x / x, [0.0]),
    "1 / x": (lambda x: 1 / x, [0.0]),
    "reciprocal": (lambda x: x.reciprocal(), [0.0]),
    "x ** 0.5": (lambda x: x**0.5, [0.0, -1.0]),
    "x ** -1": (lambda x: x**-1, [0.0]),
    "pow(-0.5)": (lambda x: x.pow(-0.5), [0.0]),
    "acos": (torch.acos, [1.0, 1.1, -1.0]),
    "atanh": (torch.atanh, [1.0, -1.0]),
    "exp": (torch.exp, [100.0]),
    "softmax": (lambda x: torch.softmax(torch.cat([x, x]) - torch.inf, 0), [0.0]),
    "F.log_softmax": (lambda x: F.log_softmax(torch.cat([x, x]) - torch.inf, dim=0), [0.0]),
}


def _value_and_slope(function: Function, at: float, *, guarded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.tensor([at], requires_grad=True)
    if guarded:
        with Guards():
            y = function(x)
    else:
        y = function(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), slope


@pytest.mark.parametrize("name", FUNCTIONS)
def test_where_the_plain_function_fails_the_guarded_one_is_finite(name: str) -> None:
    function, places = FUNCTIONS[name]
    for at in places:
        plain = _value_and_slope(function, at, guarded=False)
        assert not all(bool(t.isfinite().all()) for t in plain), at
        guarded = _value_and_slope(function, at, guarded=True)
        assert all(bool(t.isfinite().all()) for t in guarded), at


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if "softmax" not in n and n not in ("acos", "atanh")])
def test_elsewhere_it_is_the_plain_one(name: str) -> None:
    function, _ = FUNCTIONS[name]
    for at in (0.3, 1.7):
        for plain, guarded in zip(
            _value_and_slope(function, at, guarded=False),
            _value_and_slope(function, at, guarded=True),
            strict=True,
        ):
            assert torch.allclose(plain, guarded, rtol=1e-4)


def test_a_divisor_keeps_its_sign() -> None:
    with Guards():
        made = torch.ones(4) / torch.tensor([-1e-9, 1e-9, -0.5, 0.5])
    assert torch.allclose(made, torch.tensor([-1 / LEAST, 1 / LEAST, -2.0, 2.0]))


def test_a_row_that_is_masked_whole_is_open_and_the_others_are_as_they_were() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    scores = scores.masked_fill(torch.tensor([[False, False, True], [True, True, True]]), -torch.inf)
    with Guards():
        weights = scores.softmax(-1)
    assert torch.equal(weights[0], scores[0].softmax(-1))
    assert torch.allclose(weights[1], torch.full((3,), 1 / 3))


@pytest.mark.parametrize("mask", ["bool", "float"])
def test_torchs_own_attention_over_nothing(mask: str) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, 1, 3, 4, requires_grad=True)
    allowed = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    allowed[0, 0, 1] = False
    given = allowed if mask == "bool" else torch.zeros(2, 1, 3, 3).masked_fill(~allowed, -torch.inf)
    plain = F.scaled_dot_product_attention(q, q, q, attn_mask=given)
    with Guards():
        made = F.scaled_dot_product_attention(q, q, q, attn_mask=given)
    made.sum().backward()
    assert made.isfinite().all() and q.grad is not None and q.grad.isfinite().all()
    assert torch.allclose(made[1], plain[1])


def test_heads_over_an_empty_sequence() -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    x, padding = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padding[1] = True
    assert not model(x, x, x, key_padding_mask=padding)[0][1].isfinite().all()
    apply(model, GUARDED)
    made, _ = model(x, x, x, key_padding_mask=padding)
    made.sum().backward()
    assert made.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


class Distance(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(((self.inner(a) - self.inner(b)) ** 2).sum(1))


def test_a_model_is_guarded_copied_pickled_and_undone() -> None:
    torch.manual_seed(0)
    model, x = Distance(), torch.randn(5, 3)
    far = model(x, -x)
    undo = apply(model, GUARDED)
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        each.zero_grad()
        each(x, x).sum().backward()
        assert each.inner.weight.grad.isfinite().all()
        assert torch.allclose(each(x, -x), far, rtol=1e-4)
    with pytest.raises(SurgeryError, match="guarded already"):
        apply(model, GUARDED)
    undo.undo()
    assert torch.equal(model(x, -x), far) and type(model) is Distance


def test_probabilities_have_a_logarithm() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid())
    nn.init.constant_(model[0].weight, 1000.0)
    apply(model, GUARDED)
    made = model(torch.tensor([[1.0], [-1.0]]))
    assert torch.equal(made.flatten(), torch.tensor([1 - NEAR, NEAR]))
    assert ((1 - made).log() + made.log()).isfinite().all()


def test_half_precision_and_integers_are_taken_as_they_come() -> None:
    with Guards():
        assert torch.zeros(2, dtype=torch.float16).sqrt().dtype == torch.float16
        assert torch.exp(torch.tensor([50.0], dtype=torch.float16)).isfinite().all()
        assert torch.equal(torch.tensor([4, 9]) / torch.tensor([2, 3]), torch.tensor([2.0, 3.0]))
        assert torch.tensor([4, 9]).sqrt().tolist() == [2.0, 3.0]
