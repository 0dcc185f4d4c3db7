"""The page of a server: it asks for its data, follows a run while it is written, lists runs, sets them side by side."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import builders as b
import pytest
from browsing import Seen, Window

from unvanish.present.html import render_comparison, render_shell
from unvanish.present.view import build_view

pytestmark = pytest.mark.browser


class Site:
    """A server as `unvanish serve` is one: pages without data, JSON with an ETag, a token."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None, int]] = []
        self.down = False
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        parts = [p for p in url.path.split("/") if p]
        page = {"run": ("view", f"../api/runs/{parts[-1]}/view"), "compare": ("compare", f"api/compare?{url.query}")} if parts else {}  # fmt: skip
        if url.path == "/":
            self.send(request, render_shell("runs", "api/runs").encode(), "text/html")
        elif parts[0] in page:
            self.send(request, render_shell(*page[parts[0]]).encode(), "text/html")
        elif url.path in self.answers and parse_qs(url.query).get("token") == ["s3cret"]:
            self.data(request, url.path)
        else:
            self.send(request, b"", "text/plain", 403 if url.path in self.answers else 404)

    def data(self, request: BaseHTTPRequestHandler, path: str) -> None:
        body = json.dumps(self.answers[path]).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        sent = request.headers.get("If-None-Match")
        status = 503 if self.down else 304 if sent == tag else 200
        self.asked.append((request.path, sent, status))
        self.send(request, body if status == 200 else b"", "application/json", status, tag)

    @staticmethod
    def send(
        request: BaseHTTPRequestHandler, body: bytes, kind: str, status: int = 200, tag: str | None = None
    ) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        if tag:
            request.send_header("ETag", tag)
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


def running(steps: int) -> dict[str, Any]:
    """A run's view after so many steps of its training."""
    model = b.model_run()
    model = replace(
        model, steps=model.steps[:steps], losses=model.losses[:steps], seconds=model.seconds[:steps]
    )
    return build_view(b.run(model, status="running"), b.diagnosis(), (b.chain(),))


def settle(seen: Seen, steps: int) -> None:
    seen.page.wait_for_selector(f"main[data-steps='{steps}']", timeout=15_000)


def quiet(seen: Seen) -> list[str]:
    """Complaints other than of the favicon, which the browser asks for by itself."""
    return [c for c in seen.complaints if "404" not in c]


def test_a_running_page_follows_in_place_and_keeps_what_was_opened(site: Site, window: Window) -> None:
    site.answers["/api/runs/one/view"] = running(200)
    seen = window.open(f"{site.address}/run/one?token=s3cret")
    settle(seen, 200)
    seen.page.locator(".tools select").select_option(label="layers.4")
    seen.page.locator("[data-panel='weights'] select").nth(1).select_option(label="layers.2.bias")
    seen.page.locator("[data-panel='loss'] summary").click()
    seen.page.evaluate("scrollTo(0, 700)")
    seen.page.wait_for_timeout(300)
    site.answers["/api/runs/one/view"] = running(400)
    settle(seen, 400)
    assert seen.panel("layer").get_attribute("data-layer") == "layers.4"
    cards = seen.panel("weights").locator(".weight-card")
    assert cards.nth(1).get_attribute("data-parameter") == "layers.2.bias"
    assert seen.panel("loss").locator("details").get_attribute("open") is not None
    assert abs(seen.page.evaluate("scrollY") - 700) < 5
    assert seen.panel("loss").get_attribute("data-points") == "400"
    assert seen.page.locator("article.model").count() == 1
    assert quiet(seen) == []


def test_the_lab_is_left_alone_while_a_run_goes_on_beside_it(site: Site, window: Window) -> None:
    site.answers["/api/runs/one/view"] = running(200)
    seen = window.open(f"{site.address}/run/one?token=s3cret")
    settle(seen, 200)
    seen.page.locator("#to-lab").click()
    seen.page.locator("[data-control='Depth']").evaluate(
        "e => { e.value = 30; e.dispatchEvent(new Event('input', { bubbles: true })); e.dataset.mine = 'yes'; }"
    )
    site.answers["/api/runs/one/view"] = running(300)
    seen.page.wait_for_timeout(4500)
    assert [status for _, _, status in site.asked].count(200) == 2, "the newer one has come"
    assert seen.page.locator("[data-control='Depth']").get_attribute("data-mine") == "yes"
    seen.page.locator("#to-run").click()
    settle(seen, 300)
    seen.page.locator("#to-lab").click()
    assert seen.page.locator("[data-control='Depth']").input_value() == "30"


def test_what_has_not_changed_is_not_sent_again_and_a_finished_run_is_not_asked_for(
    site: Site, window: Window
) -> None:
    site.answers["/api/runs/one/view"] = running(200)
    seen = window.open(f"{site.address}/run/one?token=s3cret")
    seen.page.wait_for_timeout(2600)
    assert [status for _, _, status in site.asked[:2]] == [200, 304]
    assert site.asked[1][1] is not None
    site.answers["/api/runs/one/view"] = build_view(b.run(), b.diagnosis(), (b.chain(),))
    settle(seen, b.STEPS)
    count = len(site.asked)
    seen.page.wait_for_timeout(2600)
    assert len(site.asked) == count


def test_a_server_that_goes_away_is_waited_for(site: Site, window: Window) -> None:
    site.answers["/api/runs/one/view"] = running(200)
    seen = window.open(f"{site.address}/run/one?token=s3cret")
    site.down = True
    seen.page.wait_for_selector(".trouble:not([hidden])")
    assert "503" in seen.page.locator(".trouble").inner_text()
    assert seen.panel("loss").get_attribute("data-points") == "200", "the page stays"
    site.down = False
    seen.page.wait_for_selector(".trouble", state="hidden")


def test_a_page_without_its_token_says_why_it_is_empty(site: Site, window: Window) -> None:
    site.answers["/api/runs/one/view"] = running(200)
    seen = window.open(f"{site.address}/run/one", wait=False)
    seen.page.wait_for_selector("main .empty")
    assert "403" in seen.page.locator("main").inner_text()


def test_runs_are_listed_and_two_are_chosen_to_compare(site: Site, window: Window) -> None:
    entry = {"created": "2025-01-01T12:00:00+00:00", "status": "finished", "steps": 1200, "loss": 0.31}
    site.answers["/api/runs"] = [
        {"id": "b", "name": "cured.py", "verdict": "healthy", **entry},
        {"id": "a", "name": b.HOSTILE, "verdict": "sick", **entry, "status": "running", "loss": {"first": 2.3, "last": 2.2}},
        {"id": "c&d=1", "name": "new.py", "verdict": None, **entry, "loss": None},
    ]  # fmt: skip
    site.answers["/api/compare"] = comparison()
    seen = window.open(f"{site.address}/?token=s3cret")
    rows = seen.page.locator("[data-run]")
    assert rows.count() == 3
    assert all(
        part in rows.nth(0).inner_text()
        for part in ("cured.py", "Healthy", "1,200", "0.310", "2025-01-01 12:00")
    )
    assert all(part in rows.nth(1).inner_text() for part in ("Sick", "running", "2.30 to 2.20"))
    assert "not yet" in rows.nth(2).inner_text()
    href = rows.nth(2).locator("a").get_attribute("href")
    assert href == f"{site.address}/run/c%26d%3D1?token=s3cret"
    button = seen.page.locator("button.compare")
    rows.nth(0).locator("input").check()
    assert button.is_disabled()
    rows.nth(1).locator("input").check()
    button.click()
    seen.page.wait_for_selector("[data-panel='maps']")
    assert "runs=b,a" in seen.page.url.replace("%2C", ",")
    assert "token=s3cret" in seen.page.url
    assert seen.dialogs == quiet(seen) == []


def comparison() -> dict[str, Any]:
    sick = build_view(b.run(), b.diagnosis(), (b.chain(),))
    cured = build_view(b.run(), b.diagnosis(healthy=True), (b.chain(),))
    cured["run"] = {**cured["run"], "id": "other"}
    cells = [[0.5 * r if c != 3 else "nan" for c in range(10)] for r in range(12)]
    difference = {
        "a": sick["run"]["id"],
        "b": "other",
        "rows": b.layer_names(),
        "steps": list(range(10)),
        "cells": cells,
    }
    return {"kind": "compare", "runs": [sick, cured], "differences": [difference]}


def test_two_runs_side_by_side(window: Window, tmp_path: Any) -> None:
    file = tmp_path / "compare.html"
    file.write_text(render_comparison(comparison()), "utf-8")
    seen = window.open(file.as_uri())
    verdicts = seen.page.locator("[data-panel='verdicts'] article")
    assert verdicts.evaluate_all("all => all.map(e => e.className.split(' ').pop())") == [
        "verdict-sick",
        "verdict-healthy",
    ]
    assert "2.35 to 2.30" in verdicts.first.inner_text()
    seen.page.wait_for_selector("[data-chart='losses'][data-drawn]")
    assert seen.data("losses")["curves"] == "2"
    assert seen.page.locator("[data-map] canvas.map").count() == 2
    assert (seen.data("difference")["rows"], seen.data("difference")["most"]) == ("12", "5.50")
    blue_red = (
        seen.panel("difference")
        .locator("canvas.map")
        .evaluate(
            """(canvas) => {
          const f = JSON.parse(canvas.dataset.frame), r = devicePixelRatio;
          const p = canvas.getContext("2d").getImageData((f.left + 5.5 * f.column) * r, (f.top + 11.5 * f.row) * r, 1, 1).data;
          return p[0] - p[2];
        }"""
        )
    )
    assert blue_red > 80, "more is orange"
    canvas = seen.panel("difference").locator("canvas.map")
    canvas.focus()
    seen.page.keyboard.press("ArrowLeft")
    seen.page.keyboard.press("End")
    assert "+5.5 decades" in seen.panel("difference").locator(".map-tip").inner_text()
    assert seen.complaints == []
    assert [r for r in seen.requests if not r.startswith("file://")] == []
