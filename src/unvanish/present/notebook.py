"""Results as HTML for a notebook's cell: no script, no style sheet, and the notebook's own colours.

Every rule stands at its element, for notebooks that are not trusted lose their <style>; text takes the colour that it
is given, lines and grounds are a half-transparent grey, so that light and dark both work. A whole page comes in a
sandboxed frame, which can't reach the notebook.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from unvanish.present import words
from unvanish.present.blame import blame_sentence, mend_sentence
from unvanish.present.chain_text import FACTOR_HEAD, factor_rows
from unvanish.present.text import visible
from unvanish.present.trials import gain_text, loss_text, trials_sentence
from unvanish.schema.chain import Chain
from unvanish.schema.check import Check
from unvanish.schema.explanation import Explanation
from unvanish.schema.finding import Diagnosis, ModelDiagnosis
from unvanish.schema.graph import place
from unvanish.schema.treatment import TreatmentResult

MOST_PAGE_BYTES = 6_000_000  # a notebook's file holds every output again
FRAME_HEIGHT = 760
MOST_ROWS = 40
_GREY = "rgba(127,127,127,0.35)"
_BOX = (
    f"border:1px solid {_GREY};border-radius:6px;padding:0.8em 1em;max-width:64em;line-height:1.45;"
    "font-family:system-ui,sans-serif;overflow-wrap:anywhere"
)
# white on these keeps a contrast of 4.5 or more, on whatever ground the badge lies
_BADGE = {"sick": "#b3261e", "not_learning": "#8a5300", "inconclusive": "#3a5ba8", "healthy": "#1e7b34"}
_CELL = (
    f"text-align:{{side}};padding:0.15em 0.8em 0.15em 0;border-bottom:1px solid {_GREY};font-weight:normal"
)


def diagnosis_html(diagnosis: Diagnosis) -> str:
    """Verdict, why and next of every model, its findings; before training, its layers and what would carry it."""
    parts = [_model(m, alone=len(diagnosis.models) == 1) for m in diagnosis.models]
    if not parts:
        notes = [_p(f"{s.what}: {s.why}") for s in diagnosis.skipped]
        parts = [_verdict("inconclusive", "no model was trained."), *notes]
    parts += [_check(check) for check in diagnosis.checks]
    return _box(*parts)


def explanation_html(explanation: Explanation) -> str:
    """Every product of factors as a table, with who is to blame and what to change."""
    parts = [_chain(chain) for chain in explanation.chains]
    if explanation.scalar is not None:
        parts.append(f'<pre style="white-space:pre-wrap;background:none">{_escape(explanation.text)}</pre>')
    return _box(*parts)


def treatment_html(diagnosis: Diagnosis, result: TreatmentResult) -> str:
    """What it had, what was tried and what came of it."""
    parts = [_model(m, alone=len(diagnosis.models) == 1) for m in diagnosis.models]
    if not result.trials:
        return _box(*parts, _p(words.sentence(words.capital(result.baseline.why))))
    rows = [
        (
            t.title or t.name,
            gain_text(t.predicted_gain_per_layer),
            gain_text(t.measured_gain_per_layer),
            loss_text(t),
            f"{t.stuck_seeds}/{t.seeds}",
            "baseline" if t is result.baseline else words.OUTCOME_WORDS[t.outcome],
        )
        for t in (result.baseline, *result.trials)
    ]
    head = ("Variant", "Gain predicted", "Gain measured", "Loss", "Stuck", "Outcome")
    parts += [_p(words.capital(trials_sentence(result)), bold=True), _table(head, rows, numbers=(1, 2, 3, 4))]
    if result.recipe is not None:
        parts.append(_p(f"Recipe: {result.recipe}"))
    return _box(*parts, *(_p(words.sentence(words.capital(note))) for note in result.notes))


def run_html(view: dict[str, Any], page: str) -> str:
    """The three lines of a run, then its page in a frame that reaches neither the notebook nor the network."""
    name = view["run"]["name"]
    lines = [_headline(m) for m in view["models"]] or [_verdict("inconclusive", "no model was trained.")]
    if len(page) > MOST_PAGE_BYTES:
        size = f"{len(page) / 1e6:.0f} MB"
        return _box(
            *lines,
            _p(f"Its page of {size} is too large for a notebook: unvanish report {view['run']['path']}"),
        )
    frame = (
        f'<iframe sandbox="allow-scripts" title="{_escape(f"unvanish: {name}")}" loading="lazy" '
        f'style="width:100%;height:{FRAME_HEIGHT}px;border:1px solid {_GREY};border-radius:6px" '
        f'srcdoc="{html.escape(_whole(page))}"></iframe>'
    )
    return _box(*lines) + frame


def _model(model: ModelDiagnosis, *, alone: bool) -> str:
    parts = [] if alone else [_p(model.name, bold=True)]
    parts.append(_verdict(model.verdict, words.claim(model)))
    parts += [_line("Why", words.why_line(model)), _line("Next", words.next_line(model))]
    ill = model.findings if model.verdict in ("sick", "not_learning") else ()
    if ill and ill[0].layers:
        parts.append(_line("Layers", words.listed([words.shortened(n, 44) for n in ill[0].layers], 4)))
    parts += [
        _line("Also", f"{words.capital(words.KIND_WORDS[f.kind])} ({f.severity}): {f.summary}")
        for f in ill[1:]
    ]
    return "".join(parts)


def _headline(model: dict[str, Any]) -> str:
    head = model["headline"]
    return "".join(
        (_verdict(model["verdict"], head["claim"]), _line("Why", head["why"]), _line("Next", head["next"]))
    )


def _chain(chain: Chain) -> str:
    source = chain.output_layer or "the output"
    title = f"From {place(source)} down to {chain.parameter}, step {chain.step}, loss {words.plain(chain.loss, 4)}"
    parts = (
        _p(title, bold=True),
        _table(FACTOR_HEAD, factor_rows(chain), numbers=(1, 2, 3, 4, 5)),
        _line("Way", words.attribution_sentence(chain)),
        _line("Blame", blame_sentence(chain)),
        _line("Mend", mend_sentence(chain)),
    )
    return "".join(parts)


def _check(check: Check) -> str:
    rows = [
        (
            words.shortened(c.name, 44),
            words.plain(c.predicted, 3),
            words.plain(c.measured, 3),
            words.decades(c.signal),
        )
        for c in check.layers
    ]
    return _table(("Layer", "Gain predicted", "Gain measured", "Signal, decades"), rows, numbers=(1, 2, 3))


def _verdict(verdict: str, claim: str) -> str:
    badge = (
        f'<span style="background:{_BADGE[verdict]};color:#fff;border-radius:4px;padding:0.1em 0.5em;'
        f'font-weight:600">{_escape(words.VERDICT_WORDS[verdict])}</span>'
    )
    return f'<p style="margin:0.2em 0">{badge} <strong>{_escape(words.capital(claim))}</strong></p>'


def _line(label: str, text: str) -> str:
    return f'<p style="margin:0.2em 0"><strong>{label}</strong> {_escape(text)}</p>'


def _p(text: str, *, bold: bool = False) -> str:
    inside = f"<strong>{_escape(text)}</strong>" if bold else _escape(text)
    return f'<p style="margin:0.4em 0">{inside}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    """At most MOST_ROWS of them: the first and the last."""
    left_out = len(rows) - MOST_ROWS
    if left_out > 0:
        half = MOST_ROWS // 2
        between = (f"... {left_out} rows between", *[""] * (len(head) - 1))
        rows = [*rows[:half], between, *rows[len(rows) - half :]]
    styles = [_CELL.format(side="right" if i in numbers else "left") for i in range(len(head))]
    top = _cells("th scope=col", [f"{s};opacity:0.75" for s in styles], head)
    body = "".join(_cells("td", styles, row) for row in rows)
    style = "border-collapse:collapse;font-size:inherit;margin:0.6em 0;font-variant-numeric:tabular-nums"
    table = f'<table style="{style}"><thead>{top}</thead><tbody>{body}</tbody></table>'
    return f'<div style="overflow-x:auto">{table}</div>'


def _cells(tag: str, styles: Sequence[str], texts: Sequence[str]) -> str:
    end = tag.partition(" ")[0]
    cells = (f'<{tag} style="{s}">{_escape(t)}</{end}>' for s, t in zip(styles, texts, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def _box(*parts: str) -> str:
    return f'<div class="unvanish-result" style="{_BOX}">{"".join(parts)}</div>'


def _escape(text: str) -> str:
    return html.escape(_whole(visible(text)))


def _whole(text: str) -> str:
    """A notebook's file is UTF-8, and half a surrogate pair is none."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
