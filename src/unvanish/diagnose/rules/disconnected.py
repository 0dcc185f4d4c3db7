"""Disconnected parameters: weights that the loss should train and that no step can reach."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import FEWEST, THRESHOLD, Facts
from unvanish.diagnose.path import parameter_layer
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Cause, Evidence, Finding
from unvanish.schema.graph import place
from unvanish.schema.run import ParameterInfo

MANY = 0.3  # of the weights (elements or tensors): fewer, and the rest can well learn without them
MOSTLY_FROZEN = 0.5
PATIENCE = 100  # steps, where the loss falls all the same
_SOURCE = "torch.optim: a step changes only what the optimizer was given, and only where .grad is set"
_STEPS = ("Round", "Sign", "Sgn", "Floor", "Ceil", "Trunc", "Heaviside")  # autograd's names
_WORDS: dict[Cause, str] = {
    "not_in_optimizer": "no optimizer steps them",
    "detached": "no gradient ever arrives there: the graph between them and the loss is cut",
    "frozen": "requires_grad is False",
    "unknown": "a gradient is made, and is gone when the optimizer steps (zero_grad() after backward()?)",
}


def _check(facts: Facts) -> Iterable[Finding]:
    learning = facts.learning
    poorly = learning.poorly and learning.steps >= PATIENCE
    # whatever the loss does, these are not what moves it
    blind = learning.status != "non_finite" and learning.steps >= FEWEST and _unreached(facts)
    if not (facts.stalled or poorly or blind or (learning.hardly and learning.steps >= FEWEST)):
        return
    unknown = _unknown_weights(facts)
    if unknown:
        yield _finding(
            facts, "not_in_optimizer", unknown, 0.9, 1.0, "weights that no module of the model holds"
        )
        return
    weights = [p for p in facts.model.info.parameters if len(p.shape) > 1]
    reached = np.asarray(np.isfinite(facts.motion.column("gradient_rms")).any(axis=0))
    trained = [p for p in weights if p.requires_grad]
    if trained and facts.motion.column("gradient_rms").size and not any(reached[p.index] for p in trained):
        loose = all("." not in p.name for p in trained)  # no module holds them: copies that were made by hand
        cause: Cause = (
            "not_in_optimizer" if loose and facts.alone else "unknown" if facts.profiles else "detached"
        )
        yield _finding(
            facts, cause, _layers(trained), 0.9, 1.0, "share of the weights that never get a gradient"
        )
        return
    stepwise = _stepwise(facts)
    if stepwise is not None:
        yield _finding(facts, "detached", *stepwise)
        return
    groups: tuple[tuple[Cause, list[ParameterInfo], float, float], ...] = (
        ("not_in_optimizer", [p for p in trained if p.optimizer is None], MANY, 0.9),
        ("detached", [p for p in trained if p.optimizer is not None and not reached[p.index]], MANY, 0.9),
        ("frozen", [p for p in weights if not p.requires_grad], MOSTLY_FROZEN, 0.75),
    )
    # of a net that learns on without them it can't be said that it wants what was frozen on purpose
    for cause, members, most, confidence in groups if not poorly or learning.hardly else groups[:2]:
        # beside what is frozen on purpose, all that is to learn may be out of reach
        share = _share(members, weights if cause == "frozen" else trained)
        if cause == "frozen" and any(p.entry < THRESHOLD for p in facts.recent):
            continue  # what is to learn gets nothing, whatever else was frozen
        if members and share >= most:
            # bodies are frozen on purpose, what stands nearest to the output is not
            named = _layers(members[::-1] if cause == "frozen" else members)
            yield _finding(facts, cause, named, confidence, share, "share of the weights (elements)", most)
            return


def _unreached(facts: Facts) -> bool:
    """Whether no weight that is to learn ever got a gradient at a step of its optimizer."""
    found = facts.motion.column("gradient_rms")
    wanted = any(p.requires_grad for p in facts.motion.weights)
    return wanted and bool(found.size) and not np.isfinite(found).any()


def _stepwise(facts: Facts) -> tuple[list[str], float, float, str] | None:
    """(layers, confidence, decades, statistic) in front of an operation whose slope is zero wherever it has one."""
    profile = facts.profiles[-1] if facts.profiles else None
    if profile is None:
        return None
    traced = profile.traced
    for operation in traced.operations:
        if operation.name not in _STEPS or not traced.swallows(operation.index):
            continue
        cut = [s.layer for s in profile.layers if s.operation < operation.index and s.starvation == -math.inf]
        if cut:
            words = f"signal that {operation.name.lower()}() hands back, log10"
            return list(dict.fromkeys(cut[::-1])), 0.9, -300.0, words
    return None


def _unknown_weights(facts: Facts) -> list[str]:
    """Weighted operations of the last traced graph whose weights want gradients, and the model does not hold them."""
    last = facts.model.traces[-1] if facts.model.traces else None
    graph = facts.model.graphs.get(last.graph) if last is not None else None
    if graph is None or facts.learning.status == "contested" or not facts.alone:
        return []
    found = [
        operation.module or operation.name
        for operation in graph.operations
        if operation.kind == "weight" and operation.parameters and not any(operation.parameters)
    ]
    return list(dict.fromkeys(found))


def _share(members: Sequence[ParameterInfo], weights: Sequence[ParameterInfo]) -> float:
    """By elements or by tensors, whichever is more."""
    if not weights:
        return 0.0
    elements = sum(p.numel for p in members) / max(1, sum(p.numel for p in weights))
    return max(elements, len(members) / len(weights))


def _layers(members: Sequence[ParameterInfo]) -> list[str]:
    return list(dict.fromkeys(parameter_layer(p.name) for p in members))


def _finding(
    facts: Facts, cause: Cause, layers: Sequence[str], confidence: float, value: float, statistic: str,
    threshold: float = MANY,
) -> Finding:  # fmt: skip
    names = ", ".join(place(layer) for layer in layers[:3]) + (
        f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    )
    return Finding(
        kind="disconnected_parameters",
        cause=cause,
        severity="critical" if facts.stalled or facts.learning.hardly else "warning",
        confidence=confidence if facts.stalled or facts.learning.hardly else 0.75,
        layers=tuple(layers),
        first_step=0,
        summary=f"{names} can't learn: {_WORDS[cause]}; {facts.learning.sentence}.",
        evidence=(
            Evidence(
                layer=layers[0],
                statistic=statistic,
                value=value,
                threshold=threshold,
                steps=(0, facts.span[1]),
                source=_SOURCE,
            ),
        ),
        treatments=TREATMENTS[cause],
    )


RULE = Rule(
    kind="disconnected_parameters",
    check=_check,
    why="A weight that no step changes learns nothing, whatever its gradient would be.",
    wrong_when="Layers frozen or left out on purpose in a net that is stuck for another reason.",
    source=_SOURCE,
)
