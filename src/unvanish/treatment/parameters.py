"""What a prescription may say: each treatment declares its parameters, with ranges, once and here is how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import JsonValue, Prescription


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A finite number in [low, high]; `whole` asks for an integer; no default (None) = may be left out."""

    low: float
    high: float
    default: float | None = None
    whole: bool = False
    required: bool = False

    def refuse(self, value: JsonValue) -> str:
        """Say what is wrong with this value ("" = nothing)."""
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return f"must be {'an integer' if self.whole else 'a number'}, got {_short(value)}"
        # an int beyond float's range would raise in isfinite, so the range is looked at first
        if not self.low <= value <= self.high or not math.isfinite(value):
            return f"must lie in {self.low:g} .. {self.high:g}, got {_short(value)}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One word of a fixed list."""

    options: tuple[str, ...]
    default: str | None = None
    required: bool = False

    def refuse(self, value: JsonValue) -> str:
        """Say what is wrong with this value ("" = nothing)."""
        if isinstance(value, str) and value in self.options:
            return ""
        return f"must be one of {', '.join(self.options)}, got {_short(value)}"


Spec = Number | Choice


class Settings:
    """The checked parameters of one prescription, defaults filled in."""

    def __init__(self, specs: Mapping[str, Spec], prescription: Prescription) -> None:
        """Check every parameter against its declaration.

        Raises:
            SurgeryError: an unknown parameter, a missing one, or a value out of its range.
        """
        name = prescription.treatment
        given = prescription.parameters
        known = ", ".join(specs) or "none"
        for key, value in given.items():
            if key not in specs:
                raise SurgeryError(f"{name} has no parameter {_short(key)}", f"it knows: {known}")
            fault = specs[key].refuse(value)
            if fault:
                raise SurgeryError(f"{name}: {key} {fault}", "correct the prescription")
        for key, spec in specs.items():
            if spec.required and key not in given:
                raise SurgeryError(f"{name} needs the parameter {key}", "add it to the prescription")
        self._values: dict[str, JsonValue] = {k: given.get(k, s.default) for k, s in specs.items()}

    def word(self, key: str) -> str:
        """The value of a choice that has a default or is required."""
        return cast(str, self._values[key])

    def number(self, key: str) -> float:
        """The value of a number that has a default or is required."""
        return float(cast(float, self._values[key]))

    def whole(self, key: str) -> int:
        """The value of an integer that has a default or is required."""
        return cast(int, self._values[key])

    def optional(self, key: str) -> float | None:
        """The value of a number, None where it was left out."""
        return None if self._values[key] is None else self.number(key)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than python is willing to print
        return "a huge number"
    return text if len(text) <= 40 else text[:37] + "..."
