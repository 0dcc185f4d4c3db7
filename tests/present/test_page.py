"""The page in a real browser, from the file system: what each panel shows; hostile names do nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import builders as b
import pytest
from browsing import Seen, Window, ink, overflow

from unvanish.present.html import render_html
from unvanish.present.view import build_view
from unvanish.schema.chain import Chain
from unvanish.schema.finding import Diagnosis
from unvanish.schema.run import Run
from unvanish.schema.treatment import TreatmentResult

pytestmark = pytest.mark.browser


@pytest.fixture
def show(window: Window, tmp_path: Path) -> Any:
    def open_page(
        run: Run | None = None,
        told: Diagnosis | None = None,
        chains: tuple[Chain, ...] | None = None,
        treatment: TreatmentResult | None = None,
        *,
        width: int = 1280,
        scheme: str = "light",
    ) -> Seen:
        chains = (b.chain(),) if chains is None else chains
        file = tmp_path / "page.html"
        file.write_text(
            render_html(build_view(run or b.run(), told or b.diagnosis(), chains, treatment)), "utf-8"
        )
        return window.open(file.as_uri(), width=width, scheme=scheme)

    return open_page


def test_the_page_tells_the_story_quietly_and_alone(show: Any) -> None:
    seen = show(treatment=b.treatment())
    seen.page.wait_for_selector("[data-chart='trials'][data-drawn]")
    assert seen.panel("verdict").locator("h1").inner_text() == (
        "The gradients vanish on their way back, because of saturating activations."
    )
    assert "sigmoid derivatives took 7.3" in seen.panel("verdict").locator("[data-line='why']").inner_text()
    where = seen.panel("verdict").locator("[data-line='where']")
    assert where.inner_text() == "Layers layers.0, layers.1, layers.2, layers.3 and 4 more (the worst first)"
    where.get_by_role("button", name="layers.1").click()
    assert seen.panel("layer").get_attribute("data-layer") == "layers.1"
    seen.panel("layer").locator("button.close").click()
    told = seen.panel("verdict").locator("[data-line='next']")
    assert "Train with the treatment that was chosen: Identity skips." in told.inner_text()
    assert told.locator("code").inner_text() == (
        "unvanish run --recipe unvanish_runs/20250101-120000-abcd/recipe.json train.py"
    )
    assert seen.panel("verdict").locator("[data-line='tried']").inner_text() == (
        "3 of 8 treatments cured it; chosen: Identity skips. With it the loss ends at 0.830 instead of 2.30."
    )
    assert seen.panel("status").inner_text().strip() == "The run finished."
    order = seen.page.locator("[data-panel]").evaluate_all("all => all.map(e => e.dataset.panel)")
    assert order == [
        "verdict", "status", "loss", "signal", "chain", "river", "treatment", "findings", "weights", "notes"
    ]  # fmt: skip
    assert seen.complaints == []
    assert [r for r in seen.requests if not r.startswith("file://")] == []


def test_loss_panel(show: Any) -> None:
    seen = show()
    seen.page.wait_for_selector("[data-chart='loss'][data-drawn]")
    data = seen.data("loss")
    assert data["points"] == str(b.STEPS)
    assert data["scale"] == "linear"
    assert float(data["chance"]) == pytest.approx(b.CHANCE)
    assert data["marks"] == "1"
    assert "best constant guess: 2.303" in seen.panel("loss").inner_text()
    assert ink(seen, "[data-chart='loss'] canvas") > 500


def test_signal_map_draws_colour_and_marks(show: Any) -> None:
    seen = show()
    seen.page.wait_for_selector("[data-panel='signal'][data-drawn]")
    data = seen.data("signal")
    assert (data["rows"], data["columns"]) == ("12", "30")
    assert (data["nan"], data["zero"], data["unmeasured"]) == ("1", "1", "1")
    assert float(data["low"]) < -9
    assert data["drawn"] == "true"
    starved, output = cell(seen, 0, 15), cell(seen, 11, 15)
    assert sum(output) > sum(starved) + 250, "the output layer is bright, the first layer dark"
    red, green, blue = cell(seen, *b.NAN_AT)
    assert red > green + 80
    assert red > blue
    zero, usual = cell(seen, *b.ZERO_AT), cell(seen, 2, 15)
    assert sum(zero) > sum(usual) + 100, "stripes on paper, not the dark end of the scale"
    assert seen.panel("signal").locator("tbody tr").count() == 12


def test_signal_map_answers_pointer_and_keys(show: Any) -> None:
    seen = show()
    seen.page.locator("canvas.map").focus()
    seen.page.keyboard.press("ArrowLeft")
    assert "layers.0" in seen.panel("signal").locator(".map-tip").inner_text()
    seen.page.keyboard.press("ArrowDown")
    told = seen.panel("signal").locator("[aria-live]").text_content()
    assert "layers.1" in told
    assert "decades" in told
    seen.page.keyboard.press("Escape")
    assert seen.panel("signal").locator(".map-tip").is_hidden()


def test_product_of_factors(show: Any) -> None:
    seen = show(chains=(b.chain(), b.dead_chain()))
    panel = seen.panel("chain")
    assert float(seen.data("chain")["total"]) == pytest.approx(b.chain().decades, abs=1e-3)
    bars = panel.locator(".fall li[data-kind] .bar")
    assert bars.count() == 22
    boxes = [bars.nth(i).bounding_box() for i in (0, 1, 21)]
    assert boxes[0]["x"] > boxes[1]["x"] > boxes[2]["x"], "the signal falls to the left"
    assert boxes[1]["width"] > 2 * boxes[0]["width"], "a sigmoid takes more than a weight"
    assert panel.locator(".fall .tick").count() == 22
    shares = panel.locator("[data-part]").evaluate_all(
        "all => all.map(e => [e.dataset.part, +e.dataset.decades])"
    )
    assert dict(shares)["activation"] == pytest.approx(-7.31, abs=0.01)
    panel.locator("select").select_option("1")
    assert seen.data("chain")["total"] == "zero"
    assert panel.locator(".stop").inner_text() == "nothing passes from here on"


def test_weights_show_three_and_any_other_by_name(show: Any) -> None:
    seen = show()
    cards = seen.panel("weights").locator(".weight-card")
    names = cards.evaluate_all("all => all.map(e => e.dataset.parameter)")
    assert names == ["layers.0.weight", "layers.6.weight", "layers.11.weight"]
    assert cards.first.locator("option").count() == 24
    cards.first.locator("select").select_option(label="layers.3.bias")
    assert cards.first.get_attribute("data-parameter") == "layers.3.bias"
    assert ink(seen, ".weight-card canvas") > 500


def test_treatments_table(show: Any) -> None:
    seen = show(treatment=b.treatment())
    rows = seen.panel("treatment").locator("[data-trial]")
    assert rows.count() == 9
    relu = seen.panel("treatment").locator("[data-trial='relu']")
    text = relu.inner_text()
    assert all(part in text for part in ("ReLU alone", "0.167", "0.175", "2.28 [2.25, 2.32]", "no better"))
    rings = relu.locator(".lane-predicted"), relu.locator(".lane-measured"), relu.locator(".lane-one")
    x = [
        float(rings[0].get_attribute("cx")),
        float(rings[1].get_attribute("cx")),
        float(rings[2].get_attribute("x1")),
    ]
    assert x[0] < x[1] < x[2], "0.167 < 0.175 < 1 on the same axis"
    assert seen.data("treatment")["chosen"] == "residual"
    relu.hover()
    assert seen.complaints == []


def test_findings_and_what_was_not_checked(show: Any) -> None:
    seen = show()
    finding = seen.panel("findings").locator(".finding")
    assert finding.get_attribute("data-kind") == "vanishing_gradients"
    evidence = finding.locator("tbody tr").first.inner_text()
    assert all(
        part in evidence for part in ("layers.0", "\u221210.2", "\u22121.30", "0 to 599", "Schoenholz")
    )
    notes = seen.panel("notes").inner_text()
    assert "not checked by this version" in notes
    assert "a tensor of unknown layout" in notes


def test_a_cut_off_run_is_said_plainly(show: Any) -> None:
    seen = show(b.run(status="cut_off"))
    assert "was cut off" in seen.panel("status").inner_text()
    assert seen.panel("status").get_attribute("data-status") == "cut_off"


def test_two_models_are_kept_apart(show: Any) -> None:
    run = b.run(b.model_run(name="generator"), b.model_run(["a", "b", "c"], name="critic", index=1))
    models = (b.diagnosis(name="generator").models[0], b.diagnosis(name="critic", healthy=True).models[0])
    seen = show(run, replace(b.diagnosis(), models=models), ())
    verdicts = seen.page.locator("[data-panel='verdict']").evaluate_all(
        "all => all.map(e => e.dataset.verdict)"
    )
    assert verdicts == ["sick", "healthy"]
    assert seen.page.locator("nav a").count() == 2
    assert seen.complaints == []


HOSTILE_NAMES = [
    b.HOSTILE,
    b.MARKUP,
    "{a|rich} text",
    "\u202eright to left",
    "\u2028line",
    "x" * 10_000,
    "\ud800half",
    "__proto__",
    "out",
]


def test_hostile_names_and_values_do_nothing(show: Any) -> None:
    names = HOSTILE_NAMES
    model = b.model_run(names, name=b.HOSTILE)
    huge = replace(model.snapshots[0], norm=1e300, quantiles=(-1e300, -1, 0, 0, 0, 1, 1e300))
    model = replace(model, snapshots=(huge, *model.snapshots[1:]))
    told = b.diagnosis(names, name=b.HOSTILE)
    base = b.treatment()
    drawn = replace(
        b.trial_map(0.5), rows=tuple(names), cells=((1e300, "<b>", -1e300, 0.0, 0.0, 0.0, 0.0),) * len(names)
    )
    trial = replace(base.trials[0], title=b.MARKUP, name=b.HOSTILE, why=b.HOSTILE, signal=drawn)
    trials = replace(base, trials=(trial,), chosen=b.HOSTILE, recipe=b.HOSTILE)
    seen = show(b.run(model), told, (b.chain(names, name=b.HOSTILE),), trials)
    seen.page.wait_for_selector("[data-chart='trials'][data-drawn]")
    for chart in ("loss", "weights", "trials"):  # the tooltips too
        seen.page.locator(f"[data-chart='{chart}']").first.hover()
        seen.page.wait_for_timeout(60)
    for canvas in seen.page.locator("canvas.map").all():
        canvas.hover()
    assert seen.panel("verdict").locator("code").inner_text().startswith("unvanish run --recipe '</script>")
    for i in range(1, len(names) + 1):  # each of them opened
        seen.page.locator(".tools select").select_option(index=i)
        assert seen.panel("layer").get_attribute("data-layer") is not None
    seen.panel("findings").locator("button.link").first.click()
    seen.page.locator(".place-link").first.dispatch_event("click")
    assert seen.page.evaluate("window.__hit") is None
    assert seen.dialogs == []
    assert seen.complaints == []
    assert seen.page.locator("main img, main script").count() == 0
    assert b.HOSTILE in seen.page.locator("[data-model]").get_attribute("data-model")
    assert overflow(seen) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_and_the_button_between(show: Any, scheme: str, tmp_path: Path) -> None:
    seen = show(treatment=b.treatment(), scheme=scheme)
    ground = "() => getComputedStyle(document.documentElement).backgroundColor"
    first = seen.page.evaluate(ground)
    bright = sum(int(v) for v in first.strip("rgb()").split(",")) > 380
    assert bright == (scheme == "light")
    shot = tmp_path / f"{scheme}.png"
    seen.page.screenshot(path=str(shot), full_page=True)
    assert shot.stat().st_size > 50_000
    seen.page.locator("button.theme").click()
    assert seen.page.evaluate(ground) != first
    assert seen.complaints == []


def test_at_phone_width_nothing_sticks_out(show: Any, tmp_path: Path) -> None:
    seen = show(treatment=b.treatment(), width=390)
    assert overflow(seen) <= 0
    seen.page.screenshot(path=str(tmp_path / "phone.png"), full_page=True)
    assert seen.panel("chain").locator(".fall .track").nth(3).bounding_box()["width"] > 120


def test_on_paper_nothing_is_left_that_can_only_be_clicked(show: Any) -> None:
    seen = show(treatment=b.treatment(), scheme="dark")
    seen.page.emulate_media(media="print")
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for what in ("button:not(.link)", "input", ".tabs", "summary", ".picker"):
        assert seen.page.locator(what).filter(visible=True).count() == 0, what
    ground = seen.page.evaluate("getComputedStyle(document.querySelector('.panel')).backgroundColor")
    assert sum(int(v) for v in ground.strip("rgb()").split(",")) > 700, (
        "paper is light, whatever the screen was"
    )


def test_everything_drawn_has_a_label_and_its_numbers(show: Any) -> None:
    seen = show(treatment=b.treatment())
    assert seen.page.locator("[role='img']:not([aria-label])").count() == 0
    assert seen.page.locator("select").evaluate_all(
        "all => all.every(s => s.ariaLabel || document.querySelector(`label[for='${s.id}']`))"
    )
    for name in ("loss", "signal", "chain", "weights"):
        assert seen.panel(name).locator("details table tbody tr").count() > 2


def test_a_thousand_layers_are_drawn(show: Any) -> None:
    names = [f"blocks.{i}.linear" for i in range(1000)]
    seen = show(b.run(b.model_run(names)), b.diagnosis(names), (b.chain(names),))
    seen.page.wait_for_selector("[data-chart='weights'][data-drawn]")
    assert seen.data("signal")["rows"] == "1000"
    assert int(seen.data("chain")["rows"]) <= 60
    assert seen.complaints == []


def cell(seen: Seen, row: int, column: int) -> tuple[float, float, float]:
    """The mean colour of one cell of the map (a pattern has more than one)."""
    red, green, blue = seen.page.locator("canvas.map").evaluate(_MEAN_COLOUR, [row, column])
    return red, green, blue


_MEAN_COLOUR = """(canvas, [row, column]) => {
  const frame = JSON.parse(canvas.dataset.frame), ratio = devicePixelRatio;
  const at = (v) => Math.round(v * ratio);
  const [x, y] = [frame.left + column * frame.column, frame.top + row * frame.row];
  const pixels = canvas.getContext("2d")
    .getImageData(at(x + 2), at(y + 2), at(frame.column - 4), at(frame.row - 4)).data;
  const sums = [0, 0, 0];
  pixels.forEach((v, i) => { if (i % 4 < 3) sums[i % 4] += v; });
  return sums.map((s) => s / (pixels.length / 4));
}"""
