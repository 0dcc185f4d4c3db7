"""The toy's products against autograd in float64, and what its text and its JSON say."""

from __future__ import annotations

import json
import math

import pytest
import torch

from unvanish.errors import UsageError
from unvanish.explanation.toy import INPUTS, WEIGHTS, explain_toy, toy_text


def autograd(activation: str) -> tuple[dict[str, float], float]:
    """dO1/dw for all six weights, and O1, by torch."""
    phi = {"sigmoid": torch.sigmoid, "relu": torch.relu}[activation]
    i = {k: torch.tensor(v, dtype=torch.float64) for k, v in INPUTS.items()}
    w = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in WEIGHTS.items()}
    h1 = phi(w["w1"] * i["i1"] + w["w2"] * i["i2"])
    h2 = phi(w["w3"] * i["i1"] + w["w4"] * i["i2"])
    out = phi(w["w5"] * h1 + w["w6"] * h2)
    out.backward()
    return {k: float(v.grad) for k, v in w.items() if v.grad is not None}, float(out.detach())


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_every_product_is_the_gradient(activation: str) -> None:
    explanation = explain_toy(activation)  # type: ignore[arg-type]
    gradients, out = autograd(activation)
    assert [c.weight for c in explanation.chains] == list(WEIGHTS)
    assert explanation.values["O1"] == pytest.approx(out, rel=1e-12)
    for chain in explanation.chains:
        assert chain.gradient == pytest.approx(gradients[chain.weight], rel=1e-12, abs=0)
        assert chain.gradient == pytest.approx(math.prod(f.value for f in chain.factors), rel=1e-15)


def test_the_chain_is_said_right() -> None:
    first, second = explain_toy("sigmoid").chains[0].factors
    assert (first.symbol, [s for s, _ in first.parts]) == ("dO1/dh1", ["phi'(o)", "w5"])
    assert (second.symbol, [s for s, _ in second.parts]) == ("dh1/dw1", ["phi'(a1)", "i1"])


def test_relu_shows_an_open_and_a_closed_unit() -> None:
    explanation = explain_toy("relu")
    assert explanation.derivatives == {"phi'(a1)": 1.0, "phi'(a2)": 0.0, "phi'(o)": 1.0}
    zero = {c.weight for c in explanation.chains if c.gradient == 0}
    assert zero == {"w3", "w4", "w6"}


def test_no_sigmoid_factor_is_above_a_quarter() -> None:
    explanation = explain_toy("sigmoid")
    assert explanation.derivative_bound == 0.25
    assert all(0 < d <= 0.25 for d in explanation.derivatives.values())


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_text_fits_a_terminal_and_shows_every_product(activation: str) -> None:
    explanation = explain_toy(activation)  # type: ignore[arg-type]
    text = toy_text(explanation)
    assert max(map(len, text.splitlines())) <= 80
    for chain in explanation.chains:
        assert f"{chain.symbol} = " in text
        assert f"= {chain.gradient:.12g}\n" in text
    assert "dw5/dh1 has no meaning" in " ".join(text.split())
    if activation == "sigmoid":
        assert f"0.25^12 = {0.25**12:.3g}" in text


def test_the_json_holds_the_same_numbers() -> None:
    explanation = explain_toy("sigmoid")
    read = json.loads(json.dumps(explanation.to_dict()))
    assert [c["gradient"] for c in read["chains"]] == [c.gradient for c in explanation.chains]
    part = read["chains"][0]["factors"][0]["parts"][1]
    assert part == {"symbol": "w5", "value": WEIGHTS["w5"]}


def test_another_activation_is_refused() -> None:
    with pytest.raises(UsageError, match="no activation 'tanh'; choose sigmoid or relu"):
        explain_toy("tanh")  # type: ignore[arg-type]
