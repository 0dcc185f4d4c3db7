"""Where a number format rounds gradients and updates away (IEEE 754-2019; Kalamkar et al. 2019 for bfloat16)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """A binary format that rounds to nearest, ties to even.

    `digits` counts the leading 1; 2^`least` is the least normal number.
    """

    name: str
    digits: int
    least: int
    most: int  # the largest finite number is (2 - 2^(1 - digits)) 2^most

    @property
    def epsilon(self) -> float:
        """Distance from 1 to the next number: 2^(1 - digits)."""
        return float(2.0 ** (1 - self.digits))

    @property
    def least_subnormal(self) -> float:
        """The least number above 0."""
        return float(2.0 ** (self.least + 1 - self.digits))

    @property
    def underflow(self) -> float:
        """What is at or below this rounds to zero: half the least subnormal, a tie that goes to the even 0."""
        return 0.5 * self.least_subnormal

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return float((2.0 - self.epsilon) * 2.0**self.most)


FLOAT16 = NumberFormat(name="float16", digits=11, least=-14, most=15)
BFLOAT16 = NumberFormat(name="bfloat16", digits=8, least=-126, most=127)
FLOAT32 = NumberFormat(name="float32", digits=24, least=-126, most=127)


def rounds_to_zero(value: float, kind: NumberFormat) -> bool:
    """Whether a number is 0 in this format: |x| <= 2^-25 in float16, 2^-134 in bfloat16 (IEEE 754-2019, 4.3.1)."""
    return abs(value) <= kind.underflow


def lost_update(kind: NumberFormat) -> float:
    """The relative update |dw| / |w| below which no weight of this format changes: epsilon / 4.

    Half the distance to the next number, over a weight just below a power of two; up to epsilon / 2 the update of
    some weights is lost (Micikevicius et al. 2018, section 3.1). 2.4e-4 in float16, 2e-3 in bfloat16.
    """
    return kind.epsilon / 4
