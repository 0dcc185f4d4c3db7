"""The terminal: Verdict / Why / Next in exact labels, plain without a terminal, no name read as markup."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from typing import get_args

import builders as b
import pytest
from rich.console import Console

from unvanish.present import words
from unvanish.present.chain_text import print_chain
from unvanish.present.text import diagnosis_to_text, print_diagnosis, print_treatment, visible
from unvanish.schema.finding import Cause, Kind, NotChecked, TreatmentName, Verdict
from unvanish.schema.run import RunStatus
from unvanish.schema.treatment import Outcome


def printed(show: object, *arguments: object, terminal: bool = False, **options: object) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, **options)  # type: ignore[arg-type]
    show(*arguments, console)  # type: ignore[operator]
    return stream.getvalue()


def test_the_three_lines_stand_first_with_their_exact_labels() -> None:
    lines = diagnosis_to_text(b.diagnosis(), (b.chain(),)).splitlines()
    assert lines[0] == (
        "Verdict  Sick: the gradients vanish on their way back, because of saturating activations."
    )
    assert (
        lines[1] == "Why      Of the 10.2 decades lost on the way to layers.0, sigmoid derivatives took 7.3."
    )
    assert lines[2].startswith("Next     Swap the saturating activations")
    assert lines[3].startswith("Layers   layers.0, layers.1")
    assert lines[-1] == "Skipped  precision_underflow and uninformative_data."


def test_the_product_of_factors_is_short_and_adds_up() -> None:
    text = diagnosis_to_text(b.diagnosis(), (b.chain(),))
    assert "Of the 9.9 decades lost between layers.11 and layers.0" in text
    between = re.search(r"\.\.\. (\d+) factors between", text)
    assert between is not None
    assert int(between.group(1)) == 12
    last = next(line for line in reversed(text.splitlines()) if line.startswith("Sigmoid"))
    assert last.split()[3] == "\u22129.9"


def test_without_a_terminal_there_is_no_box_no_colour_and_no_broken_line() -> None:
    for text in (
        printed(print_diagnosis, b.diagnosis(), (b.chain(),)),
        printed(print_treatment, b.treatment()),
        printed(print_chain, b.chain()),
    ):
        assert "\x1b" not in text
        assert not set(text) & set("\u2500\u2501\u2502\u2503\u253c\u256d\u2550")
    assert "equal width.\n" in printed(print_diagnosis, b.diagnosis(), ())


def test_on_a_terminal_it_is_coloured_and_wraps_beside_its_label() -> None:
    text = printed(print_diagnosis, b.diagnosis(), (b.chain(),), terminal=True, color_system="standard")
    assert "\x1b[" in text
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\n         does not fit" in bare
    assert all(len(line) <= 100 for line in bare.splitlines())


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(print_diagnosis, b.diagnosis(), (b.chain(),), terminal=True, color_system="standard")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", text)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in printed(print_treatment, b.treatment(), terminal=True)


def test_names_are_never_read_as_markup_and_cannot_steer_the_terminal() -> None:
    names = ["[bold red]a[/]", "\x1b]0;hit\x07b", "c\nVerdict  Healthy"]
    for terminal in (False, True):
        text = printed(print_diagnosis, b.diagnosis(names), (b.chain(names),), terminal=terminal)
        assert "[bold red]a[/]" in text
        assert "\x1b]0" not in text
        assert "\x07" not in text
        assert "\nVerdict  Healthy" not in text


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\u202eb", "a\rb", "a\x9bb"])
def test_visible_replaces_what_steers(text: str) -> None:
    assert visible(text).isprintable()


def test_treatments_stand_in_one_table_with_the_baseline_first() -> None:
    lines = printed(print_treatment, b.treatment()).splitlines()
    assert re.split(r"  +", lines[0]) == [
        "Variant",
        "Gain predicted",
        "Gain measured",
        "Loss",
        "Stuck",
        "Outcome",
    ]
    assert re.split(r"  +", lines[1]) == [
        "As it is (sigmoid)",
        "0.020",
        "0.019",
        "2.30 [2.27, 2.34]",
        "5/5",
        "baseline",
    ]
    relu = next(line for line in lines if line.startswith("ReLU alone"))
    assert re.split(r"  +", relu)[1:3] == ["0.167", "0.175"]
    assert any(
        line.startswith("Verdict  3 of 8 treatments cured it; chosen: Identity skips.") for line in lines
    )
    assert any(line.startswith("Next     unvanish run --recipe ") for line in lines)


def test_a_treatment_that_chose_nothing_says_what_to_do() -> None:
    none = replace(b.treatment(), chosen=None, recipe=None, stopped="stopped by hand after 3 trials")
    text = printed(print_treatment, none)
    assert "none was chosen" in text
    assert "Why      Stopped by hand after 3 trials." in text


def test_where_every_trial_has_failed_it_is_said_of_what_and_not_that_the_net_is_well() -> None:
    result = b.treatment()
    failed = tuple(
        replace(t, outcome="failed", why="there is no optimizer; build one" if i else "OSError: full")
        for i, t in enumerate(result.trials)
    )
    text = printed(print_treatment, replace(result, trials=failed, chosen=None, recipe=None))
    count = f"({len(failed) - 1} of {len(failed)} say so)"
    assert f"every trial of a treatment failed: there is no optimizer; build one {count}." in text
    assert "Mend what the trials failed of" in text and "Keep the net" not in text
    dead = replace(result.baseline, curves=(), outcome="failed")
    text = printed(print_treatment, replace(result, baseline=dead, trials=failed, chosen=None, recipe=None))
    assert "the untreated script's, too" in text


def test_a_script_without_an_optimizer_is_told_where_else_the_treatment_goes() -> None:
    result = b.treatment()
    bare = tuple(replace(t, learning_rate=None) for t in result.trials)
    assert "before the training loop" in printed(print_treatment, replace(result, trials=bare))
    rated = tuple(replace(t, learning_rate=0.1) for t in result.trials)
    assert "before the optimizer is built" in printed(print_treatment, replace(result, trials=rated))


def test_healthy_is_told_to_keep_training() -> None:
    lines = diagnosis_to_text(b.diagnosis(healthy=True)).splitlines()
    assert lines[0] == "Verdict  Healthy: the learning signal reaches every layer."
    assert lines[2] == "Next     Keep training."


def test_inconclusive_asks_for_what_is_missing_not_for_rules_that_do_not_exist_yet() -> None:
    told = b.diagnosis(healthy=True).models[0]
    skipped = (*told.skipped, NotChecked(what="backprop signal by layer", why="no traced backward pass"))
    model = replace(told, verdict="inconclusive", skipped=skipped)
    line = words.next_line(model)
    assert line == "Get what is missing: backprop signal by layer (no traced backward pass)."


def test_a_cut_off_run_is_named_before_the_verdict() -> None:
    text = diagnosis_to_text(replace(b.diagnosis(), status="cut_off"))
    assert text.startswith("Run      The run was cut off")


def test_a_run_without_a_model_has_a_verdict_too() -> None:
    text = diagnosis_to_text(replace(b.diagnosis(), models=()))
    assert text.startswith("Verdict  Inconclusive: no model was trained.")


def test_two_models_are_told_apart() -> None:
    both = (b.diagnosis(name="generator").models[0], b.diagnosis(name="critic", healthy=True).models[0])
    text = diagnosis_to_text(replace(b.diagnosis(), models=both))
    assert (
        text.index("Model    generator")
        < text.index("Sick")
        < text.index("Model    critic")
        < text.index("Healthy")
    )


def test_there_are_words_for_every_word_of_the_contract() -> None:
    assert set(words.ADVICE) == set(get_args(TreatmentName))
    assert set(words.KIND_WORDS) == set(get_args(Kind))
    assert set(words.CAUSE_WORDS) == set(get_args(Cause))
    assert set(words.VERDICT_WORDS) == set(get_args(Verdict))
    assert set(words.STATUS_WORDS) == set(get_args(RunStatus))
    assert set(words.OUTCOME_WORDS) == set(get_args(Outcome))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.02, 2, "0.020"),
        (1.2e-9, 2, "1.2e-9"),
        (2.3026, 4, "2.303"),
        (0.0, 2, "0"),
        (9.99, 2, "10"),
        (-0.5, 2, "-0.50"),
        (123456.0, 3, "1.23e5"),
        (None, 2, "-"),
        (math.nan, 2, "NaN"),
        (-math.inf, 2, "-Inf"),
    ],
)
def test_plain_numbers(value: float | None, digits: int, text: str) -> None:
    assert words.plain(value, digits) == text


def test_an_exploding_chain_gains_and_what_works_against_it_is_told() -> None:
    whole = b.chain()
    grown = replace(
        whole,
        signal_norm=whole.output_norm * 10**5,
        attribution=replace(whole.attribution, activation=-1.5, weight=6.5),
    )
    assert words.attribution_sentence(grown) == (
        "Of the 5.0 decades gained between layers.11 and layers.0 at step 0, weights gave 6.5, "
        "while sigmoid derivatives took back 1.5."
    )
