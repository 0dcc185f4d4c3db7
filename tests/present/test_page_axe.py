"""No serious fault of accessibility, by axe-core, on every page: a run, a layer open, a treatment, the lab, runs, compared."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import builders as b
import pytest
from browsing import Seen, Window

from unvanish.present.compare import comparison
from unvanish.present.html import render_comparison, render_html, render_shell
from unvanish.present.view import build_view
from unvanish.schema.chain import Fork, Recurrence, TimeStep, Way
from unvanish.schema.treatment import Untried

pytestmark = pytest.mark.browser

SERIOUS = ("serious", "critical")
LOOKS = [("light", 1280), ("dark", 1280), ("light", 390)]
PATCH = "--- a/train.py\n+++ b/train.py\n@@ -1,2 +1,2 @@\n same\n-nn.Sigmoid()\n+nn.ReLU()\n"


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core itself, from the package that ships it: the tests need no Node and no network."""
    if not os.environ.get("CI"):  # there it is a fault
        pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def faults(seen: Seen, axe: str) -> list[str]:
    """What axe calls serious or critical, with the first place of each."""
    seen.page.wait_for_timeout(250)
    # the page's own policy lets no other script in; the debugger's evaluation is not bound by it
    seen.page.evaluate(axe)
    found = seen.page.evaluate("axe.run(document, { resultTypes: ['violations', 'passes'] })")
    assert len(found["passes"]) > 5, "it has looked"
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:160]} ({v['nodes'][0].get('failureSummary', '')[:200]})"
        for v in found["violations"]
        if v["impact"] in SERIOUS
    ]


def treated(folder: Path) -> dict[str, Any]:
    """A run with everything that a page can show."""
    folder.mkdir()
    (folder / "treatment.diff").write_text(PATCH, "utf-8")
    ways = (
        Way(label="straight past (skip)", operation=1, norm=0.9, share=0.9, followed=True),
        Way(label="up", operation=2, norm=0.1, share=0.1, followed=False),
    )
    steps = tuple(TimeStep(step=i, signal_norm=0.5 ** (20 - i), gradient_norm=None) for i in range(20))
    chain = replace(
        b.chain(),
        forks=(Fork(kind="sum", layer="layers.3", operation=6, gain=1.1, ways=ways),),
        recurrences=(Recurrence(layer="rnn", fused=True, steps=steps),),
    )
    trial = replace(
        b.treatment(),
        diff=str(folder / "treatment.diff"),
        untried=(Untried(name="norm", title="Layer norm", why="batches of one"),),
        notes=("the source patch is for git apply",),
    )
    run = replace(b.run(), path=str(folder))
    return build_view(run, b.diagnosis(), (chain, replace(chain, parameter="layers.1.weight")), trial)


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_a_run_with_all_that_can_be_on_it(
    window: Window, tmp_path: Path, axe: str, scheme: str, width: int
) -> None:
    (tmp_path / "page.html").write_text(render_html(treated(tmp_path / "run")), "utf-8")
    seen = window.open((tmp_path / "page.html").as_uri(), scheme=scheme, width=width)
    assert seen.panel("treatment").locator(".before-after").count() == 1
    assert seen.panel("treatment").locator(".patch").count() == 1
    seen.page.locator(".tools select").select_option(index=3)
    seen.page.locator(".zoom input").nth(1).fill("200")
    seen.page.locator(".zoom button.go").first.click()
    seen.page.evaluate("document.querySelectorAll('details').forEach(d => (d.open = true))")
    assert faults(seen, axe) == []
    seen.page.locator("#to-lab").click()
    assert faults(seen, axe) == []


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_several_runs_of_several_models(
    window: Window, tmp_path: Path, axe: str, scheme: str, width: int
) -> None:
    views = []
    for i in range(2):
        models = (b.model_run(name="generator"), b.model_run(name="critic", index=1))
        told = [b.diagnosis(name=m.info.name, healthy=i == 1) for m in models]
        diagnosis = replace(told[0], models=(*told[0].models, *told[1].models))
        run = b.run(*models)
        views.append(build_view(replace(run, info=replace(run.info, id=f"run-{i}")), diagnosis, ()))
    (tmp_path / "compare.html").write_text(render_comparison(comparison(views)), "utf-8")
    seen = window.open((tmp_path / "compare.html").as_uri(), scheme=scheme, width=width)
    assert seen.page.locator("article.model").count() == 2
    assert faults(seen, axe) == []


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_the_list_of_runs(window: Window, axe: str, scheme: str, width: int) -> None:
    context = window.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    window.contexts.append(context)
    page = context.new_page()
    common = {"created": "2025-01-01T12:00:00", "steps": 100, "loss": 2.0}
    entries = [
        {"id": "a", "name": "a.py", "status": "finished", "verdict": "sick", **common},
        {"id": "b", "name": "b.py", "status": "running", "verdict": None, **common, "steps": None},
        {"id": "c", "name": "c.py", "status": "crashed", "verdict": "healthy", **common},
        {"id": "d", "name": "d.py", "status": "cut_off", "verdict": "not_learning", **common},
    ]
    shell, listed = render_shell("runs", "api/runs"), json.dumps(entries)
    page.route("http://localhost/", lambda r: r.fulfill(body=shell, content_type="text/html"))
    page.route("http://localhost/api/runs", lambda r: r.fulfill(body=listed, content_type="application/json"))
    page.goto("http://localhost/")
    page.wait_for_selector("[data-run='a']")
    page.locator("[data-run='a'] input").check()
    page.locator("[data-run='b'] input").check()
    assert faults(Seen(page=page), axe) == []


def test_a_fault_that_is_there_is_found(window: Window, tmp_path: Path, axe: str) -> None:
    (tmp_path / "page.html").write_text(render_html(build_view(b.run(), b.diagnosis(), ())), "utf-8")
    seen = window.open((tmp_path / "page.html").as_uri())
    seen.page.evaluate("document.querySelector('.tools select').removeAttribute('aria-label')")
    assert [f.split(":")[0] for f in faults(seen, axe)] == ["select-name"]
