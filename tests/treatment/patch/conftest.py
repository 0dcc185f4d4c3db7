"""Puts the helpers of this folder on the path (the suite imports by file, not by folder)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
