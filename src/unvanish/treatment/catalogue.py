"""Candidates: named combinations of prescriptions that are worth a trial."""

from __future__ import annotations

from dataclasses import dataclass

from unvanish.errors import UsageError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Prescription, Safety
from unvanish.treatment.operate import safety_of


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
        """How much it changes: the number of prescriptions."""
        return len(self.prescriptions)


def _candidate(name: str, title: str, *prescriptions: Prescription, half_fix: bool = False) -> Candidate:
    return Candidate(
        name=name,
        title=title,
        prescriptions=prescriptions,
        safety=safety_of(prescriptions),
        half_fix=half_fix,
    )


def _of(treatment: TreatmentName, **parameters: str | float) -> Prescription:
    return Prescription(treatment=treatment, parameters=dict(parameters))


def seed_candidates() -> tuple[Candidate, ...]:
    """The five solutions of the seed (ReLU and LeakyReLU with the init they need), and three half-fixes."""
    return (
        _candidate("simplify", "simplify to 3 layers", _of("simplify", layers=3)),
        _candidate("relu_he", "ReLU with He init", _of("activation", kind="relu"), _of("init", scheme="he")),
        _candidate(
            "leaky_relu_he",
            "LeakyReLU with He init for its slope",
            _of("activation", kind="leaky_relu", slope=0.01),
            _of("init", scheme="he"),
        ),
        _candidate(
            "init",
            "proper init: orthogonal, gain 4, centred",
            _of("init", scheme="critical_centred"),
        ),
        _candidate("batchnorm", "batch norm before each activation", _of("batchnorm")),
        _candidate("residual", "identity skips", _of("residual")),
        _candidate("relu_alone", "ReLU, init unchanged", _of("activation", kind="relu"), half_fix=True),
        _candidate("xavier", "Xavier init", _of("init", scheme="xavier"), half_fix=True),
        _candidate("lsuv", "LSUV init", _of("init", scheme="lsuv"), half_fix=True),
    )


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
