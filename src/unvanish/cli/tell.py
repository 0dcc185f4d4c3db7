"""What is told at the end of a run, and the textbook net, through present's text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from unvanish import session
from unvanish.errors import UnvanishError
from unvanish.explanation.toy import explain_toy, toy_text
from unvanish.present.text import print_diagnosis
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


def tell_story(run_path: str) -> None:
    """Verdict / Why / Next of a run, its loss and its signal maps, on stdout."""
    from unvanish.present.blocks import print_maps

    console = console_on(sys.stdout)
    run = session.load(run_path)
    print_diagnosis(session.diagnose(run), session.chains(run), console)
    print_maps(session.page_view(run), console)


def console_on(stream: TextIO) -> Console:
    """A console on this very stream: plain lines where it is no terminal."""
    return Console(file=stream)


def shown_path(path: str, folder: Path) -> str:
    """Relative to `folder` where it lies below it, and fit to be pasted into a shell."""
    with suppress(ValueError):
        path = str(Path(path).relative_to(folder))
    return shlex.quote(path)


def toy(activation: str) -> tuple[dict[str, Any], Show]:
    """The textbook net: as JSON holds it, and how to show it. `activation` may be "both"."""
    nets = [explain_toy(one) for one in (("sigmoid", "relu") if activation == "both" else (activation,))]

    def show(console: Console) -> None:
        for net in nets:
            console.print(toy_text(net), highlight=False, markup=False, soft_wrap=True)

    return {"schema": SCHEMA_VERSION, "toys": [net.to_dict() for net in nets]}, show


def _chains(run_path: str) -> tuple[Chain, ...]:
    try:
        return session.chains(session.load(run_path))
    except UnvanishError:
        return ()  # the verdict stands without them, and says itself what could not be read
