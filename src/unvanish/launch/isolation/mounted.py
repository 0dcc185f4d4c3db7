"""Where other file systems begin."""

from __future__ import annotations

import os
import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")  # a space is \040


def mounted() -> list[tuple[str, str]]:
    """(mount point, kind of file system) of all folders that something is mounted at, but the root. Linux only."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        point = _OCTAL.sub(lambda m: chr(int(m[1], 8)), before.split(" ")[4])
        found[point] = after.split(" ")[0]
    return [(point, kind) for point, kind in found.items() if point != "/" and os.path.isdir(point)]
