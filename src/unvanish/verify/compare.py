"""What may be said of a candidate after its paired trials: stuck or learnt, cured or not, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unvanish.schema.treatment import Outcome
from unvanish.verify.small_samples import interval, mean, sign_test
from unvanish.verify.trial import TrialOutcome

SEEDS_FOR_A_CURE = 5  # below that not even 5 of 5 lower losses are unlikely by chance (2^-5 = .031)
MARGIN = 0.05  # of the chance loss (or of its own first loss): less is not learning
NOISE = 3.0  # standard errors of the last loss from batch to batch
WAY = 0.5  # of the predicted way in decades that the measured gain must have gone
SMALLEST_MOVE = 0.5  # decades: a prediction of less claims nothing that could be checked
LOST = 3.0  # decades over the whole chain: with less the first layer still hears of the loss
LOWEST_GAIN = 1e-300  # of a gain that underflowed to zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """All final trials of one candidate, or of the baseline: one per seed, at its best learning rate."""

    outcomes: tuple[TrialOutcome, ...]
    chance: float | None

    @property
    def ran(self) -> tuple[TrialOutcome, ...]:
        """Those that came to an end with losses."""
        return tuple(o for o in self.outcomes if o.error is None and o.losses)

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong in the others."""
        return tuple(o.error or "it made no training step" for o in self.outcomes if o not in self.ran)

    @property
    def learnt(self) -> int:
        """On how many seeds it learnt."""
        return sum(learnt(o, self.chance) for o in self.outcomes)

    @property
    def stuck(self) -> int:
        """On how many seeds it did not."""
        return len(self.outcomes) - self.learnt

    @property
    def last(self) -> tuple[float, ...]:
        """Last loss per seed, of those that ran."""
        return tuple(o.last for o in self.ran)

    @property
    def measured(self) -> float | None:
        """Measured gain per layer: geometric mean over the seeds."""
        return _geometric([o.measured_gain for o in self.outcomes])

    @property
    def predicted(self) -> float | None:
        """Predicted gain per layer: geometric mean over the seeds."""
        return _geometric([o.predicted_gain for o in self.outcomes])

    @property
    def depth(self) -> int | None:
        """Weighted layers of the net."""
        return next((o.depth for o in self.outcomes if o.depth is not None), None)


def learnt(outcome: TrialOutcome, chance: float | None) -> bool:
    """Whether one trial's last loss is below chance (unknown: below its own first loss) by more than noise.

    More than 5 % and more than 3 standard errors of the batch-to-batch noise.
    """
    if outcome.error is not None or not outcome.losses or outcome.diverged:
        return False
    bar = outcome.first if chance is None else chance
    gap = bar - outcome.last
    noise = outcome.noise if math.isfinite(outcome.noise) else 0.0  # one tail step: no noise is known
    return gap > MARGIN * abs(bar) and gap > NOISE * noise


def differences(candidate: Sample, baseline: Sample) -> tuple[float, ...]:
    """Candidate's last loss minus the baseline's, for every seed that both have.

    Of the loss that the script itself held out, where it has one at the same steps on both sides.
    """
    untreated = {o.spec.seed: o for o in baseline.ran}
    return tuple(
        _gap(o, untreated[o.spec.seed], baseline.chance) for o in candidate.ran if o.spec.seed in untreated
    )


def _gap(treated: TrialOutcome, untreated: TrialOutcome, chance: float | None) -> float:
    """Treated less untreated.

    An untreated loss above what guessing gives (not known: above its own first) counts as that: how far a net that
    runs away has got, be it to NaN, differs by decades from seed to seed, and is to be no advantage. Where it was NaN
    from its first step on, it counts as what the treated net began with.
    """
    shared = {step for step, _ in treated.held_out} & {step for step, _ in untreated.held_out} - {0}
    last = untreated.last
    if shared and math.isfinite(last):
        return dict(treated.held_out)[max(shared)] - dict(untreated.held_out)[max(shared)]
    begins = [x for x in (untreated.losses[0], chance) if x is not None and math.isfinite(x)]
    begins = begins or [treated.losses[0]]
    if not math.isfinite(last):
        return treated.last - min(begins) if math.isfinite(treated.last) else treated.last - last
    bar = chance if chance is not None else untreated.losses[0]
    above = math.isfinite(bar) and last > bar > treated.last
    return treated.last - (bar if above else last)


def judge(
    candidate: Sample, baseline: Sample, *, ill: bool = False, claims_flow: bool = True
) -> tuple[Outcome, str]:
    """The outcome of a candidate against its paired baseline, and why, in one sentence.

    Better: the interval of the paired differences is below zero; of a net that learns on no seed and runs away on
    some, each of them is. `ill`: the diagnosis calls the untreated net ill, so that learning a little is no health: a
    candidate that goes twice as far cures it. `claims_flow`: it is said to bring the signal through, which is checked
    as well.
    """
    if not candidate.ran:
        return "failed", candidate.errors[0] if candidate.errors else "no trial of it was run"
    gaps = differences(candidate, baseline)
    low, high = interval(gaps) if gaps else (-math.inf, math.inf)
    better, worse = high < 0, low > 0
    if gaps and not baseline.learnt and any(o.diverged for o in baseline.ran):
        # what is not a number lies in no interval: how far each gap reaches hangs on the batch that is guessed at
        better = all(gap < 0 for gap in gaps)
    if baseline.stuck == 0 and not (ill and better and _twice_as_far(candidate, baseline)):
        return _against_healthy(candidate, baseline, better=better, worse=worse)
    if candidate.learnt == 0:
        return _not_learnt(candidate, baseline)
    if candidate.stuck:
        return "improved", f"{_gain_words(candidate)}learns on {candidate.learnt} of {_seeds(candidate)} only"
    return _learnt(candidate, baseline, gaps, better=better, claims_flow=claims_flow)


def _twice_as_far(candidate: Sample, baseline: Sample) -> bool:
    """Whether the untreated net goes less than half of the way that the treated one goes."""
    bar = baseline.chance if baseline.chance is not None else mean([o.first for o in baseline.ran])
    return bar - mean(baseline.last) < 0.5 * (bar - mean(candidate.last))


def _learnt(
    candidate: Sample, baseline: Sample, gaps: Sequence[float], *, better: bool, claims_flow: bool
) -> tuple[Outcome, str]:
    """It learnt on all seeds; a cure also needs enough pairs, an interval, and the claimed mechanism."""
    lower = sum(g < 0 for g in gaps)
    facts = (
        f"loss {mean(candidate.last):.3g} against {mean(baseline.last):.3g} untreated, "
        if baseline.ran
        else ""
    )
    if gaps:
        facts += f"lower on {lower} of {len(gaps)} seeds (p = {sign_test(gaps):.2g})"
    else:
        facts += "on other seeds"
    if not better or len(gaps) < SEEDS_FOR_A_CURE:
        lack = f"{SEEDS_FOR_A_CURE} pairs are needed" if len(gaps) < SEEDS_FOR_A_CURE else "within the noise"
        return "improved", f"it learns, but this is not verified ({lack}): {facts}"
    if not claims_flow:
        return "cured", facts
    moved, words = mechanism(candidate, baseline)
    if not moved:
        return "improved", f"it learns, but not for the reason given: {words}; {facts}"
    return "cured", f"{words}; {facts}"


def _not_learnt(candidate: Sample, baseline: Sample) -> tuple[Outcome, str]:
    wild = [o for o in candidate.ran if o.diverged]
    if wild and len(wild) == len(candidate.ran):
        calm = any(not o.diverged for o in baseline.ran)
        return ("worse" if calm else "no_better"), f"{_gain_words(candidate)}the loss diverges on every seed"
    return "no_better", f"{_gain_words(candidate)}{_stuck_words(candidate)}"


def _against_healthy(
    candidate: Sample, baseline: Sample, *, better: bool, worse: bool
) -> tuple[Outcome, str]:
    facts = f"loss {_number(candidate.last)} against {_number(baseline.last)}, which learns untreated"
    if candidate.stuck > 0 and (worse or candidate.learnt == 0):
        return "worse", f"stuck on {candidate.stuck} of {_seeds(candidate)}: {facts}"
    if worse:
        return "worse", facts
    return ("improved", facts) if better else ("no_better", f"{facts}; the difference is noise")


def mechanism(candidate: Sample, baseline: Sample) -> tuple[bool, str]:
    """Whether the signal between loss and first layer moved as predicted, and the numbers in words.

    In decades of the whole chain, so that a cut depth counts for what it is: (layers - 1) log10(gain) / 2,
    the gain being of squares. Where theory has no prediction, the way to a gain of 1 is what is claimed.
    """
    measured, before = candidate.measured, baseline.measured
    if measured is None and before is None:
        return True, "its layers form no chain whose gain could be followed"
    if measured is None:
        return False, "the gain per layer was not measured"
    if before is None:  # no signal came through that could be followed
        far = abs(_decades(measured, candidate.depth))
        return far < LOST, f"gain per layer {measured:.2g}, where untreated none could be measured"
    start = _decades(before, baseline.depth)
    goal = 0.0 if candidate.predicted is None else _decades(candidate.predicted, candidate.depth)
    end = _decades(measured, candidate.depth)
    claim = "" if candidate.predicted is None else f", predicted {candidate.predicted:.2g}"
    depth = ""
    if candidate.depth != baseline.depth and candidate.depth and baseline.depth:
        depth = f" over {candidate.depth} layers instead of {baseline.depth}"
    words = f"gain per layer {before:.2g} -> {measured:.2g}{claim}{depth}"
    if abs(goal - start) < SMALLEST_MOVE:
        return abs(end - start) < 2 * SMALLEST_MOVE, f"{words}, and no change was to be expected"
    return (end - start) / (goal - start) >= WAY, words


def baseline_words(baseline: Sample) -> str:
    """Why the untreated net is what it is, in one sentence."""
    if not baseline.ran:
        return baseline.errors[0] if baseline.errors else "no trial of it was run"
    if baseline.stuck:
        return f"untreated: {_gain_words(baseline)}{_stuck_words(baseline)}"
    return f"untreated: {_gain_words(baseline)}learns on all of {_seeds(baseline)}"


def _stuck_words(sample: Sample) -> str:
    count = f"{sample.stuck} of {_seeds(sample)}"
    if sample.chance is None:
        return f"loss does not fall from {_number([o.first for o in sample.ran])} on {count}"
    place = "at" if not sample.last or mean(sample.last) > (1 - MARGIN) * sample.chance else "near"
    return f"loss {_number(sample.last)} stays {place} chance {sample.chance:.4g} on {count}"


def _gain_words(sample: Sample) -> str:
    gain, depth = sample.measured, sample.depth
    if gain is None:
        return ""
    if depth is None or depth < 2:
        return f"gain per layer {gain:.2g}; "
    left = 10.0 ** _decades(gain, depth)
    return f"gain per layer {gain:.2g}: {depth} layers leave {left:.0e} of the signal; "


def _decades(gain: float, depth: int | None) -> float:
    return (max(1, (depth or 3) - 1)) * math.log10(max(gain, LOWEST_GAIN)) / 2


def _geometric(gains: Sequence[float | None]) -> float | None:
    known = [max(g, LOWEST_GAIN) for g in gains if g is not None and math.isfinite(g)]
    return math.exp(mean([math.log(g) for g in known])) if known else None


def _number(values: Sequence[float]) -> str:
    return f"{mean(values):.4g}" if values and all(map(math.isfinite, values)) else "not finite"


def _seeds(sample: Sample) -> str:
    count = len(sample.outcomes)
    return f"{count} seed" + ("s" if count != 1 else "")
