"""Lets the tests of this folder import its builders by name; opens pages in a browser for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from browsing import FLAGS, Window  # found by the line above


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A browser that is already on this machine; nothing is downloaded."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def window(browser: Any) -> Iterator[Window]:
    """Opens pages, and closes them after the test."""
    made = Window(browser)
    yield made
    made.close()
