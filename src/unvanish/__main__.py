"""``python -m unvanish`` is the command ``unvanish``."""

from __future__ import annotations

import sys

from unvanish.cli import main

if __name__ == "__main__":
    sys.exit(main())
