"""Uninformative data, seen at the net's entry: inputs that are all the same, or of sizes that no one rate fits."""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.diagnose.causes import TREATMENTS
from unvanish.diagnose.facts import Facts
from unvanish.diagnose.rule import Rule
from unvanish.schema.architecture import LayerSpec
from unvanish.schema.finding import Evidence, Finding
from unvanish.schema.graph import place

SAME = 1e-4  # of the input's mean square differs between samples
LARGE = 30.0  # rms of the input
_SOURCE = "LeCun et al. 1998, Efficient BackProp, 4.3: inputs centred, scaled and different from one another"


def _check(facts: Facts) -> Iterable[Finding]:
    if not facts.stalled or not facts.model.architecture:
        return
    entry = facts.model.architecture[0]
    known = [s.input_variety for s in facts.model.architecture if s.input_variety is not None]
    if entry.input_variety is not None and all(v < SAME for v in known):
        yield _finding(facts, entry, "share of the input's mean square that differs between samples",
                       entry.input_variety, SAME, "gets the same input for every sample", 0.93)  # fmt: skip
        return
    size = (entry.input_second_moment or 0.0) ** 0.5
    if size > LARGE:
        words = f"gets inputs of size {size:.3g}; scale them to about 1"
        yield _finding(facts, entry, "rms of the input", size, LARGE, words, 0.75)


def _finding(
    facts: Facts,
    entry: LayerSpec,
    statistic: str,
    value: float,
    threshold: float,
    words: str,
    confidence: float,
) -> Finding:
    return Finding(
        kind="uninformative_data",
        cause="inputs",
        severity="critical",
        confidence=confidence,
        layers=(entry.name,),
        first_step=0,
        summary=f"{place(entry.name)} {words}; {facts.learning.sentence}.",
        evidence=(
            Evidence(
                layer=entry.name,
                statistic=statistic,
                value=value,
                threshold=threshold,
                steps=(0, 0),
                source=_SOURCE,
            ),
        ),
        treatments=TREATMENTS["inputs"],
    )


RULE = Rule(
    kind="uninformative_data",
    check=_check,
    why="What does not differ between samples can't tell them apart, and features of very different sizes can't "
    "all be learned with one learning rate.",
    wrong_when="A net that learns to be a constant on purpose; inputs that a norm layer rescales first.",
    source=_SOURCE,
)
