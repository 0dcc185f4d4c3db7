"""``unvanish run``: a script is started and watched; what its end and the record say is told."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from unvanish import launch
from unvanish.cli import files
from unvanish.errors import CaptureError, RecipeError, ScriptError, UnvanishError
from unvanish.schema.finding import Diagnosis
from unvanish.schema.launch import launch_of, new_run_id

if TYPE_CHECKING:
    from unvanish.launch.surgeon import Surgeon
    from unvanish.probe.engine import Explain
    from unvanish.serving.start import Beside
    from unvanish.session import Session

FAILED = 1
PRACTICE = "unvanish.launch.practice"  # the script of factories
LIVE_PORT = 8777  # the same from run to run, so that a page may stay open; another where that is taken
FAIL_ON_MET = 3
FailOn = Literal["warning", "critical"]
AT_LEAST: dict[FailOn, tuple[str, ...]] = {"warning": ("warning", "critical"), "critical": ("critical",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of ``unvanish run``, as they were given."""

    out: str
    json_path: str | None = None
    steps: int | None = None
    seed: int | None = None
    every: int | None = None
    exact: bool = False
    fail_on: FailOn | None = None
    recipe: str | None = None
    quiet: bool = False
    live: bool = False
    scratch: str | None = None


def watch_script(target: launch.Target, options: RunOptions) -> int:
    """Run `target` watched, tell the diagnosis, and give the exit code of the command (docs/cli.md).

    Raises UnvanishError for what stops the command before the script starts, for watching that can't begin,
    and for a script that ended well without training anything.
    """
    target.check()
    if options.recipe is not None:
        files.readable(options.recipe, "the recipe")
    json_file = files.writable_json(options.json_path)
    stdout, stderr, here = sys.stdout, sys.stderr, Path.cwd()  # ours; a script may put others in their place
    watcher = Watcher(target, options, files.writable_folder(options.out))
    if options.scratch is not None:
        _isolate(Path(options.scratch), target)
    launch.when_imported("torch", watcher.begin, in_forks=True)
    with launch.announced(watcher.told):
        ended = launch.run_target(target, seed=options.seed, is_stop=watcher.is_stop)
    if ended.forked:
        return ended.code
    files.flush(sys.stdout)
    watcher.show_no_more()
    files.flush(stdout)
    if watcher.is_other_rank:
        return watcher.end_rank(ended, None if options.quiet else stderr)
    with launch.own_imports(watcher.folder):
        diagnosis = watcher.finish(ended)
        files.write_json(diagnosis.to_dict(), options.json_path, json_file, stdout)
        if diagnosis.models and not options.quiet:
            from unvanish.cli.tell import tell_run

            tell_run(diagnosis, stderr, here)
    hint = launch.hint_for(ended.message)
    if diagnosis.models and hint is not None and not options.quiet:
        files.say(f"what the script died of: {hint}", stderr)
    if not diagnosis.models:
        return _nothing_trained(target, ended, torch_was_there=watcher.session is not None, stream=stderr)
    if ended.code == 0 and is_met(options.fail_on, diagnosis):
        return FAIL_ON_MET
    return ended.code


class Watcher:
    """The session of one run. It begins when the script imports torch; forked children wait until they train.

    Where a launcher has started several ranks, each under ``unvanish run``, rank 0 makes the run, the others join.
    """

    def __init__(
        self, target: launch.Target, options: RunOptions, out: Path, explain: Explain | None = None
    ) -> None:
        """Nothing of ours that is heavy is imported, and nothing written yet. `explain`: as of the probe."""
        self._explain = explain
        self.folder = target.folder
        self.session: Session | None = None
        self._target = target
        self._options = options
        self._out = out
        self._command = tuple(sys.argv)
        self._name = new_run_id(_called(target))
        self._launch = launch_of(os.environ)
        self._pid = os.getpid()
        self._recipe = None if options.recipe is None else Path(options.recipe).absolute()
        self._surgeon: Surgeon | None = None
        self._error: UnvanishError | None = None
        self._stop: tuple[type[BaseException], ...] = ()
        self._beside: Beside | None = None
        self._environment = dict(os.environ)  # before the script's children are told of the run
        self._stderr = sys.stderr

    @property
    def is_other_rank(self) -> bool:
        """Whether another process, rank 0 of the same launch, does the telling."""
        return self._launch is not None and self._launch.rank > 0

    @property
    def told(self) -> launch.Told:
        """What the script's children are to know: they join this run, or rank 0's."""
        o = self._options
        return launch.Told(
            folder=None if self.is_other_rank else str(self._out / self._name),
            owner=self._pid,
            out=str(self._out),
            launch=self._launch,
            every=o.every,
            steps=o.steps,
            exact=o.exact,
            seed=o.seed,
        )

    def begin(self) -> None:
        """Start to watch; when that can't be, keep why and end the script before it trains unwatched."""
        if os.getpid() != self._pid:
            self._in_fork()
            return
        try:
            with launch.own_imports(self.folder):
                self._begin()
        except UnvanishError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - a fault of ours: said in one line, not as the script's crash
            self._error = CaptureError(
                f"the watching could not begin: {type(error).__name__}: {error}",
                "this is a fault of unvanish, please report it; plain python runs the script as ever",
            )
        if self._error is not None:
            raise launch.Abort

    def _begin(self) -> None:
        from unvanish.probe.engine import StopTraining

        self._stop = (StopTraining,)
        if self._recipe is not None:
            self._begin_to_treat(self._recipe)
        self.session = self._new_session()
        if self._explain is None:
            self.session.start()
        else:
            self.session.start(explain=self._explain)
        if self._options.live and not self.is_other_rank:
            self._show(self.session.path)

    def _show(self, run: Path) -> None:
        """Start the process that shows the run; the training goes on whatever comes of it."""
        from unvanish.serving.start import Beside

        self._beside = Beside(
            run,
            self._environment,
            port=LIVE_PORT,
            terminal=None if self._options.quiet else self._stderr,
            steps=self._options.steps,
            say=partial(files.say, stream=self._stderr),
        )

    def show_no_more(self) -> None:
        """The terminal is the script's and ours again."""
        if self._beside is not None:
            self._beside.end()

    def _begin_to_treat(self, path: Path) -> None:
        """The recipe is read before the script goes on: a wrong one costs nothing."""
        from unvanish.launch.by_hand import surgeon_class
        from unvanish.treatment.recipe import load_recipe

        recipe = load_recipe(path)
        kind = surgeon_class(by_hand=recipe.by_hand, loose=recipe.loose)
        self._surgeon = kind.for_recipe(recipe, on_fault=self._not_treated)
        self._surgeon.begin()

    def _not_treated(self, error: UnvanishError) -> None:
        """The script must not train untreated as if it were treated."""
        self._error = error
        raise launch.Abort

    def _new_session(self) -> Session:
        from unvanish.session import Role, Session
        from unvanish.store.meeting import Meeting, RankPlace

        meeting = None if self._launch is None else Meeting(self._out, self._launch)
        other = meeting is not None and self.is_other_rank
        return Session(
            out=self._out,
            command=self._command,
            script=_shown(self._target),
            seed=self._options.seed,
            every=self._options.every,
            exact=self._options.exact,
            stop_after=self._options.steps,
            role=Role(
                name=self._name,
                place=RankPlace(meeting) if meeting is not None and other else None,
                meeting=None if other else meeting,
                in_fork=self._in_fork,
            ),
            tell=_quiet if other else partial(files.say, stream=sys.stderr),
        )

    def _in_fork(self) -> None:
        """In a process that was forked from this one: a record of its own, if it trains."""
        with suppress(Exception), launch.own_imports(self.folder):
            launch.await_training(self.told)

    def is_stop(self, error: BaseException) -> bool:
        """Whether this is the end that --steps asked for."""
        return isinstance(error, self._stop)

    def finish(self, ended: launch.Exit) -> Diagnosis:
        """Close the record and diagnose. Where nobody ever imported torch, no record is left behind."""
        if self._surgeon is not None:
            self._surgeon.end()
        if self._error is not None:
            if self.session is not None:
                self.session.end("crashed", str(self._error))
            raise self._error
        if self._surgeon is not None and not self._surgeon.done:
            raise RecipeError(
                f"the recipe was never applied: {self._target.title} {self._surgeon.never}",
                "apply it to the script that it was made for",
            )
        if self._surgeon is not None and self._surgeon.idle:
            raise RecipeError(
                f"the recipe was applied to a model that {self._target.title} does not train: no gradient came to it",
                "apply it to the script that it was made for",
            )
        if self._surgeon is not None and self._surgeon.fault is not None:
            raise RecipeError(
                f"{self._target.title} was treated and did not train all of it: {self._surgeon.fault}",
                "its weights are not those of a treated run",
            )
        if self.session is None and (self._out / self._name).exists():
            self.session = self._new_session()  # only children have trained
        if self.session is None:
            version = sys.modules["unvanish"].__version__
            return Diagnosis(version=version, models=(), run="", status=ended.status)
        return self.session.finish(ended.status, ended.message)

    def end_rank(self, ended: launch.Exit, stream: TextIO | None) -> int:
        """Close the record of a rank that is not the first, which is quiet; gives the script's own code."""
        if self._error is not None:
            raise self._error
        if self.session is not None:
            with launch.own_imports(self.folder):
                self.session.end(ended.status, ended.message)
            if self.session.said is not None and stream is not None:
                files.say(f"{self.session.said}: {self.session.path}", stream)
        return ended.code


def _called(target: launch.Target) -> str:
    """A run's name: of a factory that is trained for want of a script, its file and function."""
    file, _, factory = _shown(target).rpartition(":")
    return f"{Path(file).stem}_{factory}".replace(".", "_") if _is_practice(target) else target.name


def _shown(target: launch.Target) -> str:
    """What the user has named."""
    return target.arguments[0] if _is_practice(target) else target.name


def _is_practice(target: launch.Target) -> bool:
    return target.is_module and target.name == PRACTICE and bool(target.arguments)


def _isolate(scratch: Path, target: launch.Target) -> None:
    """Imported only where it is asked for: a script that is run in earnest writes where it writes."""
    from unvanish.launch.isolation import folders_of, isolate

    own = folders_of(target.name, os.getcwd(), is_module=target.is_module, arguments=target.arguments)  # noqa: PTH109
    isolate(scratch, own)


def _quiet(_: str) -> None:
    """Rank 0 speaks for all."""


def is_met(fail_on: FailOn | None, diagnosis: Diagnosis) -> bool:
    """Whether there is a finding at least as severe as `fail_on`."""
    if fail_on is None:
        return False
    return any(f.severity in AT_LEAST[fail_on] for model in diagnosis.models for f in model.findings)


def _nothing_trained(
    target: launch.Target, ended: launch.Exit, *, torch_was_there: bool, stream: TextIO
) -> int:
    """Say that there was nothing to diagnose. A fault of the script's was shown already: its code counts."""
    seen = "no torch optimizer stepped" if torch_was_there else "torch was never imported"
    if ended.status != "finished":
        hint = launch.hint_for(ended.message)
        why = f": {hint}" if hint is not None else f" ({seen}), so there is nothing to diagnose"
        files.say(f"{target.title} ended before its first training step{why}", stream)
        return ended.code
    raise ScriptError(
        f"{seen} while {target.title} ran, so there is nothing to diagnose",
        "start it with the arguments that make it train; where another process trains, watch in its code:"
        " with unvanish.watch(model, optimizer)",
    )
