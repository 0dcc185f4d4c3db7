"""A candidate: one or more prescriptions under a name, that are worth a try together."""

from __future__ import annotations

from dataclasses import dataclass

from unvanish.errors import UsageError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import JsonValue, Prescription, Safety
from unvanish.treatment.operate import safety_of

# how much of a net a treatment changes; less comes first among equals
_EFFORT: dict[TreatmentName, int] = {"init": 0, "learning_rate": 0, "clip": 0, "gated_rnn": 2, "simplify": 3}
# what is claimed of these is that the signal comes through; the others mend what lies around the net
FLOW_TREATMENTS: frozenset[TreatmentName] = frozenset(
    ("activation", "init", "batchnorm", "layernorm", "groupnorm", "residual", "simplify", "gated_rnn")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One thing to try. `half_fix` marks what is popular and, for a vanished sigmoid chain, does not help."""

    name: str
    title: str
    prescriptions: tuple[Prescription, ...]
    safety: Safety
    half_fix: bool = False

    @property
    def effort(self) -> int:
        """How much it changes: of its largest part, and one for each part more."""
        return max(_EFFORT.get(p.treatment, 1) for p in self.prescriptions) + len(self.prescriptions) - 1

    @property
    def treatment(self) -> TreatmentName:
        """What it is about, by the contract's name."""
        return self.prescriptions[0].treatment

    @property
    def claims_flow(self) -> bool:
        """Whether it is said to bring the signal through the net, in a way that the gain per layer shows.

        Norms that lose it make no factor that could be measured beside their successors'.
        """
        return any(
            p.treatment in FLOW_TREATMENTS and p.parameters.get("at") != "norms" for p in self.prescriptions
        )


def candidate(name: str, title: str, *prescriptions: Prescription, half_fix: bool = False) -> Candidate:
    """A candidate; its safety is the worst of its parts'."""
    return Candidate(
        name=name,
        title=title,
        prescriptions=prescriptions,
        safety=safety_of(prescriptions),
        half_fix=half_fix,
    )


def of(treatment: TreatmentName, **parameters: JsonValue) -> Prescription:
    """A prescription for the whole model."""
    return Prescription(treatment=treatment, parameters=dict(parameters))


def pick(candidates: tuple[Candidate, ...], only: tuple[str, ...]) -> tuple[Candidate, ...]:
    """The candidates of these names, in the order of the catalogue (all of them where `only` is empty).

    A treatment's name of the contract (say "activation") picks every candidate that uses it.

    Raises:
        UsageError: a name that picks nothing.
    """
    if not only:
        return candidates

    def meant(candidate: Candidate, word: str) -> bool:
        return word == candidate.name or word in {p.treatment for p in candidate.prescriptions}

    for word in only:
        if not any(meant(c, word) for c in candidates):
            known = ", ".join(c.name for c in candidates)
            raise UsageError(f"there is no candidate {word[:40]!r}", f"choose from {known}")
    return tuple(c for c in candidates if any(meant(c, word) for word in only))
