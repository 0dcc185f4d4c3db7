"""Learning rates around a step: what the script has set is scaled or cut for the step, and then put back."""

from __future__ import annotations

import math
from typing import Any, final

from torch.optim import Optimizer

from unvanish.errors import SurgeryError
from unvanish.treatment.parameters import Settings


def rate_of(settings: Settings) -> tuple[float | None, float | None]:
    """(factor, most) of a learning_rate prescription: one of them is there.

    Raises:
        SurgeryError: both are, or neither.
    """
    factor, most = settings.optional("factor"), settings.optional("most")
    if (factor is None) == (most is None):
        raise SurgeryError("learning_rate takes one of factor and most", 'give one, such as {"factor": 0.1}')
    return factor, most


@final
class SteppedRates:
    """Sets the rates of all groups for each step, whatever a scheduler or the script has made of them."""

    def __init__(self, *, factor: float = 1.0, most: float = math.inf) -> None:
        """`factor` multiplies; what is above `most` then is cut to it."""
        self._factor = factor
        self._most = most
        self._own: list[Any] = []

    def before_step(self, optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        """Set them."""
        self._own = [group.get("lr") for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, self._own, strict=True):
            if rate is not None:
                wanted = rate * self._factor
                group["lr"] = self._most if float(wanted) > self._most else wanted

    def after_step(self, optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        """Put them back."""
        for group, rate in zip(optimizer.param_groups, self._own, strict=True):
            if rate is not None:
                group["lr"] = rate
