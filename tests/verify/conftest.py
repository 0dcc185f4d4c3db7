"""Puts the runners of this folder on the path, where the spawned workers look for them too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
