"""The served pages in a real browser: the list leads to a run and to a comparison; a run that trains is redrawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from serve_helpers import Client
from torch import nn

import unvanish

api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser
SLOW = 60_000


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with api.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails its test where anything was complained about."""
    opened = browser.new_page()
    opened.set_default_timeout(SLOW)
    said: list[str] = []
    opened.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda e: said.append(str(e)))
    yield opened
    assert said == []
    opened.close()


def ready(page: Any) -> None:
    page.locator("#unvanish[data-ready=true]").wait_for()


def test_the_list_leads_to_a_run_and_to_a_comparison_with_the_token_along(closed: Client, page: Any) -> None:
    page.goto(closed.server.url)
    ready(page)
    assert page.locator("tr[data-run]").count() == 2
    assert "Sick" in page.locator("tr[data-run=sick]").inner_text()
    page.locator("tr[data-run=sick] a").click()
    page.wait_for_url("**/run/sick?token=*")
    ready(page)
    assert "vanish" in page.locator("h1").first.inner_text()
    page.go_back()
    ready(page)
    for name in ("sick", "twin"):
        page.locator(f"tr[data-run={name}] input").check()
    page.get_by_role("button", name="Compare 2 runs").click()
    page.wait_for_url("**/compare?runs=*")
    ready(page)
    assert page.locator("article.card").count() == 2
    assert page.locator("[data-panel=losses]").get_attribute("data-curves") == "2"


def test_a_run_that_trains_is_redrawn_in_place(tmp_path: Path, page: Any) -> None:
    from serve_helpers import serving

    net = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(8, 8), nn.Sigmoid())])
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            net(torch.randn(8, 8)).square().mean().backward()
            optimizer.step()
        w._session.flush()

    with unvanish.watch(net, optimizer, out=tmp_path) as w:
        steps(30)
        for client in serving(tmp_path):
            # this very process counts as not writing, so the record says cut_off until it is closed: as running here
            address = f"**/api/runs/{w.path.name}/view"
            page.route(address, lambda route: route.fulfill(response=(r := route.fetch()), body=r.text().replace('"status":"cut_off"', '"status":"running"') if r.status == 200 else None))  # fmt: skip
            page.goto(f"{client.base}/run/{w.path.name}")
            ready(page)
            page.get_by_text("30", exact=True).first.wait_for()
            steps(41)
            page.get_by_text("71", exact=True).first.wait_for()


def test_a_zoom_brings_every_step_that_was_recorded(tmp_path: Path, page: Any) -> None:
    from serve_helpers import serving

    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    x = torch.randn(16, 4)
    with unvanish.watch(net, optimizer, out=tmp_path) as w:
        for _ in range(2600):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    for client in serving(tmp_path):
        page.goto(f"{client.base}/run/{w.path.name}")
        ready(page)
        loss = page.locator("[data-panel=loss]")
        assert int(loss.get_attribute("data-points")) <= 2000
        form = loss.locator(".zoom")
        form.locator("input").nth(0).fill("500")
        form.locator("input").nth(1).fill("1499")
        form.locator("button.go").click()
        page.locator("[data-panel=loss] .zoom[data-exact=true]").wait_for()
        assert loss.get_attribute("data-points") == "1000"
        assert "1,000 losses, all that were recorded here" in form.inner_text()
