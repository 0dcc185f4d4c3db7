"""Whether a script trains the model that was treated, and not another one beside it."""

from __future__ import annotations

from typing import Any

from torch import nn


class Trained:
    """Waits for a gradient that the backward pass itself brings to a parameter of the models.

    A model that is never part of a forward pass gets none, even where an optimizer steps it: float32 masters whose
    gradients a script copies by hand, a second copy. A call of the module would say less: parameters may be used
    without one.
    """

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._handles: list[Any] = []
        self.seen = False

    def watch(self, model: nn.Module) -> None:
        """Wait for it at this model, too."""
        if not self.seen:
            own = [p for p in model.parameters() if p.requires_grad and p.is_leaf]
            self._handles += [p.register_hook(self._came) for p in own]

    def _came(self, _: Any) -> None:
        self.seen = True
        self.end()

    def end(self) -> None:
        """Wait no more."""
        while self._handles:
            self._handles.pop().remove()
