"""Exploding gradients: steps larger than the weights they change, the loss rises or breaks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from unvanish.diagnose.causes import TREATMENTS, cause_of_growth, recurrent_weight
from unvanish.diagnose.facts import GIANT_STEP, THRESHOLD, Facts, Profile
from unvanish.diagnose.path import decades, layer_name, parameter_layer
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Attribution, Cause, Evidence, Finding
from unvanish.schema.graph import place

CLEAR = 4.0  # decades of growth over the depth that need no further sign
RISEN = 10.0  # the loss, over its first value
GROWN = 10.0  # the gradient, over its first value
RAISED = 3.0  # the learning rate, over what it was before
LOSS_ROSE = "loss over its first"
AT_ONCE = 5  # steps: what happens before them happens to the weights as they were drawn
UNSCALED = 100.0  # rms of the inputs; initialisations and rates are made for inputs of size 1
_JUST_BEFORE = 3  # steps
ROUNDS = 8  # of the same operation behind the output are a repetition
_SOURCE = "Pascanu et al. 2013 (exploding gradients); the e^3 bound mirrors Schoenholz et al. 2016"


def _check(facts: Facts) -> Iterable[Finding]:
    if facts.learning.learns or not facts.profiles:
        return
    if facts.learning.status == "non_finite" and facts.in_float16:
        at, first = facts.first_nonfinite[0], facts.learning.first_bad_step
        if min(s for s in (at, first, AT_ONCE + 1) if s is not None) <= AT_ONCE:
            return  # so soon, it is the format that ends: non_finite.py says so
    start = next((p for p in facts.profiles if not any(s.nonfinite for s in p.layers)), None)
    size, layer, at = facts.heaviest_step()
    broken = facts.learning.status == "non_finite" or _peak(facts) > RISEN
    harmed = broken or facts.learning.status == "worse" or _far_above(facts)
    grown = _growth(start) if start is not None else None
    far = grown is not None and grown[1] > CLEAR
    if (
        start is not None
        and grown is not None
        and (harmed or far or size > GIANT_STEP)
        and facts.learning.unmoved
    ):
        yield _by_init(facts, start, grown)
    elif facts.learning.unmoved and (behind := _behind_the_output(facts)) is not None:
        yield _by_what_follows(facts, *behind)
    elif broken and (late := _late_growth(facts)) is not None:
        yield _by_init(facts, *late)
    elif facts.learning.falling:
        return  # the steps were too large, and nothing runs away any more: rate_too_large.py has a word for that
    elif harmed and size > GIANT_STEP:
        yield _by_rate(facts, layer, at, size, GIANT_STEP, "update over weight in one step")
    elif broken and (growth := _gradient_growth(facts))[0] > GROWN:
        yield _by_rate(facts, growth[1], growth[2], growth[0], GROWN, "gradient over its first")
    elif facts.learning.status == "non_finite" and (leap := _leap(facts)) is not None:
        layer = next(iter(facts.first_nonfinite[1]), "")
        yield _by_rate(facts, layer, leap[2], leap[1], RISEN if leap[0] == LOSS_ROSE else RAISED, leap[0])


def _far_above(facts: Facts) -> bool:
    """Whether the loss starts, and still is, far above that of guessing: the output is far too large."""
    first, last, chance = facts.learning.first or 0.0, facts.learning.last or 0.0, facts.learning.chance
    return chance is not None and min(first, 3 * last) > RISEN * chance


def _behind_the_output(facts: Facts) -> tuple[float, bool] | None:
    """(decades that the gradient grows between loss and output in every trace of late, whether along a repetition).

    A loss that is made by many rounds of a model (a simulation, a solver) can be chaotic in what the net gives it.
    """
    grown = []
    for profile in facts.recent:
        traced, output = profile.traced, profile.traced.trace.output
        if output is None or profile.leverage != profile.leverage:
            return None
        behind = [traced.stats[o.index].norm for o in traced.operations[output + 1 :]]
        known = sorted(n for n in behind if n > 0 and math.isfinite(n))
        if not known:
            return None
        # of the output against its loss as well: a loss in odd units (a sum of thousands) moves both alike
        grown.append(min(decades(traced.stats[output].norm, known[0]), profile.leverage))
    if not grown or min(grown) < CLEAR:
        return None
    last = facts.recent[-1].traced
    names = [
        o.name for o in last.operations[(last.trace.output or 0) + 1 :] if o.kind in ("other", "activation")
    ]
    often = max(map(names.count, set(names)), default=0)
    return min(grown), often >= ROUNDS


def _by_what_follows(facts: Facts, amount: float, repeated: bool) -> Finding:
    cause: Cause = "recurrence" if repeated else "unknown"
    last, layer = facts.recent[-1], facts.recent[-1].layers[-1].layer
    what = "in what repeats behind it" if repeated else "in what is made of it"
    return Finding(
        kind="exploding_gradients",
        cause=cause,
        severity="critical",
        confidence=0.8,
        layers=tuple(dict.fromkeys((layer, *(s.layer for s in reversed(last.layers))))),
        first_step=facts.recent[0].step,
        summary=f"from the loss back to the output the gradient grows by {amount:.1f} decades, {what}: which way a "
        f"step leads is chance; {facts.learning.sentence}.",
        evidence=(
            Evidence(layer=layer, statistic="growth of the gradient from the loss to the output, log10", value=amount,
                     threshold=CLEAR, steps=(facts.recent[0].step, last.step), source=_SOURCE),
        ),
        attribution=Attribution(other=amount),
        treatments=TREATMENTS[cause],
    )  # fmt: skip


def _growth(profile: Profile) -> tuple[str, float, str, int] | None:
    """(layer, decades, which way, operation) where the signal grows by more than e^3 over the depth at the start."""
    first = profile.layers[0]
    backward = max(profile.layers, key=lambda s: s.raw if s.raw == s.raw else -math.inf)
    spreads = [
        (profile.traced.stats[s.operation].output_std, s)
        for s in profile.layers
        if s.operation != first.operation
    ]
    known = [(v, s) for v, s in spreads if v is not None]
    base = profile.traced.stats[first.operation].output_std
    found: list[tuple[str, float, str, int]] = []
    if backward.raw > -THRESHOLD:
        found.append((backward.layer, backward.raw, "backward", backward.operation))
    if base and known:
        top, where = max(known, key=lambda pair: pair[0])
        if decades(top, base) > -THRESHOLD:
            found.append((where.layer, decades(top, base), "forward", first.operation))
    recurrent = _time_growth(profile)
    if recurrent is not None and all(recurrent[1] > 0.5 * amount for _, amount, _, _ in found):
        return recurrent  # the rest follows from it
    return max(found, key=lambda f: f[1], default=None)


def _time_growth(profile: Profile) -> tuple[str, float, str, int] | None:
    """The same along the uses of a weight that the signal passes again and again (time steps)."""
    traced = profile.traced
    first = min(profile.layers, key=lambda s: s.operation)
    path = traced.path_to(first.operation)
    weight = recurrent_weight(traced, path)
    if weight is None:
        return _fused_growth(profile)
    uses = [i for i in path if weight in traced.operations[i].parameters]  # from the loss back in time
    top = max(uses, key=lambda i: traced.stats[i].norm)
    grown = decades(traced.stats[top].norm, traced.stats[uses[0]].norm)
    return (layer_name(traced.operations[top]), grown, "backward", top) if grown > -THRESHOLD else None


def _late_growth(facts: Facts) -> tuple[Profile, tuple[str, float, str, int]] | None:
    """The last finite profile, where the signal has come to grow back through time."""
    last = next((p for p in reversed(facts.profiles) if not any(s.nonfinite for s in p.layers)), None)
    grown = None if last is None else _time_growth(last)
    return None if last is None or grown is None else (last, grown)


def _fused_growth(profile: Profile) -> tuple[str, float, str, int] | None:
    found: list[tuple[str, float, str, int]] = []
    for t in profile.traced.trace.through_time:
        at = [o.index for o in profile.traced.operations if o.module == t.module and o.kind == "weight"]
        norms = t.norms[::-1] if t.reverse else t.norms
        grown = decades(max(norms, default=0.0), norms[-1]) if norms else math.nan
        if at and grown > -THRESHOLD:
            found.append((layer_name(profile.traced.operations[at[0]]), grown, "backward", at[0]))
    return max(found, key=lambda f: f[1], default=None)


def _peak(facts: Facts) -> float:
    values = [v for v in facts.model.losses if math.isfinite(v)]
    first = facts.learning.first
    return max(values) / first if values and first and first > 0 else 0.0


def _gradient_growth(facts: Facts) -> tuple[float, str, int]:
    """(largest finite gradient of any weight over that weight's first, its layer, its step)."""
    motion, steps = facts.motion, facts.model.parameter_steps
    best = (0.0, "", 0)
    gradients = motion.column("gradient_rms")
    for parameter in motion.weights:
        column = gradients[:, parameter.index]
        known = np.flatnonzero(np.isfinite(column) & (column > 0))
        if len(known):
            top = int(known[column[known].argmax()])
            layer = parameter_layer(parameter.name)
            best = max(best, (float(column[top] / column[known[0]]), layer, int(steps[top])))
    return best


def _leap(facts: Facts) -> tuple[str, float, int] | None:
    """(what, by which factor, at which step) rose just before the loss broke, in a step that was not looked at."""
    steps, losses = list(facts.model.steps), np.array(facts.model.losses)
    first = facts.learning.first
    if not first or first <= 0 or not len(losses):
        return None
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(losses) | (losses > RISEN * first))
    if not len(bad) or bad[0] == 0:
        return None
    at = int(bad[0])
    rates = np.array(facts.model.learning_rates)
    if len(rates) == len(steps) and at > _JUST_BEFORE:
        before = np.nanmedian(rates[: at - _JUST_BEFORE + 1]) if np.isfinite(rates[:at]).any() else math.nan
        late = rates[at - _JUST_BEFORE : at]
        if before > 0 and np.isfinite(late).any() and np.nanmax(late) > RAISED * before:
            raised = at - _JUST_BEFORE + int(np.nanargmax(late))
            return (
                "learning rate over what it was before",
                float(np.nanmax(late) / before),
                int(steps[raised]),
            )
    finite = np.isfinite(losses)
    over = np.flatnonzero(finite & (np.where(finite, losses, 0.0) > RISEN * first))
    if len(over):
        return LOSS_ROSE, float(losses[over].max() / first), int(steps[over[0]])
    return None


def _by_init(facts: Facts, start: Profile, grown: tuple[str, float, str, int]) -> Finding:
    layer, amount, way, operation = grown
    cause, parts = cause_of_growth(start.traced, operation)
    if _fused_growth(start) == grown:
        cause = "recurrence"
    if way == "forward" and cause == "too_deep":
        cause = "init_too_large"
    layers = _from_the_start(start, layer, way)
    return Finding(
        kind="exploding_gradients",
        cause=cause,
        severity="critical",
        confidence=0.95 if facts.learning.status == "non_finite" else 0.85,
        layers=layers,
        first_step=start.step,
        summary=f"at step {start.step} the {way} signal already grows "
        f"by {amount:.1f} decades up to {place(layer)}; {facts.learning.sentence}.",
        evidence=(
            Evidence(
                layer=layer,
                statistic=f"growth of the {way} signal over the depth, log10",
                value=amount,
                threshold=-THRESHOLD,
                steps=(start.step, start.step),
                source=_SOURCE,
            ),
        ),
        attribution=parts,
        treatments=TREATMENTS[cause],
    )


def _from_the_start(start: Profile, layer: str, way: str) -> tuple[str, ...]:
    """The layer where it begins first: seen forward from the data, seen backward from the loss."""
    names = list(dict.fromkeys(s.layer for s in start.layers))
    position = names.index(layer)
    through = names[: position + 1] if way == "forward" else names[position:][::-1]
    return (layer, *(n for n in through if n != layer)) if way == "backward" else tuple(through)


def _input_size(facts: Facts) -> float:
    """Rms of what enters the first layer (0 = not known)."""
    known = [s.input_second_moment for s in facts.model.architecture[:1] if s.input_second_moment is not None]
    return math.sqrt(known[0]) if known and known[0] > 0 else 0.0


def _by_rate(facts: Facts, layer: str, at: int, value: float, threshold: float, statistic: str) -> Finding:
    step = max(0, at)
    huge = step <= AT_ONCE and _input_size(facts) > UNSCALED
    cause: Cause = "inputs" if huge else "learning_rate"
    why = f"the inputs are of size {_input_size(facts):.2g}" if huge else "the signal over the depth was fine"
    return Finding(
        kind="exploding_gradients",
        cause=cause,
        severity="critical",
        confidence=0.7 if statistic == LOSS_ROSE else 0.85,
        layers=(layer,) if layer else (),
        first_step=step,
        summary=f"the steps outgrow the weights: at step {step} the {statistic} is {value:.2g}"
        f"{f' in {place(layer)}' if layer else ''}, while {why} at the start; "
        f"{facts.learning.sentence}.",
        evidence=(
            Evidence(
                layer=layer,
                statistic=statistic,
                value=value,
                threshold=threshold,
                steps=(step, step),
                source=_SOURCE,
            ),
        ),
        attribution=Attribution(),
        treatments=TREATMENTS[cause],
    )


RULE = Rule(
    kind="exploding_gradients",
    check=_check,
    why="Factors above one multiply as well: a step that is larger than the weights destroys what they were.",
    wrong_when="A deliberate giant first step (warm restarts, zero-initialised layers next to large ones).",
    source=_SOURCE,
)
