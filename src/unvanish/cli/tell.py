"""What is told at the end of a run, and the product of factors, through present's text."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from unvanish import session
from unvanish.errors import RecordError, UnvanishError, UsageError
from unvanish.explanation.toy import explain_toy, toy_text
from unvanish.present.text import print_chain, print_diagnosis
from unvanish.schema.chain import Chain
from unvanish.schema.finding import SCHEMA_VERSION, Diagnosis

Show = Callable[[Console], None]


def tell_run(diagnosis: Diagnosis, stream: TextIO, folder: Path) -> None:
    """Verdict / Why / Next of a run, and where it is kept, as seen from `folder`, where the user is."""
    console = console_on(stream)
    print_diagnosis(diagnosis, _chains(diagnosis.run), console)
    place = shown_path(diagnosis.run, folder)
    console.print(f"Run kept in {place}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"One page of it: unvanish report {place}", highlight=False, markup=False, soft_wrap=True)


def console_on(stream: TextIO) -> Console:
    """A console on this very stream: plain lines where it is no terminal."""
    return Console(file=stream)


def shown_path(path: str, folder: Path) -> str:
    """Relative to `folder` where it lies below it, and fit to be pasted into a shell."""
    with suppress(ValueError):
        path = str(Path(path).relative_to(folder))
    return shlex.quote(path)


def factors(run_path: str, parameter: str | None) -> tuple[dict[str, Any], Show]:
    """The product of factors of a run, as JSON holds it, and how to show it. UsageError: unknown name."""
    run = session.load(_run_at(run_path))
    chains = session.chains(run, parameter=parameter)
    if not chains:
        raise RecordError(
            f"nothing was traced in {run_path}, so there are no factors to show",
            "watch again, and let it make at least one optimizer step",
        )

    def show(console: Console) -> None:
        for chain in chains:
            print_chain(chain, console)

    return {"schema": SCHEMA_VERSION, "run": run.path, "chains": [chain.to_dict() for chain in chains]}, show


def toy(activation: str) -> tuple[dict[str, Any], Show]:
    """The textbook net: as JSON holds it, and how to show it. `activation` may be "both"."""
    nets = [explain_toy(one) for one in (("sigmoid", "relu") if activation == "both" else (activation,))]

    def show(console: Console) -> None:
        for net in nets:
            console.print(toy_text(net), highlight=False, markup=False, soft_wrap=True)

    return {"schema": SCHEMA_VERSION, "toys": [net.to_dict() for net in nets]}, show


def _run_at(path: str) -> str:
    if Path(path).suffix == ".py":
        raise UsageError(
            f"{path} is a script, and a recorded run is needed here", f"watch it first: unvanish run {path}"
        )
    return path


def _chains(run_path: str) -> tuple[Chain, ...]:
    try:
        return session.chains(session.load(run_path))
    except UnvanishError:
        return ()  # the verdict stands without them, and says itself what could not be read
