"""``python -m unvanish.serving``: the process beside a training that shows its run (`unvanish run --live`)."""

from __future__ import annotations

import sys

from unvanish.serving.alone import leave_the_family

if __name__ == "__main__":
    leave_the_family()
    from unvanish.serving.beside import main

    sys.exit(main(sys.argv[1:]))
