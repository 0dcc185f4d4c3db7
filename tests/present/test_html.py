"""The page as text: data is data, one file, no way out to the network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import builders as b
import pytest

from unvanish.errors import UnvanishError
from unvanish.present import html
from unvanish.present.html import embed_json, render_comparison, render_html, render_shell
from unvanish.present.view import build_view

ASSETS = Path(html.__file__).parent / "assets"
WEB = Path(__file__).parents[2] / "web"


def test_embedded_json_cannot_end_its_element_and_reads_back() -> None:
    value = {"a": f"{b.HOSTILE}\u2028\u2029&", "b": "\ud800", "c": "\u00e9\U0001f600"}
    text = embed_json(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert text.encode()
    assert json.loads(text) == value


def test_embedded_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        embed_json({"x": float("nan")})


def test_the_policy_lets_only_the_viewer_run_and_nothing_out() -> None:
    page = render_html(build_view(b.run(), b.diagnosis(), (b.chain(),)))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256((ASSETS / "viewer.js").read_bytes()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy.group(1)
    assert policy.group(1).startswith("default-src 'none';")
    assert "connect-src 'none';" in policy.group(1)
    assert not re.search(r'(?:src|href)="', page.split("<script>")[0])


def test_a_hostile_name_appears_escaped_wherever_it_appears() -> None:
    run = b.run(b.model_run([b.HOSTILE, b.MARKUP, "out"], name=b.HOSTILE))
    page = render_html(build_view(run, b.diagnosis([b.HOSTILE], name=b.HOSTILE), ()))
    assert b.HOSTILE not in page
    assert b.MARKUP not in page
    assert page.lower().count("</script") == 2


def test_a_reader_without_javascript_gets_the_three_lines() -> None:
    page = render_html(build_view(b.run(), b.diagnosis(), ()))
    without = page.split("<noscript>")[1].split("</noscript>")[0]
    assert "Sick: the gradients vanish" in without
    assert "Swap the saturating activations" in without


def test_the_viewer_is_small_and_holds_no_end_tag_and_no_address_to_call() -> None:
    script = (ASSETS / "viewer.js").read_text(encoding="utf-8")
    assert len(script) + (ASSETS / "viewer.css").stat().st_size < 1_500_000
    assert "</script" not in script.lower()
    assert not re.search(r"\b(?:XMLHttpRequest|WebSocket|EventSource|sendBeacon)\(", script)
    assert len(re.findall(r"\bfetch\(", script)) == 1, "the one that asks the page's own server"
    assert "url(" not in (ASSETS / "viewer.css").read_text(encoding="utf-8")
    assert script.startswith("/*! unvanish viewer (Apache-2.0), with Apache ECharts")
    assert "Apache License" in (ASSETS / "THIRD_PARTY.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["view", "runs", "compare"])
def test_a_served_page_holds_no_data_and_may_ask_its_own_server_alone(kind: str) -> None:
    page = render_shell(kind, 'api/x?a="><script>', title="<b>")
    assert f'<meta name="unvanish-{kind}" content="api/x?a=&quot;&gt;&lt;script&gt;">' in page
    assert "connect-src 'self';" in page
    assert "application/json" not in page
    assert "<title>&lt;b&gt;</title>" in page
    assert page.lower().count("</script") == 1


def test_a_comparison_holds_all_of_its_runs_as_data() -> None:
    views = [build_view(b.run(), b.diagnosis(healthy=healthy), ()) for healthy in (False, True)]
    page = render_comparison({"kind": "compare", "runs": views, "differences": []})
    data = re.search(r'<script type="application/json" id="unvanish-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert [v["verdict"] for v in json.loads(data.group(1))["runs"]] == ["sick", "healthy"]
    assert "connect-src 'none';" in page


@pytest.mark.parametrize("asset", ["viewer.js", "viewer.css"])
def test_the_committed_viewer_was_built_from_the_sources_beside_it(asset: str) -> None:
    """Or: after a change in web/, `make page` was forgotten. vite.config.js writes the same hash."""
    names = [p.relative_to(WEB).as_posix() for p in (WEB / "src").rglob("*") if p.is_file()]
    digest = hashlib.sha256()
    for name in sorted(["package-lock.json", "vite.config.js", *names]):
        digest.update(name.encode() + b"\0" + (WEB / name).read_bytes() + b"\0")
    stamp = re.search(
        r"/\*! made from ([0-9a-f]{64}) \*/", (ASSETS / asset).read_text(encoding="utf-8")[:500]
    )
    assert stamp is not None
    assert stamp.group(1) == digest.hexdigest(), "run `make page` and commit what it wrote"


def test_a_missing_viewer_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(html.resources, "files", lambda _: tmp_path)
    with pytest.raises(UnvanishError, match="reinstall"):
        render_html(build_view(b.run(), b.diagnosis(), ()))
