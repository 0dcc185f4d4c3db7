"""What starting costs: `import unvanish` over `import torch`, and `unvanish --help`; for benchmarks/overhead.py.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from tables import table

REPEATS = 9
IMPORT = "import torch, time; t = time.perf_counter(); import unvanish; print(time.perf_counter() - t)"
WATCH = IMPORT.replace("import unvanish;", "import unvanish; unvanish.watch;")
HELP = (
    "import sys; from unvanish.cli import main\n"
    "try: main(['--help'])\n"
    "except SystemExit: print('torch' in sys.modules, file=sys.stderr)"
)


def imports_ms(code: str) -> float:
    """Milliseconds that code which prints its own seconds takes."""
    return 1e3 * statistics.median(float(_said(code).stdout) for _ in range(REPEATS))


def help_ms() -> tuple[float, bool]:
    """Milliseconds of a whole `unvanish --help`, and whether it imported torch."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        done = _said(HELP)
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds), "True" in done.stderr


def _said(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def startup_page() -> str:
    """The section of docs/performance.md."""
    shown, torch_too = help_ms()
    rows = [
        ["", "ms"],
        ["`import unvanish`, beside `import torch`", f"{imports_ms(IMPORT):.1f}"],
        ["the same, and the first touch of `unvanish.watch`", f"{imports_ms(WATCH):.0f}"],
        [f"`unvanish --help`, the whole process, {'with' if torch_too else 'without'} torch", f"{shown:.0f}"],
    ]
    reading = f"Medians of {REPEATS} processes."
    return "\n\n".join(["## Starting", table(rows), reading])


if __name__ == "__main__":
    print(startup_page())
