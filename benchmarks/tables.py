"""Tables for the docs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table (the first row is its head), its columns padded so that it also reads well in a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def put_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Put a section between its marks, and leave the rest of the page as it is."""
    before = page.read_text(encoding="utf-8")
    section = between(before, marks)
    assert section is not None, f"{page} has no marks"
    page.write_text(before.replace(section, f"{marks[0]}\n\n{text}\n\n{marks[1]}"), encoding="utf-8")


def between(page: str, marks: tuple[str, str]) -> str | None:
    """A section of a page with its marks; None where it has none."""
    found = re.search(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), page, re.DOTALL)
    return found[0] if found else None
