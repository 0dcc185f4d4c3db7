"""Put what a demo run really printed, and the top of its page, into the README.

    .venv/bin/python tools/readme.py OUTPUT.txt [REPORT.html]

OUTPUT.txt is what `make demo` printed to a pipe. With REPORT.html, the top of the page is taken as
docs/images/page-top.png, down to the signal map, and the maps before and after as page-before-after.png.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- demo output: begin (written by tools/readme.py) -->"
END = "<!-- demo output: end -->"
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def main() -> None:
    """Rewrite the part of the README between the marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("report", type=Path, nargs="?")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    lines = [line.rstrip() for line in arguments.output.read_text(encoding="utf-8").splitlines()]
    shown = "\n".join(lines).strip("\n")
    readme.write_text(f"{before}{BEGIN}\n\n```text\n{shown}\n```\n\n{END}{after}", encoding="utf-8")
    if arguments.report is not None:
        picture(arguments.report.resolve())


def picture(report: Path) -> None:
    """The first screens of a report, and its maps before and after, as pictures."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1180, "height": 2200}, device_scale_factor=1.5)
        page.goto(report.as_uri())
        page.wait_for_selector("[data-panel='signal'][data-drawn]")
        page.wait_for_timeout(1500)
        images, top = ROOT / "docs" / "images", page.locator("[data-panel='signal'] .map-box").bounding_box()
        if top is not None:
            height = top["y"] + top["height"] + 8
            clip = {"x": 0, "y": 0, "width": 1180, "height": height}
            page.screenshot(path=images / "page-top.png", clip=clip)
        page.locator(".before-after").evaluate("e => (e.style.padding = '16px')")
        page.locator(".before-after").screenshot(path=images / "page-before-after.png")
        browser.close()


if __name__ == "__main__":
    main()
