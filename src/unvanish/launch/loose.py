"""Treats a script whose weights are tensors that no module holds, when it hands them to an optimizer."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from unvanish.errors import UnvanishError
from unvanish.launch.surgeon import Surgeon
from unvanish.probe.discover import parameters_of
from unvanish.treatment.draw import current_seed
from unvanish.treatment.loose import draw_loose, mark_of


class LooseSurgeon(Surgeon):
    """Draws the tensors anew where an optimizer is built of such shapes; rates as Surgeon scales them."""

    _drawn = False

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self._drawn or not self._prescriptions

    @property
    def idle(self) -> bool:
        """No: what an optimizer was built of is what it steps."""
        return False

    def _see(self, optimizer: Optimizer) -> None:
        self._optimizers.append(optimizer)
        self._scale(optimizer)
        tensors = parameters_of(optimizer)
        if self.done or (self._mark is not None and mark_of(tuple(t.shape) for t in tensors) != self._mark):
            return
        try:
            seed = current_seed() if self._seed is None else self._seed
            draw_loose(tensors, self._prescriptions, seed)
            self._drawn = True
        except UnvanishError as error:
            self._on_fault(error)

    def _before_forward(self, *_: Any) -> None:
        """There is no module to be called."""
