"""``unvanish treat``: what may cure a script is tried and verified; the cure is kept as a recipe and a patch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unvanish import launch
from unvanish.cli import files
from unvanish.errors import ScriptError

if TYPE_CHECKING:
    from rich.console import Console

    from unvanish.remedy.options import Tell
    from unvanish.remedy.treating import Treated
    from unvanish.verify.trial import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class TreatOptions:
    """The options of ``unvanish treat``, as they were given."""

    out: str
    json_path: str | None = None
    steps: int | None = None
    seed: int | None = None
    trial_steps: int | None = None
    seeds: int = 5
    budget: float | None = None
    engine: str = "local"
    only: str | None = None
    allow: str | None = None
    recipe: str | None = None
    diff: str | None = None
    quiet: bool = False


def treat_script(target: launch.Target, options: TreatOptions) -> int:
    """Treat `target`; tells what was found, keeps it with the run, and gives the exit code 0.

    Raises UnvanishError for what can't be treated.
    """
    wanted = _target(target)
    json_file = files.writable_json(options.json_path)
    for name in (options.recipe, options.diff):
        files.writable_json(name)
    folder = files.writable_folder(options.out)
    from unvanish.remedy.options import Options
    from unvanish.remedy.treating import treat_target

    choice = Options(
        out=folder,
        steps=options.steps,
        seed=options.seed,
        trial_steps=options.trial_steps,
        seeds=options.seeds,
        budget=options.budget,
        engine=options.engine,
        only=tuple(word.strip() for word in (options.only or "").split(",") if word.strip()),
        allow_unsafe=options.allow == "unsafe",
        recipe=None if options.recipe is None else Path(options.recipe).absolute(),
        diff=None if options.diff is None else Path(options.diff).absolute(),
    )
    from unvanish.cli.tell import console_on

    console = console_on(sys.stderr)
    with progress_on(console, quiet=options.quiet) as tell:
        treated = treat_target(wanted, choice, tell)
    files.write_json(treated.result.to_dict(), options.json_path, json_file, sys.stdout)
    if not options.quiet:
        _say(treated, console)
    return 0


def _target(target: launch.Target) -> Target:
    from unvanish.remedy.face import target_of_factory
    from unvanish.verify.trial import Target

    if not target.is_module and launch.is_factory(target.name):
        if target.arguments:
            raise ScriptError("a factory takes no arguments", f"leave out {' '.join(target.arguments)[:60]}")
        return target_of_factory(target.name)
    target.check()
    return Target(
        program=target.name,
        arguments=target.arguments,
        directory=str(Path.cwd()),
        is_module=target.is_module,
    )


def _say(treated: Treated, console: Console) -> None:
    from unvanish import session
    from unvanish.cli.tell import shown_path
    from unvanish.present.text import print_diagnosis, print_treatment

    here = Path.cwd()
    print_diagnosis(treated.diagnosis, session.chains(session.load(treated.run)), console)
    console.print()
    recipe, diff = (
        None if place is None else shown_path(place, here)
        for place in (treated.result.recipe, treated.result.diff)
    )
    print_treatment(replace(treated.result, recipe=recipe, diff=diff), console)
    for what, place in (("Recipe", recipe), ("Patch", diff), ("Run", shown_path(str(treated.run), here))):
        if place is not None:
            console.print(f"{what} kept in {place}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_on(console: Console, *, quiet: bool = False) -> Iterator[Tell]:
    """A live line in a terminal; elsewhere a plain line for each stage and each tenth of the work."""
    if quiet:
        yield lambda _what, _share, _left: None
        return
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        SpinnerColumn(),
        BarColumn(bar_width=32),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def tell(what: str, share: float | None, left: float | None) -> None:
            words = what if left is None else f"{what} (about {left:.0f} s left in this stage)"
            progress.update(
                task, description=words, total=None if share is None else 1.0, completed=share or 0.0
            )

        yield tell


def _plain_lines(console: Console) -> Tell:
    said = [""]

    def tell(what: str, _share: float | None, _left: float | None) -> None:
        stage = what.partition(":")[0]
        if stage != said[0]:
            said[0] = stage
            console.print(f"{stage} ...", markup=False, highlight=False, soft_wrap=True)

    return tell
