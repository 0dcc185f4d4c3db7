"""From outcomes to the rows of a treatment's result."""

from __future__ import annotations

from collections.abc import Sequence

from unvanish.schema.treatment import LossInterval, TrialResult
from unvanish.treatment.candidate import Candidate
from unvanish.verify.compare import Sample
from unvanish.verify.small_samples import interval, mean
from unvanish.verify.trial import BASELINE, TrialOutcome

CURVE_POINTS = 50


UNTREATED = Candidate(name=BASELINE, title="untreated", prescriptions=(), safety="safe")


def trial_row(side: Candidate, sample: Sample, steps: int) -> TrialResult:
    """One side's trials in numbers; `steps`: what was asked for, where nothing ran. Outcome and why come later."""
    ran = sample.ran
    curve_steps, curves = _curves(ran)
    return TrialResult(
        name=side.name,
        title=side.title,
        prescriptions=side.prescriptions,
        safety=side.safety,
        predicted_gain_per_layer=sample.predicted,
        measured_gain_per_layer=sample.measured,
        loss=LossInterval(
            first=mean([o.first for o in ran]) if ran else None,
            last=mean(sample.last) if ran else None,
            interval=interval(sample.last) if ran else (None, None),
        ),
        seeds=len(sample.outcomes),
        steps=max((len(o.losses) for o in ran), default=steps),
        outcome="failed",
        why="not judged",
        learning_rate=next((o.learning_rate for o in ran if o.learning_rate is not None), None),
        rate_factor=next((o.spec.learning_rate_factor for o in ran), 1.0),
        stuck_seeds=sample.stuck,
        curves=curves,
        curve_steps=curve_steps,
        signal=next((o.signal for o in ran if o.signal is not None), None),
    )


def _curves(outcomes: Sequence[TrialOutcome]) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
    """One curve per seed: means over runs of equal length, at most CURVE_POINTS of them."""
    longest = max((len(o.losses) for o in outcomes), default=0)
    width = max(1, -(-longest // CURVE_POINTS))
    starts = range(0, longest, width)
    curves = tuple(
        tuple(mean(o.losses[s : s + width]) for s in starts if s < len(o.losses)) for o in outcomes
    )
    return tuple(s + width // 2 for s in starts), curves
