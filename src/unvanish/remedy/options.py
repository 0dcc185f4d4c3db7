"""What may be asked of a treatment, and how a part of unvanish is called on a script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unvanish.verify.trial import Target

Tell = Callable[
    [str, float | None, float | None], None
]  # what is being done, which share is done, seconds left


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be asked of a treatment. None: the default that fits the script."""

    out: Path
    steps: int | None = None
    seed: int | None = None
    trial_steps: int | None = None
    seeds: int = 5
    budget: float | None = None
    engine: str = "local"
    only: tuple[str, ...] = ()
    allow_unsafe: bool = False
    recipe: Path | None = None
    diff: Path | None = None


def command(name: str, target: Target, options: Options, said: Path, *more: str) -> list[str]:
    """`unvanish NAME` on the script, as another process runs it; the result goes to the file `said`."""
    words = [sys.executable, "-m", "unvanish", name, "--quiet", "--json", str(said), *more]
    words += [] if options.seed is None else ["--seed", str(options.seed)]
    return [*words, *(["-m"] if target.is_module else []), target.program, *target.arguments]


def environment() -> dict[str, str]:
    """A small net is faster on one thread; and runs do not depend on the number of cores."""
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
