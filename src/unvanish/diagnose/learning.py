"""Does the loss say that the net learns? Judged against chance where that is known, else against its start."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from unvanish.schema.run import ModelRun

LearningStatus = Literal["learns", "stuck", "worse", "non_finite", "too_short", "no_loss", "contested"]

FEWEST_STEPS = 10
BELOW_CHANCE = 0.05  # share of the chance loss
ABOVE = 1.5  # times the chance loss
CREEPING = 0.005  # share of the chance loss, which is itself known from some batches only
CROSSINGS = 0.1  # of the steps: a loss that changes its sign so often is no height to come down from
SURROGATE = 10.0  # times the noise from batch to batch: a negative loss that rises by less says nothing
POOR = 0.5  # of the chance loss
HARDLY = 0.15  # share of the chance loss
FALLEN = 0.10  # share of the first loss, where chance is not known
STILL_FALLING = 0.02  # share, from the second third of the run to the last
RISEN = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What the loss curve says. `noise` is the standard error of `last` from batch to batch."""

    status: LearningStatus
    steps: int
    first: float | None
    last: float | None
    chance: float | None
    noise: float
    falling: bool = False  # from the second third of the run to the last
    drifting: bool = False  # downwards, by however little, as long as it is no accident
    first_bad_step: int | None = None  # the first step with a loss that is not finite
    sentence: str = ""

    @property
    def learns(self) -> bool:
        """Whether the loss falls as that of a net that learns."""
        return self.status == "learns"

    @property
    def hardly(self) -> bool:
        """Whether it learns next to nothing: the loss is below that of guessing, and not by much."""
        known = self.learns and self.chance is not None and self.last is not None
        return known and self.last > (1 - HARDLY) * self.chance  # type: ignore[operator]

    @property
    def poorly(self) -> bool:
        """Whether it learns, and is far from done: what is built wrongly is worth a word, though the loss falls."""
        known = self.learns and self.chance is not None and self.last is not None
        return known and self.last > POOR * self.chance  # type: ignore[operator]

    @property
    def fallen(self) -> bool:
        """Whether the loss is lower than it was at first: one that starts below chance may stay there."""
        if self.first is None or self.last is None:
            return False
        return _fallen(self.first, self.last, self.noise, STILL_FALLING)

    @property
    def unmoved(self) -> bool:
        """Whether enough steps were seen, and the net does not learn."""
        return self.status in ("stuck", "worse", "non_finite")


def learning_of(model: ModelRun, *, contested: bool = False, chance: float | None = None) -> Learning:
    """Judge a model's loss curve. `contested`: other models work against it, so that its loss says little.

    `chance`: of a loss that it shares with another model, where none of its own traces knows it.
    """
    judged = _learning_of(model, chance)
    if contested and judged.status in ("stuck", "worse", "learns"):
        words = "models of this run train against each other, so the loss alone can't tell"
        return replace(judged, status="contested", sentence=words)
    return judged


def contested_models(models: Sequence[ModelRun]) -> set[int]:
    """Indices of models that are trained on losses of their own through each other's weights, as a GAN's nets are."""
    series = {m.info.index: tuple(m.losses) for m in models}
    through = {
        m.info.index
        for m in models
        if any("" in o.parameters for g in m.graphs.values() for o in g.operations if o.kind == "weight")
    }
    if any(all(series[i] != s for j, s in series.items() if j != i) for i in through) and len(models) > 1:
        return set(series)
    return set()


def shared_chance(model: ModelRun, models: Sequence[ModelRun]) -> float | None:
    """What another model with the very same losses knows of guessing."""
    own = tuple(model.losses)
    same = [m for m in models if m is not model and tuple(m.losses) == own]
    return next((c for c in map(_chance, same) if c is not None), None)


def _learning_of(model: ModelRun, shared: float | None) -> Learning:
    pairs = list(zip(model.steps, model.losses, strict=True))
    known = [(s, v) for s, v in pairs if s not in model.unseen_losses]
    chance = _chance(model)
    chance = shared if chance is None else chance
    if not known:
        return Learning(status="no_loss", steps=len(pairs), first=None, last=None, chance=chance, noise=0.0,
                        sentence="no loss was seen")  # fmt: skip
    bad = next((s for s, v in known if not math.isfinite(v)), None)
    values = [v for _, v in known if math.isfinite(v)]
    if bad is not None and not math.isfinite(known[-1][1]):
        first = values[0] if values else None
        return Learning(status="non_finite", steps=len(pairs), first=first, last=None, chance=chance, noise=0.0,
                        first_bad_step=bad, sentence=f"the loss is not finite from step {bad} on")  # fmt: skip
    return _judge(values, len(pairs), chance, bad)


def _judge(values: Sequence[float], steps: int, chance: float | None, bad: int | None) -> Learning:
    window = max(3, min(20, len(values) // 10))
    first, last = statistics.fmean(values[:window]), _level(values[-window:])
    # of the second half: a fall from far above would count as noise
    noise = _noise(values[len(values) // 2 :]) / math.sqrt(min(window, len(values)))
    falling = len(values) >= FEWEST_STEPS and _still_falling(values, noise)
    drifting = len(values) >= FEWEST_STEPS and _still_falling(values, noise, least=0.0)
    creeping = drifting and _creeping(last, chance, noise)
    third = max(1, len(values) // 3)
    status: LearningStatus
    if len(values) < FEWEST_STEPS:
        status, sentence = (
            "too_short",
            f"only {len(values)} step{'s' if len(values) != 1 else ''} {'were' if len(values) != 1 else 'was'} seen",
        )
    elif chance is None and _crosses_zero(values):
        status = "contested"
        sentence = "the loss changes its sign from step to step, so how high it stands says little"
    elif _asleep(first, last, chance, noise, steps):
        status, sentence = (
            "stuck",
            f"the loss stays at {last:.4g}, where it began (guessing gives {chance:.4g})",
        )
    elif _below_chance(last, chance, noise) or (chance is None and _fallen(first, last, noise)):
        status, sentence = "learns", f"the loss fell from {first:.4g} to {last:.4g}"
    elif chance is None and first < 0 and last < 0 and last - first < SURROGATE * _noise(values):
        # a policy gradient's surrogate, say: better policies have no lower one
        status = "contested"
        sentence = f"the loss stays at {last:.4g}; below zero, how high it stands says little"
    elif last > first + max(3 * noise, RISEN * abs(first)):
        status, sentence = "worse", f"the loss rose from {first:.4g} to {last:.4g}"
    elif falling and chance is not None and chance > 0 and last > ABOVE * chance:
        status = "stuck"  # as yet it only undoes what was wrong at the start
        sentence = f"the loss is falling, but still at {last:.4g} where guessing gives {chance:.4g}"
    elif (
        falling
        and chance is not None
        and last > chance
        and not _still_falling(values[-third:], noise, least=0.0)
    ):
        status = "stuck"  # it has undone what was wrong at the start, and that was all
        sentence = f"the loss came down to {last:.4g} and stays there, where guessing gives {chance:.4g}"
    elif falling or creeping:
        status, sentence = "learns", f"the loss is falling, {first:.4g} to {last:.4g} so far"
    elif chance is None and last < 0:
        # a policy gradient's surrogate, say: better policies have no lower one
        status, sentence = (
            "contested",
            f"the loss stays at {last:.4g}; below zero, how high it stands says little",
        )
    else:
        at = f" (the best constant guess gives {chance:.4g})" if chance is not None else ""
        status, sentence = "stuck", f"the loss stays at {last:.4g}{at} after {steps} steps"
    return Learning(status=status, steps=steps, first=first, last=last, chance=chance, noise=noise, drifting=drifting,
                    first_bad_step=bad, falling=falling or creeping, sentence=sentence)  # fmt: skip


def _level(values: Sequence[float]) -> float:
    """Their mean without the outermost sixths: one spike among the last steps is not where the loss stands."""
    cut = len(values) // 6
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def _below_chance(last: float, chance: float | None, noise: float) -> bool:
    return chance is not None and last < chance - max(3 * noise, BELOW_CHANCE * abs(chance))


def _asleep(first: float, last: float, chance: float | None, noise: float, steps: int) -> bool:
    """Whether a loss that is below chance by little stands where it began: a lucky start is nothing learned."""
    if chance is None or steps < 2 * FEWEST_STEPS or last < POOR * chance:
        return False
    return not _fallen(first, last, noise, STILL_FALLING)


def _fallen(first: float, last: float, noise: float, least: float = FALLEN) -> bool:
    return first - last > max(3 * noise, least * abs(first))


def _still_falling(values: Sequence[float], noise: float, least: float = STILL_FALLING) -> bool:
    third = len(values) // 3
    if not third:
        return False
    middle, end = statistics.fmean(values[third : 2 * third]), statistics.fmean(values[-third:])
    error = noise * math.sqrt(2 * max(3, min(20, len(values) // 10)) / third)
    return middle - end > max(3 * error, least * abs(middle))


def _creeping(last: float, chance: float | None, noise: float) -> bool:
    """Whether a loss on its way down is below chance by a little that is no accident: slow is not stuck."""
    return chance is not None and last < chance - max(3 * noise, CREEPING * abs(chance))


def _crosses_zero(values: Sequence[float]) -> bool:
    """Whether the loss changes its sign again and again in some third of the run, as surrogates do."""
    third = len(values) // 3
    parts = (values[:third], values[third : 2 * third], values[-third:]) if third else ()
    return any(sum(a * b < 0 for a, b in pairwise(p)) > CROSSINGS * len(p) for p in parts)


def _noise(values: Sequence[float]) -> float:
    """Standard deviation from batch to batch, from successive differences: blind to the trend."""
    if len(values) < 3:
        return 0.0
    squares = sorted((b - a) ** 2 for a, b in pairwise(values))
    trimmed = squares[: max(2, int(len(squares) * 0.95))]
    return math.sqrt(statistics.fmean(trimmed) / 2)


def _chance(model: ModelRun) -> float | None:
    """As the last traced batch knows it, from all before it."""
    found = [t.chance for t in model.traces if t.chance is not None and math.isfinite(t.chance)]
    return found[-1] if found else None
