"""Take the pictures of a page for docs/images: `python web/screenshots.py REPORT.html docs/images`.

Needs playwright and a Chromium or Chrome on the PATH; nothing is downloaded.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHOTS: tuple[tuple[str, int, Literal["light", "dark"]], ...] = (
    ("page-light", 1280, "light"),
    ("page-dark", 1280, "dark"),
    ("page-phone", 390, "light"),
)


def main(report: Path, out: Path) -> None:
    """Save the whole page in light, in dark and at a phone's width; its top, an open layer, and the lab."""
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, width, scheme in SHOTS:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto(report.resolve().as_uri())
            page.wait_for_selector("main[data-ready='true'] [data-chart][data-drawn]")
            page.wait_for_timeout(400)
            page.screenshot(path=str(out / f"{name}.png"), full_page=True)
            if name == "page-light":
                parts(page, out)
        browser.close()


def parts(page: Any, out: Path) -> None:
    """The first screen, the map with a layer open below it, and the lab."""
    page.screenshot(path=str(out / "page-top.png"))
    page.locator(".tools select").select_option(index=1)
    page.wait_for_timeout(400)
    page.locator("[data-panel='signal']").screenshot(path=str(out / "page-layer.png"))
    page.locator("#to-lab").click()
    page.wait_for_timeout(400)
    page.screenshot(path=str(out / "page-lab.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
