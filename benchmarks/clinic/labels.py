"""The clinic's labels: what each script in the folders beside this file is, and how that was proved by training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Written by others than the rules' author. What was reported once, and then read, is tuned on from then on.
READ = ("layers", "sequences", "assorted", "pictures", "decisions", "tables")
# Written by others as well, and measured before anybody who writes rules had read them. Since then the ten of workshop
# and series that were missed have been read: a next report needs new ones. studio and streams are nearly all sick:
# they were written to see how many cures are found (benchmarks/cures.py); the six that were not cured have been read.
HELD_OUT = ("workshop", "series", "studio", "streams")
FAMILIES = ("flow", "extremes", "elsewhere", *READ, *HELD_OUT)
LABELS = "labels.json"
# where steps are too large, how far it goes is a matter of their number: both words are right in all such cases
_TOO_FAST = ("learning_rate_too_large", "exploding_gradients")
VERDICTS = ("sick", "not_learning", "healthy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One script with its label.

    `causes` and `first_layers`: any of these is right. `onset`: the step at which it falls ill; 0 = from the start.
    `stuck_above`: with a final loss above this (or none that is finite) a training has failed. `learned_below`: with
    one below this it has learned. A case that is not healthy must fail as it is, and learn when started with --cured.
    """

    name: str
    family: str
    what: str
    verdict: str
    kinds: tuple[str, ...]
    causes: tuple[str, ...]
    first_layers: tuple[str, ...]
    onset: int
    cure: str
    chance: float | None
    stuck_above: float | None
    learned_below: float
    proof: dict[str, list[float | None]]

    @property
    def script(self) -> Path:
        """The file."""
        return HERE / self.family / f"{self.name}.py"

    @property
    def part(self) -> str:
        """Rules are tuned on the one part, and the other is reported."""
        return "report" if self.family in HELD_OUT else "tune"


def all_cases() -> list[Case]:
    """Of all families, in order of family and name."""
    return [case for family in FAMILIES for case in _family(family)]


def _family(family: str) -> list[Case]:
    labels = read(family)
    return [_case(family, name, labels[name]) for name in sorted(labels)]


def read(family: str) -> dict[str, dict[str, Any]]:
    """A family's file, as it is."""
    path = HERE / family / LABELS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write(family: str, labels: dict[str, dict[str, Any]]) -> None:
    """Write a family's file."""
    text = json.dumps(dict(sorted(labels.items())), indent=1)
    (HERE / family / LABELS).write_text(text + "\n", encoding="utf-8")


def _case(family: str, name: str, label: dict[str, Any]) -> Case:
    kinds = list(label.get("kinds", ()))
    if "learning_rate" in label.get("causes", ()) and set(kinds) & set(_TOO_FAST):
        kinds += [kind for kind in _TOO_FAST if kind not in kinds]
    case = Case(
        name=name,
        family=family,
        what=label["what"],
        verdict=label["verdict"],
        kinds=tuple(kinds),
        causes=tuple(label.get("causes", ())),
        first_layers=tuple(label.get("first_layers", ())),
        onset=label.get("onset", 0),
        cure=label.get("cure", ""),
        chance=label.get("chance"),
        stuck_above=label.get("stuck_above"),
        learned_below=label["learned_below"],
        proof=label.get("proof", {}),
    )
    if case.verdict not in VERDICTS:
        raise ValueError(f"{name}: verdict {case.verdict!r} is none of {', '.join(VERDICTS)}")
    if case.verdict != "healthy" and not (
        case.kinds and case.causes and case.cure and case.stuck_above is not None
    ):
        raise ValueError(f"{name}: a case that is not healthy needs kinds, causes, cure and stuck_above")
    return case
