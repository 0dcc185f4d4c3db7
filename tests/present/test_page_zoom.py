"""A stretch of the steps, chosen by numbers, by a drag, and kept; in a file from what lies in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import builders as b
import pytest
from browsing import Seen, Window

from unvanish.present.html import render_html
from unvanish.present.view import build_view

pytestmark = pytest.mark.browser


@pytest.fixture
def show(window: Window, tmp_path: Path) -> Any:
    def open_page(view: dict[str, Any], **how: Any) -> Seen:
        (tmp_path / "page.html").write_text(render_html(view), "utf-8")
        return window.open((tmp_path / "page.html").as_uri(), **how)

    return open_page


def long_view(traces: int = 90) -> dict[str, Any]:
    names = b.layer_names()
    model = replace(b.model_run(), traces=b.traces(names, b.graph(names), traces))
    return build_view(b.run(model), b.diagnosis(), (b.chain(),))


def zoom(seen: Seen, panel: str) -> dict[str, str]:
    found: dict[str, str] = seen.panel(panel).locator(".zoom").evaluate("f => ({...f.dataset})")
    return found


def by_numbers(seen: Seen, panel: str, first: object, last: object) -> None:
    form = seen.panel(panel).locator(".zoom")
    form.locator("input").nth(0).fill(str(first))
    form.locator("input").nth(1).fill(str(last))
    form.locator("button.go").click()


def test_loss_and_map_show_the_same_steps(show: Any) -> None:
    view = long_view()
    seen = show(view)
    by_numbers(seen, "loss", 100, 199)
    assert zoom(seen, "loss") == {"zoom": "100-199", "exact": "true"} == zoom(seen, "signal")
    assert (seen.data("loss")["points"], seen.data("loss")["shown"]) == ("100", "100-199")
    steps = [s for s in view["models"][0]["signal"]["steps"] if 100 <= s <= 199]
    assert seen.data("signal")["columns"] == str(len(steps))
    canvas = seen.page.locator("canvas.map").first
    canvas.focus()
    seen.page.keyboard.press("ArrowLeft")
    assert seen.panel("signal").locator(".map-tip strong").first.inner_text() == f"{steps[-1]:,}"
    assert "all that were recorded" in seen.panel("loss").locator(".zoom").inner_text()
    seen.panel("signal").get_by_text("Whole run").click()
    assert zoom(seen, "loss")["zoom"] == zoom(seen, "signal")["zoom"] == "whole"
    assert seen.data("loss")["points"] == "600"
    assert seen.complaints == []


def test_a_drag_over_the_map_and_over_the_loss_zooms_and_opens_nothing(show: Any) -> None:
    view = long_view()
    steps = view["models"][0]["signal"]["steps"]
    seen = show(view)
    canvas = seen.page.locator("canvas.map").first
    canvas.scroll_into_view_if_needed()
    frame, box = canvas.evaluate("c => JSON.parse(c.dataset.frame)"), canvas.bounding_box()
    x, y = box["x"] + frame["left"], box["y"] + frame["top"] + 2.5 * frame["row"]
    drag(seen, x + 20.5 * frame["column"], x + 39.5 * frame["column"], y)
    assert zoom(seen, "signal")["zoom"] == f"{steps[20]}-{steps[39]}"
    assert seen.page.locator("[data-panel='layer']").count() == 0
    seen.panel("loss").get_by_text("Whole run").click()
    chart = seen.panel("loss").locator("[data-chart='loss']")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    drag(seen, box["x"] + 0.4 * box["width"], box["x"] + 0.6 * box["width"], box["y"] + 100)
    first, last = (int(s) for s in zoom(seen, "loss")["zoom"].split("-"))
    assert 0.3 * b.STEPS < first < 0.45 * b.STEPS < 0.55 * b.STEPS < last < 0.7 * b.STEPS
    assert seen.complaints == []


def test_a_click_is_no_drag(show: Any) -> None:
    seen = show(long_view())
    canvas = seen.page.locator("canvas.map").first
    frame = canvas.evaluate("c => JSON.parse(c.dataset.frame)")
    canvas.click(position={"x": frame["left"] + 40, "y": frame["top"] + 3.5 * frame["row"]})
    assert seen.panel("layer").get_attribute("data-layer") == "layers.3"
    assert zoom(seen, "signal")["zoom"] == "whole"


@pytest.mark.parametrize(("first", "last"), [("", ""), (599, 0), (-50, 10**9), (7, 7), (0, 599)])
def test_odd_numbers_show_the_whole_run(show: Any, first: object, last: object) -> None:
    seen = show(long_view())
    by_numbers(seen, "loss", 5, 50)
    by_numbers(seen, "loss", first, last)
    assert zoom(seen, "loss")["zoom"] == "whole"
    assert seen.data("loss")["points"] == "600"
    assert seen.complaints == []


def test_a_file_says_that_it_has_been_shortened(show: Any) -> None:
    seen = show(long_view(900))
    by_numbers(seen, "signal", 0, 500)
    assert zoom(seen, "signal")["exact"] == "false"
    assert "unvanish serve shows every one" in seen.panel("signal").locator(".zoom").inner_text()


def drag(seen: Seen, start: float, end: float, y: float) -> None:
    seen.page.mouse.move(start, y)
    seen.page.mouse.down()
    seen.page.mouse.move((start + end) / 2, y + 3, steps=4)
    seen.page.mouse.move(end, y + 3, steps=4)
    seen.page.mouse.up()


def test_enter_zooms_in_a_notebooks_sandbox_too(window: Window, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render_html(long_view()), "utf-8")
    (tmp_path / "notebook.html").write_text(
        '<iframe sandbox="allow-scripts" src="page.html" width="1200" height="900"></iframe>', "utf-8"
    )
    seen = window.open((tmp_path / "notebook.html").as_uri(), wait=False)
    frame = seen.page.frame_locator("iframe")
    inputs = frame.locator("[data-panel='loss'] .zoom input")
    inputs.nth(0).fill("100")
    inputs.nth(1).fill("199")
    inputs.nth(1).press("Enter")
    frame.locator("[data-panel='loss'][data-points='100']").wait_for()
    assert seen.complaints == []
