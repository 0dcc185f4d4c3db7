"""Uninformative labels: everything works, the steps are made, and the loss stays at what guessing gives."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import LOOK_ALIKE, THRESHOLD, Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.finding import Evidence, Finding

AT_CHANCE = 0.15  # of the chance loss
BELOW = 0.02  # of the chance loss: more below it than that can't be had from labels that say nothing
MOVED = 0.1  # |dw| / |w| summed over the steps: the weights have gone somewhere
RESTING = 0.005  # of the chance loss, from the second third of the run to the last
_FUSED = ("MkldnnRnnLayer", "CudnnRnn", "MiopenRnn", "ThnnFusedLstmCell", "ThnnFusedGruCell")
_SOURCE = (
    "Zhang et al. 2017: a net fits random labels only by memorising; on fresh ones it stays at their entropy"
)


def _check(facts: Facts) -> Iterable[Finding]:
    learning, motion = facts.learning, facts.motion
    if not facts.stalled or learning.steps < 40 or learning.chance is None or learning.last is None:
        return
    if any(o.name in _FUSED for p in facts.recent[-1:] for o in p.traced.operations):
        return  # what happens between the time steps of a fused layer is not seen
    if _still_comes_down(facts) or learning.last < learning.chance - max(
        3 * learning.noise, BELOW * learning.chance
    ):
        return  # what it has found is no accident
    if facts.told_apart is not None and facts.told_apart < LOOK_ALIKE:
        return  # by the output all samples look alike: it is not the labels that say nothing
    fed = facts.recent and all(p.entry > THRESHOLD for p in facts.recent)
    distance = abs(learning.last - learning.chance) / abs(learning.chance) if learning.chance else math.inf
    if fed and distance < AT_CHANCE and motion.travelled > MOVED:
        last = facts.model.steps[-1]
        yield Finding(
            kind="uninformative_data",
            cause="labels",
            severity="critical",
            confidence=0.7,
            layers=(),
            first_step=0,
            summary="the signal arrives, the weights have moved, and yet the loss stays at what guessing gives: the "
            f"inputs seem to say nothing about the labels; {learning.sentence}.",
            evidence=(
                Evidence(layer="", statistic="distance of the loss from that of guessing, of the latter",
                         value=distance, threshold=AT_CHANCE, steps=(0, last), source=_SOURCE),
                Evidence(layer="", statistic="|step| / |weight|, summed over all steps", value=motion.travelled,
                         threshold=MOVED, steps=(0, last), source=_SOURCE),
            ),
            treatments=TREATMENTS["labels"],
        )  # fmt: skip


def _still_comes_down(facts: Facts) -> bool:
    """Whether it is on its way, and not just coming to rest at what guessing gives."""
    learning, values = facts.learning, [v for v in facts.model.losses if math.isfinite(v)]
    third = len(values) // 3
    if not learning.drifting or not third or learning.chance is None:
        return learning.drifting
    fall = statistics.fmean(values[third : 2 * third]) - statistics.fmean(values[-third:])
    return fall > RESTING * learning.chance


RULE = Rule(
    kind="uninformative_data",
    check=_check,
    why="Where signal, steps and outputs are in order and the loss does not leave chance, what is left is the data.",
    wrong_when="A hard task (parity) with a long plateau; a rate somewhat too small.",
    source=_SOURCE,
)
