"""What was edited, as steps that take it back."""

from __future__ import annotations

from collections.abc import Callable

Step = Callable[[], None]


class Journal:
    """Undo steps, carried out from the last to the first."""

    def __init__(self) -> None:
        """Nothing was done yet."""
        self._steps: list[Step] = []

    def note(self, step: Step) -> None:
        """Write down how the edit that was just made is taken back."""
        self._steps.append(step)

    def undo(self) -> None:
        """Take every edit back, the last first. Doing it again does nothing."""
        while self._steps:
            self._steps.pop()()
