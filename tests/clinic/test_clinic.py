"""The clinic: its labels are whole and proved, and its runner counts rightly."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import run as runner
from labels import FAMILIES, HELD_OUT, HERE, Case, all_cases

CASES = all_cases()
PROVED = [case for case in CASES if case.proof]


def test_every_script_has_a_label_and_every_label_a_script() -> None:
    labelled = {case.script for case in CASES}
    assert labelled == {path for family in FAMILIES for path in (HERE / family).glob("*.py")}
    assert len(CASES) >= 80
    ill = [case for case in CASES if case.verdict != "healthy"]
    assert 0.4 < len(ill) / len(CASES) < 0.7


def test_what_is_reported_is_enough_to_say_something() -> None:
    report = [case for case in CASES if case.part == "report"]
    count = Counter(case.verdict for case in report)
    assert len(report) >= 40 and min(count.values()) >= 8
    assert {case.family for case in report} == set(HELD_OUT)


def test_no_script_knows_of_unvanish_or_seeds_itself() -> None:
    for case in CASES:
        source = case.script.read_text(encoding="utf-8")
        assert "unvanish" not in source, case.name
        assert ("--cured" in source) == (case.verdict != "healthy"), case.name


@pytest.mark.parametrize("case", PROVED, ids=lambda c: f"{c.family}-{c.name}")
def test_the_proof_says_what_the_label_says(case: Case) -> None:
    learns = case.proof["plain" if case.verdict == "healthy" else "cured"]
    assert len(learns) == 3 and all(v is not None and v < case.learned_below for v in learns)
    if case.verdict != "healthy":
        limit = case.stuck_above if case.stuck_above is not None else math.inf
        assert limit >= case.learned_below
        assert all(v is None or v > limit for v in case.proof["plain"])


def seen(
    verdict: str, kind: str = "", cause: str = "", layer: str = "", *, label: str = "sick", seed: int = 0
) -> runner.Seen:
    case = Case(
        name=f"{label}-{kind}", family="flow", what="", verdict=label, kinds=("vanishing_gradients",), causes=("recurrence",),
        first_layers=("rnn",), onset=0, cure="", chance=None, stuck_above=1.0, learned_below=0.5, proof={},
    )  # fmt: skip
    return runner.Seen(
        case=case, seed=seed, verdict=verdict, kind=kind, cause=cause, layer=layer, confidence=0.9
    )


def test_the_figures_count_rightly() -> None:
    some = [
        seen("sick", "vanishing_gradients", "recurrence", "rnn.cell"),
        seen("sick", "vanishing_gradients", "too_deep", "head"),
        seen("inconclusive"),
        seen("sick", "dead_units", label="healthy"),
        seen("healthy", label="healthy"),
    ]
    figures = dict(runner.figures(some))
    assert figures["recall: sick cases called sick"].startswith("2 of 3")
    assert figures["precision: called sick and sick"].startswith("2 of 3")
    assert figures["cause right, sick cases"].startswith("1 of 3")
    assert figures["a right layer first, sick cases"].startswith("1 of 3")
    assert figures["healthy cases called healthy"].startswith("1 of 2")
    table = runner.beside(some)
    assert table[1][:3] == ["**unvanish**", "0.67", "0.67"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["digits_relu_twenty", "diabetes_regression", "digits_epoch_shuffle", "iris_three"]
)
def test_a_case_goes_through(name: str) -> None:
    """A few of the tuned half, so that the runner and the rules stay what they were when the page was written."""
    case = next(c for c in CASES if c.name == name)
    found = runner.watch(case, 0)
    assert found.verdict_right and (case.verdict == "healthy" or found.cause_right), found
