"""What a rule is: a function from facts to findings, with its reason, its limits and its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from unvanish.diagnose.facts import Facts
from unvanish.schema.finding import Finding, Kind

Check = Callable[[Facts], Iterable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of finding. `why` is the reason, `wrong_when` what it can be fooled by, `source` where it is from."""

    kind: Kind
    check: Check
    why: str
    wrong_when: str
    source: str

    def __post_init__(self) -> None:
        """Refuse a rule that does not say what it rests on."""
        if not (self.why and self.wrong_when and self.source):
            raise ValueError(f"the rule for {self.kind} must state why, wrong_when and source")
