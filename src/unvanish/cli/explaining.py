"""``unvanish explain``: a recorded run, a script that is run for a step, or what a factory builds."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from unvanish import launch
from unvanish.cli import files
from unvanish.cli.watch import RunOptions, Watcher
from unvanish.errors import RecordError, ScriptError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unvanish.probe.forward import Call
    from unvanish.schema.explanation import Explanation, ScalarPaths

Show = Callable[[Console], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """The options of ``unvanish explain``, as they were given."""

    words: tuple[str, ...] = ()
    parameter: str | None = None
    index: str | None = None
    paths: int = 5
    steps: int = 1
    seed: int | None = None
    out: str | None = None

    @property
    def place(self) -> tuple[int, ...] | None:
        """The index as numbers. UsageError where it is none."""
        if self.index is None:
            return None
        try:
            return tuple(int(part) for part in self.index.replace(" ", ",").split(",") if part)
        except ValueError:
            raise UsageError(
                f"--index {self.index} is no index", "give whole numbers with commas, such as 3,5"
            ) from None


def explain_target(target: str, options: ExplainOptions) -> tuple[dict[str, Any], Show]:
    """What explains the target: as JSON holds it, and how to show it. UnvanishError where that can't be."""
    place = options.place
    if _is_script(Path(target)):
        explanation = _of_script(target, options, place)
    elif launch.is_factory(target):
        explanation = _of_factory(target, options, place)
    else:
        explanation = _of_run(target, options, place)

    def show(console: Console) -> None:
        from unvanish.present.chain_text import print_explanation

        print_explanation(explanation, console)
        if explanation.run is not None and options.out is not None:
            console.print(f"Run kept in {explanation.run}", highlight=False, markup=False, soft_wrap=True)

    return explanation.to_dict(), show


def _is_script(path: Path) -> bool:
    """Whether python would run it; a run's folder is none."""
    return path.suffix in (".py", ".pyc", ".pyz", ".zip") or (path / "__main__.py").exists()


def _of_run(target: str, options: ExplainOptions, place: tuple[int, ...] | None) -> Explanation:
    from unvanish import session

    if options.words:
        raise UsageError(
            f"a run takes no arguments, and there are some: {' '.join(options.words)}", "leave them out"
        )
    if place is not None:
        raise UsageError(
            f"--index follows one weight unit by unit, and {target} holds what a run recorded: norms of whole layers",
            "name the script, or FILE.py:FACTORY, in its place",
        )
    run = session.load(target)
    chains = session.chains(run, parameter=options.parameter)
    if not chains:
        raise RecordError(
            f"nothing was traced in {target}, so there are no factors to show",
            "watch again, and let it make at least one optimizer step",
        )
    return session.as_explanation(chains, run=run.path)


def _of_factory(target: str, options: ExplainOptions, place: tuple[int, ...] | None) -> Explanation:
    from unvanish import session
    from unvanish.launch.factory import load_factory

    if options.words:
        raise UsageError(
            f"a factory is called without arguments: {' '.join(options.words)}", "leave them out"
        )
    if options.seed is not None:
        from unvanish.launch.importing import seed_everything

        seed_everything(options.seed)
    with contextlib.redirect_stdout(sys.stderr):
        built = load_factory(target)
        return session.explain(
            built.model,
            built.batch,
            built.loss_fn,
            parameter=options.parameter,
            index=place,
            paths=options.paths,
        )


# --- a script ----------------------------------------------------------------------------------------------


def _of_script(target: str, options: ExplainOptions, place: tuple[int, ...] | None) -> Explanation:
    """Run it to its first steps, watched; its output goes to stderr, as ours is the result."""
    from unvanish.launch.isolation import apart, folders_of

    script = launch.Target(name=target, arguments=options.words)
    script.check()
    follower = _Follower(options, place)
    kept = None if options.out is None else files.writable_folder(options.out)
    with tempfile.TemporaryDirectory(prefix="unvanish-", ignore_cleanup_errors=True) as folder:
        own = folders_of(target, str(Path.cwd()), arguments=options.words)
        explanation = apart(lambda: _followed(script, options, follower, Path(folder)), own)
        if kept is None or explanation.run is None:
            return replace(explanation, run=None)
        place_of_run = shutil.move(explanation.run, kept / Path(explanation.run).name)
        return replace(explanation, run=str(place_of_run))


def _followed(
    script: launch.Target, options: ExplainOptions, follower: _Follower, folder: Path
) -> Explanation:
    stdout = sys.stdout
    told = RunOptions(out=str(folder), steps=options.steps, seed=options.seed, exact=True, quiet=True)
    watcher = Watcher(script, told, folder, explain=follower)
    launch.when_imported("torch", watcher.begin, in_forks=True)
    sys.stdout = sys.stderr
    try:
        with launch.announced(watcher.told):
            ended = launch.run_target(script, seed=options.seed, is_stop=watcher.is_stop)
        files.flush(sys.stdout)
    finally:
        sys.stdout = stdout
    if ended.forked:
        raise SystemExit(ended.code)
    with launch.own_imports(watcher.folder):
        return _explained(watcher, ended, script, options, follower)


def _explained(
    watcher: Watcher, ended: launch.Exit, script: launch.Target, options: ExplainOptions, follower: _Follower
) -> Explanation:
    from unvanish import session

    diagnosis = watcher.finish(ended)
    if not diagnosis.models:
        seen = "no torch optimizer stepped" if watcher.session is not None else "torch was never imported"
        hint = launch.hint_for(ended.message)
        why = f": {hint}" if hint is not None else f": {ended.message}" if ended.message else ""
        if ended.status not in ("finished", "stopped"):
            raise ScriptError(
                f"{script.title} ended before its first training step{why}",
                "" if hint else "let it run by itself first",
            )
        raise ScriptError(
            f"{seen} while {script.title} ran, so there is no gradient to explain",
            "give it the arguments that make it train, behind --; or name FILE.py:FACTORY",
        )
    run = session.load(diagnosis.run)
    chains = session.chains(run, parameter=options.parameter)
    if not chains:
        name = options.parameter or "any weight"
        raise ScriptError(
            f"no gradient reached {name} in the traced steps of {script.title}",
            "try --steps with a larger number, or look for detach() and frozen parameters",
        )
    return session.as_explanation(chains, follower.answer(chains[0].parameter), run.path)


class _Follower:
    """Follows one weight at the first traced loss that hangs on it, in the running script's own graph.

    Where no parameter was named, the most starved one is known only afterwards: its index has to fit then.
    """

    def __init__(self, options: ExplainOptions, place: tuple[int, ...] | None) -> None:
        self._options = options
        self._place = place
        self._found: ScalarPaths | None = None
        self._error: Exception | None = None
        if place is not None and options.parameter is None:
            raise UsageError("--index needs to know of which parameter", "name it with --parameter NAME")

    def __call__(self, loss: Tensor, calls: list[Call], roots: list[nn.Module]) -> None:
        """Called by the probe before the backward pass. What goes wrong is kept for later."""
        if self._place is None or self._found is not None:
            return
        try:
            self._follow(loss, calls, roots)
        except Exception as error:  # noqa: BLE001 - it must not reach the script's loop
            self._error = error

    def _follow(self, loss: Tensor, calls: list[Call], roots: list[nn.Module]) -> None:
        from unvanish.paths.scalar import follow
        from unvanish.probe.discover import living_modules, unwrap
        from unvanish.probe.once import names_of
        from unvanish.session import weight_index

        name = self._options.parameter or ""
        for module in (unwrap(m) for m in [*roots, *living_modules()]):
            parameter = dict(module.named_parameters()).get(name)
            if parameter is None:
                continue
            index = weight_index(name, tuple(parameter.shape), self._place or ())
            found = follow(loss, calls, names_of(module), (name, parameter), index, self._options.paths)
            if found.total is not None or found.gradient != 0:
                self._found, self._error = found, None
                return

    def answer(self, parameter: str) -> ScalarPaths | None:
        """What was found; raises what went wrong."""
        if self._place is None:
            return None
        if self._error is not None:
            raise self._error
        if self._found is None:
            raise UsageError(
                f"{parameter} could not be followed: no module of the script has it at a loss that hangs on it",
                "name FILE.py:FACTORY, where the model is at hand",
            )
        return self._found
