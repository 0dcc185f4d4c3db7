"""Runs of several models side by side: each model beside its like, and what has no like is shown too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import builders as b
import pytest
from browsing import Seen, Window, overflow

from unvanish.present.compare import comparison
from unvanish.present.html import render_comparison
from unvanish.present.view import build_view

pytestmark = pytest.mark.browser


def view(name: str, *models: str, layers: list[str] | None = None, healthy: bool = False) -> dict[str, Any]:
    made = [b.model_run(layers, name=m, index=i) for i, m in enumerate(models)]
    told = [b.diagnosis(layers, name=m, healthy=healthy).models[0] for m in models]
    run = b.run(*made)
    run = replace(run, info=replace(run.info, id=name))
    return build_view(run, replace(b.diagnosis(), models=tuple(told)), ())


def open_page(window: Window, tmp_path: Path, *views: dict[str, Any], **how: Any) -> Seen:
    (tmp_path / "compare.html").write_text(render_comparison(comparison(views)), "utf-8")
    return window.open((tmp_path / "compare.html").as_uri(), **how)


def groups(seen: Seen) -> dict[str, dict[str, Any]]:
    found = {}
    for article in seen.page.locator("article.model").all():
        found[article.get_attribute("data-model")] = {
            "curves": article.locator("[data-panel='losses']").get_attribute("data-curves"),
            "maps": article.locator("[data-map]").evaluate_all("all => all.map(e => e.dataset.map)"),
            "differences": article.locator("[data-panel='difference']").count(),
        }
    return found


def test_every_model_stands_beside_its_like(window: Window, tmp_path: Path) -> None:
    both = (view("a", "generator", "critic"), view("b", "critic", "generator", healthy=True))
    seen = open_page(window, tmp_path, *both)
    like = {"curves": "2", "maps": ["a", "b"], "differences": 1}
    assert groups(seen) == {"generator": like, "critic": like}
    card = seen.page.locator("article.card[data-run='a']")
    assert card.locator("[data-card-model]").all_inner_texts()[0].startswith("generator")
    assert "2.35 to 2.30" in card.locator("[data-card-model='critic']").inner_text()
    assert seen.complaints == []


def test_a_model_that_one_run_alone_has_is_shown_alone(window: Window, tmp_path: Path) -> None:
    seen = open_page(window, tmp_path, view("a", "net"), view("b", "net", "teacher"))
    found = groups(seen)
    assert found["teacher"] == {"curves": "1", "maps": ["b"], "differences": 0}
    assert found["net"]["maps"] == ["a", "b"]
    assert "Only" in seen.page.locator("article[data-model='teacher']").inner_text()


def test_models_of_other_names_are_matched_by_their_order(window: Window, tmp_path: Path) -> None:
    seen = open_page(window, tmp_path, view("a", "old"), view("b", "new"))
    assert seen.page.locator("article.model").count() == 0, "one group needs no heading"
    assert seen.data("maps")["maps"] == seen.data("losses")["curves"] == "2"
    assert seen.page.locator("[data-panel='difference']").count() == 1


def test_layers_that_are_matched_by_position_or_not_at_all_are_named(window: Window, tmp_path: Path) -> None:
    other = [f"blocks.{i}" for i in range(b.LAYERS)]
    seen = open_page(window, tmp_path, view("a", "net"), view("b", "net", layers=other))
    assert "by their position" in seen.panel("difference").inner_text()
    more = [*b.layer_names(), "extra.head"]
    seen = open_page(window, tmp_path, view("a", "net"), view("b", "net", layers=more))
    assert "extra.head" in seen.panel("difference").locator(".caption").inner_text()


def test_hostile_names_and_a_run_without_a_model_are_harmless(window: Window, tmp_path: Path) -> None:
    seen = open_page(window, tmp_path, view("a", b.HOSTILE, b.MARKUP + "x" * 10_000), view("b"), width=390)
    assert seen.page.locator("article.model").count() == 2
    assert overflow(seen) <= 0
    assert seen.complaints == seen.dialogs == []
    assert seen.page.evaluate("window.__hit") is None
