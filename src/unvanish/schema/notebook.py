"""How a result is shown in a notebook: by what was set here for its kind. The nouns themselves know no page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_shown: dict[type, Callable[[Any], str]] = {}


def show_with(kind: type, render: Callable[[Any], str]) -> None:
    """From now on results of this very kind are shown as the HTML that `render` makes of them."""
    _shown[kind] = render


def html_of(result: object) -> str | None:
    """The HTML; None where nothing was set, or nothing can be made of it: notebooks then print the repr."""
    render = _shown.get(type(result))
    if render is None:
        return None
    try:
        return render(result)
    except Exception:  # noqa: BLE001 - a record that was deleted since, say: a cell must not fail over its picture
        return None
