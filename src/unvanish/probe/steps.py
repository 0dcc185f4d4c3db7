"""What is kept of every step of one model: the training thread notes, the writer's thread packs blocks of it."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.probe.parameters import Look, ParameterRing
from unvanish.probe.ready import Ready
from unvanish.probe.samples import to_numpy
from unvanish.probe.schedule import SNAPSHOT_DENSE, SNAPSHOT_RATIO, Schedule
from unvanish.probe.seams import NORM_EPS
from unvanish.schema.run import PARAMETER_STATISTICS, BlockEvent, Event, Skipped, Snapshot

MOST_WAITING = 100_000  # steps that may wait for the writer (a slow disk); more are counted and dropped
_MOST_PER_BLOCK = 512
_PRODUCT = PARAMETER_STATISTICS.index("first_order")
_F32 = np.finfo(np.float32)


@dataclass(slots=True)
class Note:
    """One step, as the training thread leaves it."""

    step: int
    seconds: float
    losses: Sequence[Tensor]
    clip: (
        tuple[float | Tensor, Tensor] | None
    )  # (largest norm allowed, norm found), where norm clipping was called
    learning_rate: float
    look: Look | None
    ring: ParameterRing  # that `look` is in
    ready: Ready


class StepLog:
    """The steps of one model that wait for the writer."""

    def __init__(
        self,
        model: int,
        dropped: Callable[[int], None],
        consider: Callable[[list[float]], None],
        on_fault: Callable[[str, Exception], None],
    ) -> None:
        """`dropped` is told how many steps were given up, `consider` the gradients' rms at each step."""
        self._on_fault = on_fault
        self._consider = consider
        self._model = model
        self._dropped = dropped
        self._waiting: deque[Note] = deque()
        self.closed = False  # the model is gone
        self._skips = 0  # steps that a gradient scaler left out
        self._first_skip = 0  # the step before which it did so first
        self._perhaps: deque[tuple[int, Tensor]] = deque(maxlen=MOST_WAITING)
        self._schedule = Schedule(ratio=SNAPSHOT_RATIO, dense=SNAPSHOT_DENSE)

    def close(self) -> None:
        """The model is gone; what waits is still written."""
        self.closed = True

    @property
    def waiting(self) -> int:
        """Steps that the writer has not taken yet."""
        return len(self._waiting)

    def put(self, note: Note) -> None:
        """Leave a step to the writer. Never waits."""
        if len(self._waiting) >= MOST_WAITING:
            self._give_up([note])
            return
        self._waiting.append(note)

    def skip(self, step: int) -> None:
        """A gradient scaler left a step out before this one."""
        self._first_skip = min(step, self._first_skip) if self._skips else step
        self._skips += 1

    def perhaps_skipped(self, step: int, found: Tensor) -> None:
        """A fused optimizer changes nothing where `found` (infinities among its gradients) is not zero."""
        self._perhaps.append((step, found))

    def farewell(self) -> list[Event]:
        """What is said at the end, once."""
        skips, self._skips, first = self._skips, 0, self._first_skip
        if not skips:
            return []
        before = f"the first before step {first}" if first else "the first before any was made"
        steps = "1 optimizer step" if skips == 1 else f"{skips} optimizer steps"
        why = f"GradScaler found NaN or Inf in the gradients and left out {steps}, {before}"
        return [Skipped(model=self._model, what="steps with gradients that are not finite", why=why)]

    def drain(self) -> list[Event]:
        """All that waits, as events."""
        events: list[Event] = []
        for _ in range(len(self._perhaps)):
            step, found = self._perhaps.popleft()
            if float(found) > 0:
                self.skip(step)
        while self._waiting:
            count = min(len(self._waiting), _MOST_PER_BLOCK)
            notes = [self._waiting.popleft() for _ in range(count)]
            # a model that was given other parameters has another ring from then on
            for _, same in groupby(notes, key=lambda note: id(note.ring)):
                some = list(same)
                try:
                    events += self._pack(some)
                except Exception as error:
                    self._on_fault("record", error)
                    self._give_up(some)
        return events

    def _give_up(self, notes: Sequence[Note]) -> None:
        self._dropped(len(notes))
        for note in notes:
            if note.look is not None:
                note.ring.release(note.look)

    def _pack(self, notes: list[Note]) -> list[Event]:
        ring = notes[0].ring
        for note in notes:
            note.ready.wait()
        looked = [n for n in notes if n.look is not None]
        shots = [i for i, n in enumerate(looked) if self._shot(n.step)]
        try:
            stats, weights = ring.reduce([n.look for n in looked if n.look is not None], shots)
            for table in stats:
                self._consider(table[0].tolist())
        except Exception as error:  # the losses are still known
            self._on_fault("record", error)
            looked, shots, stats, weights = [], [], np.empty((0, len(PARAMETER_STATISTICS), 0)), {}
        losses = _means([n.losses for n in notes])
        packed = array("d" if ring.wide or not _fits(stats[:, _PRODUCT]) else "f")
        packed.frombytes(_narrow(stats, packed.typecode).tobytes())
        block = BlockEvent(
            model=self._model,
            steps=array("q", (n.step for n in notes)),
            seconds=array("d", (n.seconds for n in notes)),
            losses=array("d", (math.nan if v is None else v for v in losses)),
            clips=array("d", _clip_factors([n.clip for n in notes])),
            learning_rates=array("d", (n.learning_rate for n in notes)),
            measured=array("q", (n.step for n in looked)),
            stats=packed,
            unseen_losses=frozenset(n.step for n, v in zip(notes, losses, strict=True) if v is None),
        )
        events: list[Event] = [block]
        try:
            for i in shots:
                events += self._snapshots_of(ring, looked[i].step, weights[i])
        except Exception as error:
            self._on_fault("record", error)
        return events

    def _shot(self, step: int) -> bool:
        due = self._schedule.due(step)
        if due:
            self._schedule.done(step)
        return due

    def _snapshots_of(self, ring: ParameterRing, step: int, weights: Any) -> list[Snapshot]:
        return [
            Snapshot(model=self._model, step=step, parameter=i, norm=norm, quantiles=levels)
            for i, (norm, levels) in enumerate(ring.spread(weights))
        ]


def _floats(values: Sequence[Tensor]) -> list[float]:
    """Single numbers of any device: one transfer for all."""
    plain = [v if v.dtype in (torch.float32, torch.float64) else v.float() for v in values]
    return [float(found[0]) for found in to_numpy(plain)]


def _means(losses: Sequence[Sequence[Tensor]]) -> list[float | None]:
    """Of each step's losses; None where there are none."""
    found = iter(_floats([v for some in losses for v in some]))
    return [sum(next(found) for _ in some) / len(some) if some else None for some in losses]


def _clip_factors(clips: Sequence[tuple[float | Tensor, Tensor] | None]) -> list[float]:
    """What clip_grad_norm_ multiplied the gradients by; NaN where it was not called."""
    norms = iter(_floats([clip[1] for clip in clips if clip is not None]))
    factors = []
    for clip in clips:
        if clip is None:
            factors.append(math.nan)
            continue
        most, norm = float(clip[0]), next(norms)
        factors.append(min(1.0, most / (norm + NORM_EPS)) if math.isfinite(norm) else 0.0)
    return factors


def _fits(values: NDArray[np.float64]) -> bool:
    """Whether float32 can hold these: a product of two numbers that it can may be beyond it."""
    sizes = np.abs(values)
    beyond = (sizes > _F32.max) | ((sizes < _F32.tiny) & (sizes > 0))
    return not (beyond & np.isfinite(sizes)).any()


def _narrow(stats: NDArray[np.float64], typecode: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return stats.astype(np.float64 if typecode == "d" else np.float32)
