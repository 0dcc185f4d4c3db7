"""The chain rule on the smallest net that shows it: i1, i2 -> h1, h2 -> O1, with six weights and no bias.

    a1 = w1 i1 + w2 i2    h1 = phi(a1)
    a2 = w3 i1 + w4 i2    h2 = phi(a2)
    o  = w5 h1 + w6 h2    O1 = phi(o)

Plain Python; every product here equals autograd's gradient to 1e-12 relative (the tests compare).
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any, Literal, get_args

from unvanish.errors import UsageError

ToyActivation = Literal["sigmoid", "relu"]

# The example's numbers are chosen, not measured: with ReLU h1 is open (a1 = .3) and h2 closed (a2 = -.47).
INPUTS = {"i1": 0.8, "i2": 0.5}
WEIGHTS = {"w1": 0.5, "w2": -0.2, "w3": -0.9, "w4": 0.5, "w5": 0.7, "w6": 0.4}
DEEP_LAYERS = 12  # the depth of the net that `unvanish demo` shows
_ENTRY = {"w1": ("i1", "1"), "w2": ("i2", "1"), "w3": ("i1", "2"), "w4": ("i2", "2")}  # weight -> input, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyFactor:
    """One factor of the product, e.g. dO1/dh1 = phi'(o) w5, with the numbers of its parts."""

    symbol: str
    parts: tuple[tuple[str, float], ...]

    @property
    def value(self) -> float:
        """The product of the parts."""
        return math.prod(number for _, number in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyChain:
    """dO1/dw for one weight: the product of its factors, from the output towards the weight."""

    weight: str
    factors: tuple[ToyFactor, ...]

    @property
    def symbol(self) -> str:
        """What is derived by what."""
        return f"dO1/d{self.weight}"

    @property
    def gradient(self) -> float:
        """The product of all factors."""
        return math.prod(factor.value for factor in self.factors)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyExplanation:
    """The whole example: its numbers, the forward pass, and the chain of each of the six weights."""

    activation: ToyActivation
    inputs: dict[str, float]
    weights: dict[str, float]
    values: dict[str, float]  # a1, a2, o before the activation; h1, h2, O1 after it
    derivatives: dict[str, float]  # phi'(a1), phi'(a2), phi'(o)
    derivative_bound: float  # the largest phi' there is
    chains: tuple[ToyChain, ...]
    correction: str  # why the usual way to write it is not right
    lessons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "schema": 1,
            "network": "i1, i2 -> h1 (w1, w2), h2 (w3, w4) -> O1 (w5, w6)",
            "activation": self.activation,
            "inputs": dict(self.inputs),
            "weights": dict(self.weights),
            "values": dict(self.values),
            "derivatives": dict(self.derivatives),
            "derivative_bound": self.derivative_bound,
            "chains": [
                {
                    "weight": chain.weight,
                    "symbol": chain.symbol,
                    "gradient": chain.gradient,
                    "factors": [
                        {
                            "symbol": factor.symbol,
                            "value": factor.value,
                            "parts": [{"symbol": s, "value": v} for s, v in factor.parts],
                        }
                        for factor in chain.factors
                    ],
                }
                for chain in self.chains
            ],
            "correction": self.correction,
            "lessons": list(self.lessons),
        }


def explain_toy(activation: ToyActivation = "sigmoid") -> ToyExplanation:
    """The example with sigmoid or ReLU in all three places. Raises UsageError for any other activation."""
    if activation not in get_args(ToyActivation):
        raise UsageError(f"the toy has no activation {activation!r}", "choose sigmoid or relu")
    i, w = INPUTS, WEIGHTS
    a = {"1": w["w1"] * i["i1"] + w["w2"] * i["i2"], "2": w["w3"] * i["i1"] + w["w4"] * i["i2"]}
    h = {unit: _phi(activation, z) for unit, z in a.items()}
    o = w["w5"] * h["1"] + w["w6"] * h["2"]
    slopes = {unit: _slope(activation, z) for unit, z in a.items()}
    return ToyExplanation(
        activation=activation,
        inputs=dict(i),
        weights=dict(w),
        values={"a1": a["1"], "a2": a["2"], "o": o, "h1": h["1"], "h2": h["2"], "O1": _phi(activation, o)},
        derivatives={"phi'(a1)": slopes["1"], "phi'(a2)": slopes["2"], "phi'(o)": _slope(activation, o)},
        derivative_bound=_slope(activation, 0.0) if activation == "sigmoid" else 1.0,
        chains=_chains(slopes, _slope(activation, o), h),
        correction=_CORRECTION,
        lessons=_lessons(activation),
    )


def _phi(activation: ToyActivation, z: float) -> float:
    return 1 / (1 + math.exp(-z)) if activation == "sigmoid" else max(z, 0.0)


def _slope(activation: ToyActivation, z: float) -> float:
    if activation == "relu":
        return 1.0 if z > 0 else 0.0
    s = _phi(activation, z)
    return s * (1 - s)


def _chains(slopes: dict[str, float], out_slope: float, h: dict[str, float]) -> tuple[ToyChain, ...]:
    chains = []
    for weight, (entry, unit) in _ENTRY.items():
        out_weight = "w5" if unit == "1" else "w6"
        out_parts = (("phi'(o)", out_slope), (out_weight, WEIGHTS[out_weight]))
        in_parts = ((f"phi'(a{unit})", slopes[unit]), (entry, INPUTS[entry]))
        factors = (
            ToyFactor(symbol=f"dO1/dh{unit}", parts=out_parts),
            ToyFactor(symbol=f"dh{unit}/d{weight}", parts=in_parts),
        )
        chains.append(ToyChain(weight=weight, factors=factors))
    for weight, unit in (("w5", "1"), ("w6", "2")):
        last = (
            ToyFactor(symbol="dO1/do", parts=(("phi'(o)", out_slope),)),
            ToyFactor(symbol=f"do/d{weight}", parts=((f"h{unit}", h[unit]),)),
        )
        chains.append(ToyChain(weight=weight, factors=last))
    return tuple(chains)


_CORRECTION = (
    "One often reads dO1/dw1 = (dO1/dw5) (dw5/dh1) (dh1/dw1). That is not right: w5 is a weight, a number"
    " that stands still during the forward and backward pass. It is no function of h1, so dw5/dh1 has no"
    " meaning (taken literally it is 0, and so would be the gradient). The signal runs along the values,"
    " O1 <- h1 <- w1; w5 is what it is multiplied by on the way, inside dO1/dh1 = phi'(o) w5."
)


def _lessons(activation: ToyActivation) -> tuple[str, ...]:
    if activation == "sigmoid":
        most = 0.25**DEEP_LAYERS
        return (
            "Each sigmoid on the way is one factor phi' = h (1 - h), at most 1/4 (at 0, and less elsewhere).",
            f"Through {DEEP_LAYERS} layers they leave at most 0.25^{DEEP_LAYERS} = {most:.3g} of the signal.",
            "The weights would have to make up for all of it.",
            "That is why the first layers of a deep sigmoid net stand still while the last ones learn.",
        )
    return (
        "An open ReLU hands the signal on whole (phi' = 1), a closed one nothing (phi' = 0).",
        "h2 is closed, a2 < 0: w3 and w4 get a gradient of exactly 0, and so does w6, as h2 itself is 0.",
        "A unit that is closed for every sample never moves again: it is dead. LeakyReLU leaves it a way.",
        f"The weights are still factors: with torch's default init {DEEP_LAYERS} ReLU layers fade, too.",
    )


def toy_text(explanation: ToyExplanation) -> str:
    """The example as plain text for a terminal of 80 columns or more; ends without a newline."""
    lines = [*_head(explanation), ""]
    for chain in explanation.chains:
        lines += [*_chain_lines(chain), ""]
    lines += [*_wrapped("Said right", explanation.correction), ""]
    lines.append("What it teaches")
    for lesson in explanation.lessons:
        lines += textwrap.wrap(lesson, _WIDTH, initial_indent="  * ", subsequent_indent="    ")
    return "\n".join(lines)


_WIDTH = 79


def _head(e: ToyExplanation) -> list[str]:
    value, slope = e.values, e.derivatives
    name = "1 / (1 + e^-z)" if e.activation == "sigmoid" else "max(z, 0)"
    rows = [
        ("a1 = w1 i1 + w2 i2", "a1", "h1", "phi'(a1)"),
        ("a2 = w3 i1 + w4 i2", "a2", "h2", "phi'(a2)"),
        ("o  = w5 h1 + w6 h2", "o", "O1", "phi'(o)"),
    ]
    given = "   ".join(f"{k} = {v:g}" for k, v in {**e.inputs, **e.weights}.items())
    return [
        f"The chain rule on six weights, with {e.activation}: phi(z) = {name}",
        "",
        "  i1 --w1--> h1 --w5--\\",
        "     \\ /              >--> O1        (i2 reaches h1 by w2,",
        "     / \\              >               i1 reaches h2 by w3)",
        "  i2 --w4--> h2 --w6--/",
        "",
        *textwrap.wrap(given, _WIDTH, initial_indent="  ", subsequent_indent="  "),
        "",
        "Forward",
        *(
            f"  {left} = {value[z]:9.6f}   {after} = phi({z})".ljust(48)
            + f"= {value[after]:.6f}   {prime:8} = {slope[prime]:.6f}"
            for left, z, after, prime in rows
        ),
        "",
        "Backward: the product of factors, from the output to the weight",
    ]


def _chain_lines(chain: ToyChain) -> list[str]:
    """Symbols, what each factor is made of, its numbers, and the product: one column per factor."""
    symbols = [f"({f.symbol})" for f in chain.factors]
    made_of = [f"{' '.join(s for s, _ in f.parts)}" for f in chain.factors]
    numbers = [" x ".join(f"{v:.6g}" for _, v in f.parts) for f in chain.factors]
    products = [f"{f.value:.9g}" for f in chain.factors]
    widths = [max(map(len, column)) for column in zip(symbols, made_of, numbers, products, strict=True)]
    left = f"  {chain.symbol}"
    lines = []
    for row, cells in enumerate((symbols, made_of, numbers, products)):
        body = "  x  ".join(cell.center(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{left if row == 0 else ' ' * len(left)} = {body}".rstrip())
    lines.append(f"{' ' * len(left)} = {chain.gradient:.12g}")
    return lines


def _wrapped(title: str, body: str) -> list[str]:
    return [title, *textwrap.wrap(body, _WIDTH, initial_indent="  ", subsequent_indent="  ")]
