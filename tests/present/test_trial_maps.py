"""The signal maps of trials: kept with the result, drawn before and after on one scale."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders as b
import pytest
from browsing import Seen, Window

from unvanish.present.html import render_html
from unvanish.present.trials import trials_view
from unvanish.present.view import build_view
from unvanish.schema.treatment import TreatmentResult, TrialMap

RUN = "unvanish_runs/20250101-120000-abcd"


def rows(view: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {r["name"]: r for r in view["rows"]}


def test_a_result_with_maps_survives_its_file() -> None:
    result = b.treatment()
    again = TreatmentResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert again.baseline.signal == result.baseline.signal
    assert [t.signal for t in again.trials] == [t.signal for t in result.trials]
    old = json.loads(json.dumps(result.to_dict()))
    del old["baseline"]["signal"]
    assert TreatmentResult.from_dict(old).baseline.signal is None, "as an older version wrote it"


def test_a_map_with_a_hole_is_refused() -> None:
    with pytest.raises(ValueError, match="one cell for each"):
        TrialMap.from_dict({"rows": ["a", "b"], "steps": [0], "cells": [[0.0]]})


def test_all_maps_have_one_scale_and_say_what_they_come_to() -> None:
    view = trials_view(b.treatment(), RUN)
    named = rows(view)
    low = 0.5 * 11 * math.log10(0.019)
    assert named["baseline"]["map"]["cells"][0][0] == pytest.approx(low, abs=0.01)
    assert view["map_low"] <= low and view["map_high"] >= 0
    assert "layers.0 gets 8." in named["baseline"]["map"]["summary"]
    assert named["hot"]["map"] is None
    everything = [c for r in view["rows"] if r["map"] for line in r["map"]["cells"] for c in line]
    assert view["map_low"] <= min(everything) and max(everything) <= view["map_high"]


@pytest.mark.parametrize(("cell", "drawn"), [(math.inf, "nan"), (math.nan, "nan"), ("<b>", "unmeasured"), ("zero", "zero"), (-3.14159, -3.14)])  # fmt: skip
def test_a_cell_that_others_wrote_is_a_number_or_a_mark(cell: float | str, drawn: float | str) -> None:
    result = b.treatment()
    odd = TrialMap(rows=("a", "b"), steps=(0,), cells=((cell,), (0.0,)))
    view = trials_view(replace(result, baseline=replace(result.baseline, signal=odd)), RUN)
    assert view["rows"][0]["map"]["cells"] == [[drawn], [0.0]]
    json.dumps(view, allow_nan=False)


def test_what_to_do_is_a_command_that_a_shell_takes() -> None:
    result = b.treatment()
    told = trials_view(result, RUN, "/home/me/my script.py")["next"]
    assert told == {
        "text": "Train with the treatment that was chosen: Identity skips.",
        "command": f"unvanish run --recipe {RUN}/recipe.json 'my script.py'",
    }
    away = replace(result, recipe="/elsewhere/cure.json")
    assert (
        trials_view(away, RUN)["next"]["command"]
        == "unvanish run --recipe /elsewhere/cure.json your_script.py"
    )
    assert trials_view(replace(result, recipe=None), RUN)["next"]["command"] is None
    assert trials_view(replace(result, chosen=None), RUN)["next"] is None


@pytest.mark.browser
class TestThePage:
    @pytest.fixture
    def seen(self, window: Window, tmp_path: Path) -> Seen:
        (tmp_path / "page.html").write_text(
            render_html(build_view(b.run(), b.diagnosis(), (b.chain(),), b.treatment())), "utf-8"
        )
        return window.open((tmp_path / "page.html").as_uri())  # fmt: skip

    def test_the_untreated_map_stands_beside_the_chosen_one(self, seen: Seen) -> None:
        maps = seen.panel("treatment").locator("[data-trial-map]")
        assert maps.evaluate_all("all => all.map(e => e.dataset.trialMap)") == ["baseline", "residual"]
        before, after = (float(maps.nth(i).get_attribute("data-lowest")) for i in (0, 1))
        assert before < -8 and after > -0.5
        assert "Before: As it is (sigmoid)" in maps.nth(0).inner_text()
        dark, bright = (_brightness(seen, i) for i in (0, 1))
        assert bright > dark + 60, "the same colour means the same signal in both"

    def test_any_other_trial_can_be_put_there(self, seen: Seen) -> None:
        select = seen.panel("treatment").locator(".picker select")
        assert "Xavier" in select.inner_text() and "Rate 10" not in select.inner_text()
        select.select_option(
            label=next(t for t in select.locator("option").all_inner_texts() if "Xavier" in t)
        )
        assert seen.page.locator(".before-after").get_attribute("data-after") == "xavier"
        assert float(seen.page.locator(".after [data-trial-map]").get_attribute("data-lowest")) < -5
        assert seen.complaints == []

    def test_every_curve_has_its_name_beside_its_colour(self, seen: Seen) -> None:
        names = seen.panel("treatment").locator("[data-curve]").all_inner_texts()
        helped = [r["title"] for r in trials_view(b.treatment(), RUN)["rows"] if r["outcome"] in ("cured", "improved") and r["role"] == "trial"]  # fmt: skip
        assert names == helped


def _brightness(seen: Seen, i: int) -> float:
    """Of the first layer's first cell."""
    found: float = seen.panel("treatment").locator("[data-trial-map] canvas.map").nth(i).evaluate(
        """(canvas) => {
          const f = JSON.parse(canvas.dataset.frame), r = devicePixelRatio;
          const p = canvas.getContext("2d").getImageData((f.left + 0.5 * f.column) * r, (f.top + 0.5 * f.row) * r, 1, 1).data;
          return (p[0] + p[1] + p[2]) / 3;
        }"""
    )  # fmt: skip
    return found
