"""The same story for the terminal: Verdict / Why / Next, the product of factors, the treatments.

On a terminal it is drawn with Rich; anywhere else (a pipe, a log, TERM=dumb) the same words come as plain
lines: no box, no colour, no cursor movement, no line broken. What comes from the user's script is never read
as markup, and its control characters are made visible.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unvanish.present import words
from unvanish.present.trials import gain_text, loss_text, trials_sentence
from unvanish.present.waterfall import Row, chain_rows, power
from unvanish.schema.chain import Chain
from unvanish.schema.finding import Diagnosis, Finding, ModelDiagnosis
from unvanish.schema.treatment import TreatmentResult, TrialResult

LABEL = 9  # the columns that a label takes: "Verdict  "
SHOWN_FACTORS = 11  # of a product in a diagnosis; `explain` shows them one by one
ALL_FACTORS = 2000
NAME = 44  # the longest name in a table, before its middle is left out

_STYLES = {
    "sick": "bold red",
    "not_learning": "bold yellow",
    "inconclusive": "bold blue",
    "healthy": "bold green",
    "cured": "bold green",
    "improved": "green",
    "worse": "red",
    "failed": "red",
    "no_better": "",
}


def print_diagnosis(diagnosis: Diagnosis, chains: Sequence[Chain], console: Console) -> None:
    """Print the verdict on every model, with the first product of factors of each that is sick."""
    page = Page(console=console)
    if diagnosis.status in ("cut_off", "crashed", "interrupted"):
        page.labelled("Run", words.STATUS_WORDS[diagnosis.status])
    if not diagnosis.models:
        page.labelled("Verdict", "Inconclusive: no model was trained.", _STYLES["inconclusive"])
        page.labelled("Why", "Nothing was seen that has parameters and was stepped by an optimizer.")
        page.labelled("Next", "Check that the script reaches its training loop.")
        for note in diagnosis.skipped:
            page.labelled("Note", f"{note.what}: {note.why}")
    for model in diagnosis.models:
        if len(diagnosis.models) > 1:
            page.gap()
            page.labelled("Model", model.name, "bold")
        _model(page, model, [c for c in chains if c.model == model.name])


def print_treatment(result: TreatmentResult, console: Console) -> None:
    """Print what was tried: predicted and measured gain per layer, loss with its interval, outcome."""
    page = Page(console=console)
    if not result.trials:
        page.labelled("Treated", words.sentence(words.capital(result.baseline.why)))
        return
    head = ("Variant", "Gain predicted", "Gain measured", "Loss", "Stuck", "Outcome")
    rows = [_trial_cells(result.baseline, "baseline")]
    rows += [_trial_cells(t, words.OUTCOME_WORDS[t.outcome]) for t in result.trials]
    styles = ["", *(_STYLES[t.outcome] for t in result.trials)]
    page.table(head, rows, numbers=(1, 2, 3, 4), styles=styles)
    page.line("Gain per layer: the share of the squared signal that one layer passes on; 1 keeps it.", "dim")
    page.labelled("Verdict", words.capital(trials_sentence(result)), "bold")
    chosen = next((t for t in result.trials if t.name == result.chosen), None)
    page.labelled("Why", words.sentence(words.capital(chosen.why if chosen else _why_none(result))))
    page.labelled("Next", _treatment_next(result, chosen))
    for note in result.notes:
        first, *more = note.splitlines() or [""]
        page.labelled("Note", words.sentence(words.capital(first)), "dim", "dim")
        for line in more:  # of code, which is not to be broken or run together
            page.line(" " * LABEL + visible(line), "dim")


def diagnosis_to_text(diagnosis: Diagnosis, chains: Sequence[Chain] = ()) -> str:
    """The diagnosis as plain lines, as they go to a file or a log."""
    stream = io.StringIO()
    print_diagnosis(diagnosis, chains, Console(file=stream, force_terminal=False, color_system=None))
    return stream.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Where lines go: drawn on a terminal, plain elsewhere."""

    console: Console

    @property
    def drawn(self) -> bool:
        """Whether it is a terminal that can be drawn on."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def gap(self) -> None:
        """An empty line."""
        self.console.print()

    def line(self, text: str, style: str = "") -> None:
        """One paragraph."""
        self.console.print(Text(visible(text), style=style if self.drawn else ""), soft_wrap=not self.drawn)

    def labelled(self, label: str, text: str, style: str = "", label_style: str = "bold") -> None:
        """A label in its own column; on a terminal the text wraps beside it."""
        if not self.drawn:
            self.line(f"{label:<{LABEL}}{visible(text)}")
            return
        grid = Table.grid(padding=0)
        grid.add_column(width=LABEL, no_wrap=True)
        grid.add_column()
        grid.add_row(Text(label, style=label_style), Text(visible(text), style=style))
        self.console.print(grid)

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        numbers: Sequence[int],
        styles: Sequence[str] = (),
    ) -> None:
        """Rows under a head; columns in `numbers` are set to the right; `styles` is for the last cell."""
        rows = [[visible(cell) for cell in row] for row in rows]
        if not self.drawn:
            for line in _aligned([list(head), *rows], numbers):
                self.line(line)
            return
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False)
        for i, name in enumerate(head):
            table.add_column(name, justify="right" if i in numbers else "left", no_wrap=i in numbers)
        for i, row in enumerate(rows):
            style = styles[i] if i < len(styles) else ""
            table.add_row(*(Text(cell) for cell in row[:-1]), Text(row[-1], style=style))
        self.console.print(table)


def visible(text: str) -> str:
    """The text on one line, with what could steer a terminal replaced by a visible sign."""
    clean = text.translate({ord("\n"): " ", ord("\t"): " "})
    return "".join(c if c.isprintable() or c == "\u00a0" else "\N{REPLACEMENT CHARACTER}" for c in clean)


def _model(page: Page, model: ModelDiagnosis, chains: Sequence[Chain]) -> None:
    page.labelled("Verdict", words.verdict_line(model), _STYLES[model.verdict])
    page.labelled("Why", words.why_line(model))
    page.labelled("Next", words.next_line(model))
    findings = model.findings if model.verdict in ("sick", "not_learning") else ()
    if findings and findings[0].layers:
        names = [words.shortened(name, NAME) for name in findings[0].layers]
        order = "" if len(names) == 1 else " (the worst first)"
        page.labelled("Layers", words.listed(names, 4) + order)
    for finding in findings[1:]:
        page.labelled("Also", _also(finding))
    if chains and findings and findings[0].kind in words.CHAIN_KINDS:
        page.gap()
        page.line(words.attribution_sentence(chains[0]))
        _factors(page, chains[0], SHOWN_FACTORS)
    for note in model.skipped:
        if note.fault:
            page.labelled("Note", f"{words.capital(note.what)}: {note.why}.")
    names = [s.what for s in model.skipped if not s.fault]
    if names:
        page.labelled("Skipped", words.listed(names, 8) + ".", "dim", "dim")


def _also(finding: Finding) -> str:
    return f"{words.capital(words.KIND_WORDS[finding.kind])} ({finding.severity}): {finding.summary}"


def _factors(page: Page, chain: Chain, limit: int) -> None:
    head = ("Factor", "Gain", "Decades", "So far", "Predicted")
    rows, level = [], 0.0
    for row in _outer(chain_rows(chain, ALL_FACTORS), limit):
        level += row.decades
        rows.append(
            (
                words.shortened(row.label, NAME),
                words.plain(power(row.decades), 3),
                words.decades(row.decades),
                words.decades(level),
                words.decades(row.predicted),
            )
        )
    if rows:
        page.table(head, rows, numbers=(1, 2, 3, 4))


def _outer(rows: Sequence[Row], limit: int) -> list[Row]:
    """The first and the last rows; those between them as one."""
    if len(rows) <= limit:
        return list(rows)
    side = (limit - 1) // 2
    inner = rows[side : len(rows) - side]
    predicted = [r.predicted for r in inner]
    known = [p for p in predicted if p is not None]
    middle = Row(
        label=f"... {sum(r.factors for r in inner)} factors between",
        kind="several",
        factors=sum(r.factors for r in inner),
        decades=sum(r.decades for r in inner),
        predicted=sum(known) if len(known) == len(predicted) else None,
        bound=None,
    )
    return [*rows[:side], middle, *rows[len(rows) - side :]]


def _trial_cells(trial: TrialResult, outcome: str) -> tuple[str, ...]:
    return (
        words.shortened(trial.title or trial.name, NAME),
        gain_text(trial.predicted_gain_per_layer),
        gain_text(trial.measured_gain_per_layer),
        loss_text(trial),
        f"{trial.stuck_seeds}/{trial.seeds}",
        outcome,
    )


def _all_failed(result: TreatmentResult) -> bool:
    return bool(result.trials) and all(t.outcome == "failed" for t in result.trials)


def _why_none(result: TreatmentResult) -> str:
    if _all_failed(result) and result.stopped is None:
        why, count = Counter(t.why for t in result.trials).most_common(1)[0]
        some = "" if count == len(result.trials) else f" ({count} of {len(result.trials)} say so)"
        return f"none could be tried, every trial of a treatment failed: {why.rstrip('.')}{some}."
    return result.stopped or "no treatment did better than the baseline beyond what chance explains."


def _treatment_next(result: TreatmentResult, chosen: TrialResult | None) -> str:
    if chosen is None and _all_failed(result):
        if not result.baseline.curves:
            return "Mend what the trials failed of (the untreated script's, too), and treat again."
        return "Mend what the trials failed of, or choose other treatments with --only, and treat again."
    if chosen is None:
        return "Keep the net as it is, or allow more trial steps and seeds."
    if result.recipe is None:
        return f"Apply {chosen.title or chosen.name}."
    rate = ""
    if chosen.rate_factor != 1.0 and chosen.learning_rate:
        rate = f" and the learning rate {words.plain(chosen.learning_rate)}"
    patch = f", or git apply {result.diff}" if result.diff else ""
    # a script without an optimizer has no rate that could be read
    moment = "the training loop" if chosen.learning_rate is None else "the optimizer is built"
    return (
        f"unvanish run --recipe {result.recipe} and your script trains it in full; in your own code: "
        f'model = unvanish.apply(model, "{result.recipe}") before {moment}{rate}{patch}.'
    )


def _aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> list[str]:
    """Columns made even with blanks."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(widths[i]) if i in numbers else c.ljust(widths[i]) for i, c in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return lines
