"""The parts that open, fold and lead to each other, in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import builders as b
import pytest
from browsing import Seen, Window, ink, overflow

from unvanish.present.html import render_html
from unvanish.present.view import build_view
from unvanish.schema.chain import Fork, Recurrence, TimeStep, Way
from unvanish.schema.finding import Attribution
from unvanish.schema.treatment import Untried

pytestmark = pytest.mark.browser

PATCH = "--- a/train.py\n+++ b/train.py\n@@ -1,2 +1,2 @@\n same\n-nn.Sigmoid()\n+nn.ReLU()\n+<img src=x onerror=alert(1)>\n"
BLOCKS = [f"encoder.blocks.{i}.{part}" for i in range(4) for part in ("attention", "up", "down")] + ["head"]


@pytest.fixture
def show(window: Window, tmp_path: Path) -> Any:
    def open_page(view: dict[str, Any], **how: Any) -> Seen:
        file = tmp_path / "page.html"
        file.write_text(render_html(view), "utf-8")
        return window.open(file.as_uri(), **how)

    return open_page


def blocks() -> dict[str, Any]:
    return build_view(b.run(b.model_run(BLOCKS)), b.diagnosis(BLOCKS), (b.chain(BLOCKS),))


def lines(seen: Seen) -> int:
    return int(seen.page.locator("canvas.map").first.get_attribute("data-lines"))


def click_row(seen: Seen, line: int) -> None:
    frame = seen.page.locator("canvas.map").first.evaluate("c => JSON.parse(c.dataset.frame)")
    seen.page.locator("canvas.map").first.click(
        position={"x": frame["left"] + 2.5 * frame["column"], "y": frame["top"] + (line + 0.5) * frame["row"]}
    )


def test_a_click_on_a_row_opens_that_layer(show: Any) -> None:
    seen = show(build_view(b.run(), b.diagnosis(), (b.chain(),)))
    click_row(seen, 3)
    layer = seen.panel("layer")
    assert layer.get_attribute("data-layer") == "layers.3"
    assert layer.locator("h3").inner_text() == "layers.3"
    weights = layer.locator("[data-figure='weights']")
    assert (weights.get_attribute("data-parameter"), weights.get_attribute("data-snapshots")) == (
        "layers.3.weight",
        "25",
    )
    assert "No histogram was taken" in layer.locator("[data-figure='spread']").inner_text()
    weights.locator("select").select_option("1")
    assert weights.get_attribute("data-parameter") == "layers.3.bias"
    assert ink(seen, "[data-panel='layer'] [data-chart='layer-weights'] canvas") > 500
    layer.locator("button.close").click()
    assert seen.page.locator("[data-panel='layer']").count() == 0
    assert seen.complaints == []


def test_enter_opens_a_layer_and_space_folds_its_module(show: Any) -> None:
    seen = show(blocks())
    assert lines(seen) == 13
    seen.page.locator("canvas.map").focus()
    seen.page.keyboard.press("ArrowLeft")
    seen.page.keyboard.press("Enter")
    assert seen.panel("layer").get_attribute("data-layer") == "encoder.blocks.0.attention"
    seen.page.locator("canvas.map").focus()
    seen.page.keyboard.press("ArrowLeft")
    seen.page.keyboard.press("Space")
    assert lines(seen) == 11
    assert "encoder.blocks.0 folded" in seen.panel("signal").locator("[aria-live]").text_content()
    assert "encoder.blocks.0 (3)" in seen.panel("signal").locator(".map-tip").inner_text()
    seen.page.keyboard.press("Space")
    assert lines(seen) == 13


def test_all_modules_fold_and_a_folded_line_shows_the_worst_inside(show: Any) -> None:
    view = blocks()
    signal = view["models"][0]["signal"]
    signal["cells"][1][5] = "nan"
    seen = show(view)
    seen.page.get_by_text("Fold modules").click()
    folded = lines(seen)
    assert folded < 13
    mean = seen.page.locator("canvas.map").evaluate(
        """(canvas) => {
          const f = JSON.parse(canvas.dataset.frame), r = devicePixelRatio, at = (v) => Math.round(v * r);
          const p = canvas.getContext("2d").getImageData(at(f.left + 5 * f.column + 2), at(f.top + 2), at(f.column - 4), at(f.row - 4)).data;
          let [red, green] = [0, 0];
          p.forEach((v, i) => { if (i % 4 === 0) red += v; if (i % 4 === 1) green += v; });
          return (red - green) / (p.length / 4);
        }"""
    )
    assert mean > 60, "the NaN inside is seen"
    seen.page.get_by_text("Unfold", exact=True).click()
    assert lines(seen) == 13


def test_the_select_opens_any_layer_without_a_pointer(show: Any) -> None:
    seen = show(blocks())
    seen.page.locator(".tools select").select_option(label="head")
    assert seen.panel("layer").get_attribute("data-layer") == "head"
    assert "nothing can be shut" in seen.panel("layer").locator("[data-figure='units']").inner_text()


def test_evidence_leads_to_its_place_in_the_map(show: Any) -> None:
    seen = show(build_view(b.run(), b.diagnosis(), (b.chain(),)))
    link = seen.panel("findings").locator("tbody button.link").first
    assert link.inner_text() == "layers.0"
    link.click()
    assert seen.panel("layer").get_attribute("data-layer") == "layers.0"
    assert "layers.0" in seen.panel("signal").locator(".map-tip").inner_text()
    assert seen.page.evaluate("document.activeElement.className") == "map"
    seen.panel("findings").locator(".chips button").nth(4).click()
    assert seen.panel("layer").get_attribute("data-layer") == "layers.4"


def test_the_river_draws_every_way_and_opens_layers(show: Any) -> None:
    seen = show(build_view(b.run(), b.diagnosis(), (b.chain(),)))
    assert (seen.data("river")["nodes"], seen.data("river")["edges"]) == ("12", "11")
    widths = (
        seen.panel("river")
        .locator("path.way")
        .evaluate_all("all => all.map(e => [+e.dataset.signal, +e.getAttribute('stroke-width')])")
    )
    assert [w for _, w in sorted(widths)] == sorted(w for _, w in widths), "more signal, wider"
    place = seen.panel("river").locator(".place-link").nth(2)
    assert "layers.2" in place.get_attribute("aria-label")
    place.focus()
    seen.page.keyboard.press("Enter")
    assert seen.panel("layer").get_attribute("data-layer") == "layers.2"


def test_a_net_of_one_layer_has_words_where_others_have_a_waterfall(show: Any) -> None:
    names = ["only"]
    chain = replace(b.chain(), parameter="only.weight", layer="only", output_layer="only", factors=(), depth=1,
                    output_norm=0.31, signal_norm=0.31, gradient_norm=1.271, attribution=Attribution())  # fmt: skip
    seen = show(build_view(b.run(b.model_run(names)), b.diagnosis(names), (chain,)))
    text = seen.panel("chain").inner_text()
    assert "sits in the output layer itself" in text
    assert "0.310, times its input, 4.10" in text
    assert seen.panel("chain").locator(".fall").count() == 0
    assert "One layer alone" in seen.panel("river").inner_text()
    assert seen.complaints == []


def test_forks_and_time_are_drawn(show: Any) -> None:
    ways = (
        Way(label="the block", operation=1, norm=1.0, share=0.9, followed=True),
        Way(label="the skip", operation=2, norm=0.3, share=0.0001, followed=False),
    )
    fork = Fork(kind="sum", layer="blocks.0", operation=3, gain=1.05, ways=ways)
    times = tuple(TimeStep(step=t, signal_norm=10.0 ** (t - 9), gradient_norm=None) for t in range(10))
    chain = replace(
        b.chain(), forks=(fork,), recurrences=(Recurrence(layer="rnn", steps=times, fused=False),)
    )
    seen = show(build_view(b.run(), b.diagnosis(), (chain,)))
    row = seen.panel("chain").locator("[data-fork='blocks.0']")
    assert all(
        part in row.inner_text()
        for part in ("sum at blocks.0", "1.05", "the block followed", "90 %", "< 0.1 %")
    )
    bars = row.locator(".share-track i")
    assert bars.first.bounding_box()["width"] > 10 * bars.nth(1).bounding_box()["width"]
    assert "passes 0.100 of it on" in seen.panel("chain").inner_text()
    assert ink(seen, "[data-chart='time'] canvas") > 300


def test_the_patch_is_coloured_and_what_was_not_tried_is_said(show: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run-7"
    folder.mkdir()
    (folder / "fix.diff").write_text(PATCH, encoding="utf-8")
    result = replace(
        b.treatment(),
        diff="fix.diff",
        untried=(Untried(name="gated_rnn", title="GRU", why="there is no recurrence"),),
        notes=("the rate was halved by hand",),
    )
    seen = show(build_view(replace(b.run(), path=str(folder)), b.diagnosis(), (b.chain(),), result))
    patch = seen.panel("treatment").locator("pre.patch")
    assert patch.text_content() == PATCH
    assert (patch.get_attribute("data-added"), patch.get_attribute("data-removed")) == ("2", "1")
    colours = [
        patch.locator(f".{kind}").first.evaluate("e => getComputedStyle(e).backgroundColor")
        for kind in ("added", "removed", "same")
    ]
    assert len(set(colours)) == 3
    text = seen.panel("treatment").inner_text()
    assert all(part in text for part in ("GRU there is no recurrence", "the rate was halved by hand"))
    assert seen.dialogs == seen.complaints == []


def test_a_thousand_layers_fold_open_and_stay_quick(show: Any) -> None:
    names = [f"blocks.{i}.linear" for i in range(1000)]
    seen = show(build_view(b.run(b.model_run(names)), b.diagnosis(names), (b.chain(names),)))
    assert lines(seen) == 1000
    seen.page.get_by_text("Fold modules").click()
    assert lines(seen) < 60
    click_row(seen, 0)
    assert 60 < lines(seen) < 140, "one of them is open now"
    seen.page.locator(".tools select").select_option(index=500)
    assert seen.panel("layer").get_attribute("data-layer") == "blocks.499.linear"
    assert int(seen.data("river")["nodes"]) <= 72
    assert seen.complaints == []


def test_at_phone_width_an_open_layer_and_the_lab_do_not_stick_out(show: Any) -> None:
    seen = show(blocks(), width=390)
    seen.page.locator(".tools select").select_option(index=3)
    assert overflow(seen) <= 0
    seen.page.locator("#to-lab").click()
    assert overflow(seen) <= 0
    assert seen.complaints == []
