"""The lab: its numbers are theory's, its sliders work, and the code that it gives builds the net it speaks of."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import builders as b
import pytest
import torch
from browsing import Seen, Window
from torch import nn

from unvanish.present.html import render_html
from unvanish.present.view import build_view
from unvanish.schema.architecture import LayerSpec
from unvanish.theory.predict import predict_gains

WEB = Path(__file__).parents[2] / "web"

_EXPAND = """(v) => {
  const specs = Array.from({ length: v.depth }, (_, i) => {
    const last = i === v.depth - 1;
    const { activation, norm, skip, sw2, sb2, centres } = v.net;
    return { fanIn: v.width, fanOut: v.width, sw2, sb2, centres, input: i ? null : 1, norm: last ? "none" : norm,
             activation: last ? "identity" : activation, skip: !last && skip };
  });
  return UnvanishViewer.predictGains(specs);
}"""


@pytest.fixture
def lab(window: Window, tmp_path: Path) -> Seen:
    file = tmp_path / "page.html"
    file.write_text(render_html(build_view(b.run(), b.diagnosis(), (b.chain(),))), "utf-8")
    seen = window.open(file.as_uri())
    seen.page.locator("#to-lab").click()
    return seen


def put(seen: Seen, name: str, value: object) -> None:
    control = seen.page.locator(f"[data-control='{name}']")
    control.evaluate(
        "(e, v) => { if (e.type === 'checkbox') e.checked = v; else e.value = v;"
        " e.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )


def committed() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = json.loads((WEB / "vectors.json").read_text(encoding="utf-8"))
    return made


def test_the_shared_vectors_are_what_theory_says_today() -> None:
    spec = importlib.util.spec_from_file_location("vectors_of_the_lab", WEB / "vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    today, kept = module.vectors(), committed()
    assert len(today) == len(kept) > 300
    for new, old in zip(today, kept, strict=True):
        assert new["net"] == old["net"]
        for one, other in zip(new["predictions"], old["predictions"], strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                assert value is None or value == pytest.approx(other[key], rel=1e-8)
                assert (value is None) == (other[key] is None)


@pytest.mark.browser
def test_the_browser_computes_what_theory_does(lab: Seen) -> None:
    told = 0
    for vector in committed():
        found = lab.page.evaluate(_EXPAND, vector)
        for one, other in zip(found, vector["predictions"], strict=True):
            for key, value in other.items():
                if value is None:
                    assert one[key] is None, (vector["net"], key)
                else:
                    assert one[key] == pytest.approx(value, rel=1e-6, abs=1e-12), (vector["net"], key)
                    told += 1
    assert told > 5000
    assert lab.complaints == []


def sigmoid_stack(depth: int, width: int = 64) -> float:
    """Decades of signal at the first layer of sigmoids as PyTorch starts them, by theory."""
    layers = [
        LayerSpec(
            name=str(i),
            fan_in=width,
            fan_out=width,
            weight_variance=1 / 3,
            bias_variance=1 / (3 * width),
            input_second_moment=1.0,
            activation="identity" if i == depth - 1 else "sigmoid",
        )
        for i in range(depth)
    ]
    total = 0.0
    for p in predict_gains(layers)[1:]:
        assert p.chi is not None
        total += 0.5 * float(torch.tensor(p.chi, dtype=torch.float64).log10())
    return total


@pytest.mark.browser
def test_sliders_change_the_profile_the_product_and_the_words_at_once(lab: Seen) -> None:
    panel = lab.panel("lab")
    assert float(lab.data("lab")["total"]) == pytest.approx(sigmoid_stack(12), abs=1e-6)
    assert panel.locator(".lab-verdict").get_attribute("data-fate") == "vanishes"
    assert panel.locator(".fall li[data-kind]").count() == 22
    put(lab, "Depth", 5)
    assert float(lab.data("lab")["total"]) == pytest.approx(sigmoid_stack(5), abs=1e-6)
    steps = panel.locator(".fall li[data-kind]").evaluate_all("all => all.map(e => +e.dataset.decades)")
    assert sum(steps) == pytest.approx(sigmoid_stack(5), abs=1e-6), "the factors multiply to the whole"
    put(lab, "Depth", 60)
    put(lab, "Activation", "relu")
    put(lab, "Init", "he")
    assert float(lab.data("lab")["total"]) == pytest.approx(0.0, abs=1e-9), "He et al. (2015): a gain of one"
    assert panel.locator(".lab-verdict").get_attribute("data-fate") == "arrives"
    put(lab, "Weight scale", 10)
    assert panel.locator(".lab-verdict").get_attribute("data-fate") == "explodes"
    assert lab.complaints == []


@pytest.mark.browser
def test_under_a_norm_the_product_is_still_that_of_its_factors(lab: Seen) -> None:
    put(lab, "Normalisation", "batch")
    put(lab, "Skip connections", True)
    steps = (
        lab.panel("lab")
        .locator(".fall li[data-kind]")
        .evaluate_all("all => all.map(e => +e.dataset.decades)")
    )
    assert sum(steps) == pytest.approx(float(lab.data("lab")["total"]), abs=1e-6)
    assert "BatchNorm1d" in lab.panel("lab").locator("pre.code").inner_text()


NETS = [
    {"depth": 4, "width": 64, "activation": "sigmoid", "init": "torch", "scale": 1, "norm": "none", "skip": False},
    {"depth": 5, "width": 128, "activation": "relu", "init": "he", "scale": 1.5, "norm": "batch", "skip": True},
    {"depth": 3, "width": 256, "activation": "tanh", "init": "xavier", "scale": 1, "norm": "layer", "skip": False},
    {"depth": 6, "width": 64, "activation": "sigmoid", "init": "critical", "scale": 1, "norm": "none", "skip": False},
    {"depth": 3, "width": 64, "activation": "gelu", "init": "small", "scale": 2, "norm": "none", "skip": True},
    {"depth": 3, "width": 64, "activation": "hardtanh", "init": "orthogonal", "scale": 1, "norm": "none", "skip": False},
]  # fmt: skip
SW2 = {"torch": 1 / 3, "he": 2.0, "xavier": 1.0, "critical": 16.0, "small": 64e-4, "orthogonal": 1.0}


@pytest.mark.browser
def test_the_code_builds_the_net_that_the_sliders_describe(lab: Seen) -> None:
    for net in NETS:
        source = lab.page.evaluate("net => UnvanishViewer.code(net)", net)
        torch.manual_seed(0)
        space: dict[str, Any] = {}
        exec(compile(source, "<the lab>", "exec"), space)  # noqa: S102  (this is what the test is about)
        model = space["model"]
        linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
        assert len(linears) == net["depth"]
        assert {m.weight.shape for m in linears} == {(net["width"], net["width"])}
        wish = SW2[str(net["init"])] * float(net["scale"]) ** 2  # type: ignore[arg-type]
        for linear in linears:
            found = net["width"] * float(linear.weight.detach().double().square().mean())  # type: ignore[operator]
            assert found == pytest.approx(wish, rel=0.12), net
        norms = [type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__]
        wished = {"none": [], "batch": ["BatchNorm1d"], "layer": ["LayerNorm"]}[str(net["norm"])]
        assert norms == wished * (len(linears) - 1)
        out = model(torch.randn(32, int(net["width"])))  # type: ignore[call-overload]
        assert torch.isfinite(out).all()
        if net["skip"]:
            h = torch.randn(8, int(net["width"]))  # type: ignore[call-overload]
            layer = model[0].eval()
            bare = layer.act(layer.norm(layer.linear(h)) if hasattr(layer, "norm") else layer.linear(h))
            assert torch.allclose(layer(h), h + bare)


@pytest.mark.browser
def test_the_button_copies_the_code(lab: Seen) -> None:
    shown = lab.panel("lab").locator("pre.code").text_content()
    lab.page.evaluate(
        "() => { window.__copied = null;"
        " document.addEventListener('copy', () => { window.__copied = document.getSelection().toString()"
        " || document.activeElement.value; });"
        " Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (t) => { window.__copied = t; } } }); }"
    )
    lab.page.locator("[data-copy='code']").click()
    lab.page.wait_for_function("window.__copied !== null")
    assert lab.page.evaluate("window.__copied") == shown
    assert lab.page.locator("[data-copy='code']").inner_text() == "Copied"


@pytest.mark.browser
def test_tabs_answer_to_the_keyboard(lab: Seen) -> None:
    assert lab.page.locator("#tab-run").is_hidden()
    lab.page.locator("#to-lab").focus()
    lab.page.keyboard.press("ArrowLeft")
    assert lab.page.locator("#tab-run").is_visible()
    assert lab.page.locator("#to-run").get_attribute("aria-selected") == "true"
    assert lab.page.locator("#tab-lab").is_hidden()
