"""Wait, in the writer's thread, until a device has really written what the training thread asked it to copy."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Ready:
    """A mark in the queue of each device's current stream.

    The script may train on a stream of its own, which the writer's thread, on the default one, would not wait for.
    """

    __slots__ = ("_events",)

    def __init__(self, devices: Iterable[torch.device] = ()) -> None:
        """To be made in the training thread, after the last copy. Waits for nothing."""
        marks = [_mark(d) for d in devices if d.type == "cuda"]
        self._events = [m for m in marks if m is not None]

    def wait(self) -> None:
        """Until all marks are passed. Other threads go on meanwhile."""
        for event in self._events:
            event.synchronize()


NOW = Ready()


def _mark(device: torch.device) -> torch.cuda.Event | None:
    stream = torch.cuda.current_stream(device)
    if stream == torch.cuda.default_stream(device):  # the writer's reads queue up behind all that is in it
        return None
    event = torch.cuda.Event(blocking=True)
    event.record(stream)
    return event
