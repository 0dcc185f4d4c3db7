"""Puts the nets here, and the helpers of the probe's tests, on the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "probe")]
