"""Take the pictures of a page for docs/images.

    python web/screenshots.py REPORT.html docs/images [COMPARISON.html]

REPORT.html: of `unvanish demo`; COMPARISON.html: what `unvanish compare SICK CURED -o` wrote. Needs playwright and a
Chromium or Chrome on the PATH; nothing is downloaded. The picture at the top of the README is tools/readme.py's.
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


def main(report: Path, out: Path, comparison: Path | None) -> None:
    """Save the whole page in light, in dark and at a phone's width; an open layer, the treatments, and the lab."""
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, width, scheme in SHOTS:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            opened(page, report)
            page.screenshot(path=str(out / f"{name}.png"), full_page=True)
            if name == "page-light":
                parts(page, out)
        if comparison is not None:
            page = browser.new_page(viewport={"width": 1280, "height": 1360})
            opened(page, comparison)
            page.screenshot(path=str(out / "page-compare.png"))
        browser.close()


def opened(page: Any, file: Path) -> None:
    """Show a file, and wait until it is drawn."""
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("main[data-ready='true'] [data-chart][data-drawn]")
    page.wait_for_timeout(600)


def parts(page: Any, out: Path) -> None:
    """The map with a layer open below it, the trials with their maps, and the lab."""
    page.locator(".tools select").select_option(index=1)
    page.wait_for_timeout(400)
    page.locator("[data-panel='signal']").screenshot(path=str(out / "page-layer.png"))
    if page.locator(".before-after").count():
        page.locator("[data-panel='treatment']").screenshot(path=str(out / "page-treatment.png"))
    page.locator("#to-lab").click()
    page.wait_for_timeout(400)
    page.screenshot(path=str(out / "page-lab.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
