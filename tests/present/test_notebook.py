"""Results in a notebook's cell: what they say, that nothing in them runs, and a notebook that is really executed."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import builders as b
import pytest

from unvanish.present import notebook
from unvanish.present.html import render_html
from unvanish.present.notebook import diagnosis_html, explanation_html, run_html, treatment_html
from unvanish.present.view import build_view
from unvanish.schema.explanation import Explanation
from unvanish.schema.finding import Diagnosis
from unvanish.schema.notebook import html_of, show_with


class Elements(HTMLParser):
    """Every element with its attributes, every text, and whether all that was opened is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_diagnosis_says_what_the_terminal_says() -> None:
    read = Elements(diagnosis_html(b.diagnosis()))
    text = " ".join(read.texts)
    assert not read.open
    for words in (
        "Sick",
        "The gradients vanish on their way back",
        "Swap the saturating",
        "layers.0, layers.1",
    ):
        assert words in text


def test_an_explanation_is_a_table_of_factors() -> None:
    read = Elements(explanation_html(Explanation(chains=(b.chain(),), text="x")))
    rows = sum(tag == "tr" for tag, _ in read.tags)
    assert rows == 1 + 1 + 22 + 2  # the head, the output, the factors, what enters, the gradient
    assert "0.216" in read.texts
    assert any("Blame" in t for t in read.texts)


def test_a_treatment_is_a_table_of_trials() -> None:
    read = Elements(treatment_html(b.diagnosis(), b.treatment()))
    assert sum(tag == "tr" for tag, _ in read.tags) == 1 + 1 + len(b.treatment().trials)
    assert "Identity skips" in read.texts
    assert any("0.830 [0.800, 0.870]" in t for t in read.texts)


def test_a_run_is_its_page_in_a_frame_that_may_run_scripts_and_nothing_else() -> None:
    view = build_view(b.run(), b.diagnosis(), (b.chain(),))
    page = render_html(view)
    read = Elements(run_html(view, page))
    frame = dict(read.tags)["iframe"]
    assert frame["sandbox"] == "allow-scripts"
    assert frame["srcdoc"] == page
    assert "The gradients vanish" in " ".join(read.texts)  # where frames are taken out


def test_a_page_that_is_too_large_is_not_put_into_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "MOST_PAGE_BYTES", 1000)
    view = build_view(b.run(), b.diagnosis(), ())
    text = run_html(view, render_html(view))
    assert len(text) < 5000
    assert "unvanish report" in text


def test_hostile_names_are_only_text() -> None:
    names = [b.HOSTILE, b.MARKUP, '" onmouseover="x', "\ud800", "\x1b[2J"]
    told = b.diagnosis(names, name=b.HOSTILE)
    told = replace(told, models=(*told.models, *told.models))
    result = replace(b.treatment(), notes=(b.MARKUP,), recipe=b.HOSTILE)
    chain = replace(b.chain(names), parameter=b.MARKUP)
    for text in (
        diagnosis_html(told),
        treatment_html(told, result),
        explanation_html(Explanation(chains=(chain,))),
    ):
        text.encode()
        allowed = {"div", "p", "span", "strong", "table", "thead", "tbody", "tr", "th", "td"}
        for tag, attributes in Elements(text).tags:
            assert tag in allowed
            assert set(attributes) <= {"style", "class", "scope"}
        assert "\x1b" not in text


def test_colours_are_the_notebook_s_own_save_for_the_badge() -> None:
    text = treatment_html(b.diagnosis(), b.treatment()) + diagnosis_html(b.diagnosis(healthy=True))
    for style in re.findall(r'style="([^"]*)"', text):
        if "background:#" in style:
            assert contrast(re.findall(r"background:(#\w+)", style)[0]) >= 4.5
        else:
            assert not re.search(r"(?<![-\w])color:", style)


def contrast(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 1.05 / (0.2126 * r + 0.7152 * g + 0.0722 * blue + 0.05)


def test_what_can_t_be_shown_falls_back_to_the_text() -> None:
    class Odd:
        pass

    assert html_of(Odd()) is None
    show_with(Odd, lambda _: str(1 / 0))
    assert html_of(Odd()) is None


def test_the_results_of_every_door_show_themselves(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import unvanish

    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid(), torch.nn.Linear(4, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    with unvanish.watch(net, optimizer, out=tmp_path) as w:
        for _ in range(5):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    results: list[Any] = [
        w,
        w.run(),
        w.diagnose(),
        unvanish.check(net, (x, y), torch.nn.functional.cross_entropy),
        unvanish.explain(net, (x, y), torch.nn.functional.cross_entropy),
    ]
    for result in results:
        assert result._repr_html_().startswith('<div class="unvanish-result"')
    assert isinstance(results[2], Diagnosis)


CELLS = (
    """import torch, unvanish
torch.manual_seed(0)
net = torch.nn.Sequential(*[m for _ in range(8) for m in (torch.nn.Linear(8, 8), torch.nn.Sigmoid())])
optimizer = torch.optim.SGD(net.parameters(), 0.1)
x = torch.randn(16, 8)
with unvanish.watch(net, optimizer) as w:
    for _ in range(40):
        optimizer.zero_grad(); net(x).square().mean().backward(); optimizer.step()
w""",
    "w.diagnose()",
    "unvanish.explain(net, (x, x), torch.nn.functional.mse_loss)",
)


@pytest.mark.slow
def test_a_notebook_is_executed_and_shows_them(tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in CELLS])
    nbclient.NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    nbformat.validate(book)
    shown = [cell.outputs[-1].data for cell in book.cells]
    assert all("text/plain" in data for data in shown)
    run, told, explained = (data["text/html"] for data in shown)
    assert 'sandbox="allow-scripts"' in run
    assert "<iframe" not in told + explained
    assert "Verdict" in shown[1]["text/plain"] or "Diagnosis" in shown[1]["text/plain"]
    assert "times what enters" in explained


@pytest.mark.browser
def test_the_frame_draws_the_page_in_a_browser(chromium: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    view = build_view(b.run(), b.diagnosis(), (b.chain(),))
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.set_content(run_html(view, render_html(view)))
        frame = page.frame_locator("iframe")
        frame.locator("#unvanish[data-ready=true]").wait_for(timeout=30_000)
        assert "vanish" in frame.locator("h1").first.inner_text()
        assert errors == []
        browser.close()
