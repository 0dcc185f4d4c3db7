"""A page in a real browser: what the tests of this folder share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(slots=True)
class Seen:
    """A page that was opened, with everything that it complained about, asked for or popped up."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def panel(self, name: str) -> Any:
        return self.page.locator(f"[data-panel='{name}']").first

    def data(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.panel(name).evaluate("e => ({...e.dataset})")
        return found


class Window:
    """Opens pages, each in a context of its own, and listens to what they say."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.contexts: list[Any] = []

    def open(self, address: str, *, width: int = 1280, scheme: str = "light", wait: bool = True) -> Seen:
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.contexts.append(context)
        seen = Seen(page=context.new_page())
        seen.page.on("console", lambda m: seen.complaints.append(m.text) if m.type != "log" else None)
        seen.page.on("pageerror", lambda e: seen.complaints.append(str(e)))
        seen.page.on("request", lambda r: seen.requests.append(r.url))
        seen.page.on("dialog", lambda d: (seen.dialogs.append(d.message), d.dismiss()))
        seen.page.goto(address)
        if wait:
            seen.page.wait_for_selector("main[data-ready='true']")
        return seen

    def close(self) -> None:
        for context in self.contexts:
            context.close()


def overflow(seen: Seen) -> int:
    """By how many pixels the page is wider than its window."""
    wide: int = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wide


def ink(seen: Seen, canvas: str) -> int:
    """How many pixels of a canvas are painted."""
    seen.page.wait_for_selector(canvas)
    seen.page.wait_for_timeout(50)
    painted: int = seen.page.locator(canvas).first.evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height)"
        ".data.filter((v, i) => i % 4 === 3 && v).length"
    )
    return painted
