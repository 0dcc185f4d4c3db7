"""A check before training, for the terminal: Verdict / Why / Next, each layer's gain, the changes that were tried."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from unvanish.present import words
from unvanish.present.text import NAME, Page
from unvanish.present.trials import gain_text
from unvanish.schema.check import Change, Check, LayerCheck
from unvanish.schema.finding import Diagnosis, ModelDiagnosis

SHOWN_LAYERS = 12
SHOWN_CHANGES = 18
_STYLES = {
    "sick": "bold red",
    "not_learning": "bold yellow",
    "inconclusive": "bold blue",
    "healthy": "bold green",
}
_VERDICTS = {
    "healthy": "the learning signal gets through; nothing stands in the way of training.",
    "inconclusive": "what could be measured does not suffice to say.",
}
# findings that are about the flow: what a change of the model can mend
_FLOW = frozenset(("vanishing_gradients", "exploding_gradients", "dead_units", "non_finite", "plateau"))


def print_check(diagnosis: Diagnosis, console: Console) -> None:
    """Print the verdict on each model with its numbers."""
    page = Page(console=console)
    for model, check in zip(diagnosis.models, diagnosis.checks, strict=True):
        if len(diagnosis.models) > 1:
            page.gap()
            page.labelled("Model", model.name, "bold")
        _model(page, model, check)


def _model(page: Page, model: ModelDiagnosis, check: Check) -> None:
    claim = _VERDICTS.get(model.verdict) or words.claim(model)
    page.labelled("Verdict", f"{words.VERDICT_WORDS[model.verdict]}: {claim}", _STYLES[model.verdict])
    page.labelled("Why", words.sentence(words.capital(model.reason)))
    page.labelled("Next", next_line(model, check))
    shown = model.findings[1:] if model.verdict in ("sick", "not_learning") else model.findings
    for finding in shown:
        page.labelled(
            "Also", f"{words.capital(words.KIND_WORDS[finding.kind])} ({finding.severity}): {finding.summary}"
        )
    if check.depth is not None:
        page.labelled("Depth", f"{words.capital(check.depth.words)}.")
    if check.layers:
        page.gap()
        _layers(page, check)
    if check.changes:
        page.gap()
        _changes(page, check)
    for note in model.skipped:
        page.labelled("Note", f"No {note.what}: {note.why}.", "dim", "dim")
    page.line(f"({check.wall_seconds:.1f} s)", "dim")


def next_line(model: ModelDiagnosis, check: Check) -> str:
    """What to do before the training is started."""
    if model.verdict == "healthy":
        return "Train; unvanish run watches it."
    first = model.findings[0] if model.findings else None
    if (first is None or first.kind in _FLOW) and check.changes:
        good = [c for c in check.changes if c.carries]
        if good:
            return _carrying(good)
        if (
            first is None or first.cause != "recurrence"
        ):  # cells are not treated: what is tried is beside the point there
            best = check.changes[0]
            return f"No single change that was tried carries this net; {best.title} comes nearest ({best.words})."
    return words.next_line(model)


def _carrying(good: Sequence[Change]) -> str:
    first, *others = good
    gain = f" (gain per layer {gain_text(first.measured_gain)})" if first.measured_gain is not None else ""
    said = f"{words.capital(first.title)}{gain} would carry this net."
    return said + (f" So would: {'; '.join(c.title for c in others[:2])}." if others else "")


def _layers(page: Page, check: Check) -> None:
    head = ("Layer", "Predicted", "Band", "Measured", "")
    rows = list(check.layers)
    side = SHOWN_LAYERS // 2
    cells = [_layer(row) for row in rows]
    if len(rows) > SHOWN_LAYERS:
        gap = (f"... {len(rows) - 2 * side} layers between", "", "", "", "")
        cells = [*cells[:side], gap, *cells[len(cells) - side :]]
    page.table(head, cells, numbers=(1, 2, 3))
    within, known = check.compared
    agree = f"Theory and measurement agree within the band at {within} of {known} layers. " if known else ""
    page.line(f"{agree}Gain: the share of the squared signal that a layer passes on; 1 keeps it.", "dim")


def _layer(row: LayerCheck) -> tuple[str, ...]:
    band = "" if row.band is None else f"{gain_text(row.band[0])} .. {gain_text(row.band[1])}"
    predicted = gain_text(row.predicted) if row.predicted is not None else "no prediction"
    if row.predicted is None and row.measured is None and row.why_no_prediction.startswith("nothing lies"):
        predicted, note = "", "the first layer"
    elif row.agrees is False:
        note = "outside of the band"
    else:
        note = row.why_no_prediction
    measured = "" if row.measured is None else gain_text(row.measured)
    return words.shortened(row.name, NAME), predicted, band, measured, note


def _changes(page: Page, check: Check) -> None:
    head = ("Single change", "Gain predicted", "Gain measured", "Outcome")
    now = ("as it is", gain_text(check.predicted_gain), gain_text(check.measured_gain), _reach(check.signal))
    rows = [now]
    styles = [""]
    for change in check.changes[:SHOWN_CHANGES]:
        rows.append(
            (
                words.shortened(change.title, NAME),
                gain_text(change.predicted_gain),
                gain_text(change.measured_gain),
                change.words,
            )
        )
        styles.append("bold green" if change.carries else "red")
    page.table(head, rows, numbers=(1, 2), styles=styles)
    left = len(check.changes) - SHOWN_CHANGES
    more = f" {left} more, which do less, are in the JSON." if left > 0 else ""
    page.line(f"Each on a copy of the net, by one backward pass.{more}", "dim")


def _reach(signal: float | None) -> str:
    if signal is None or signal != signal:
        return ""
    return "nothing arrives" if signal == float("-inf") else f"10^{signal:.1f} of the signal arrives"
