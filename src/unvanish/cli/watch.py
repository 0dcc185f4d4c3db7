"""``unvanish run``: a script is started and watched; what its end and the record say is told."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from unvanish import launch
from unvanish.cli import files
from unvanish.errors import CaptureError, ScriptError, UnvanishError
from unvanish.schema.finding import Diagnosis

if TYPE_CHECKING:
    from unvanish.session import Session

FAILED = 1
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
    quiet: bool = False


def watch_script(target: launch.Target, options: RunOptions) -> int:
    """Run `target` watched, tell the diagnosis, and give the exit code of the command (docs/cli.md).

    Raises UnvanishError for what stops the command before the script starts, for watching that can't begin,
    and for a script that ended well without training anything.
    """
    target.check()
    json_file = files.writable_json(options.json_path)
    stdout, stderr, here = sys.stdout, sys.stderr, Path.cwd()  # ours; a script may put others in their place
    watcher = Watcher(target, options, files.writable_folder(options.out))
    launch.when_imported("torch", watcher.begin)
    ended = launch.run_target(target, seed=options.seed, is_stop=watcher.is_stop)
    if ended.forked:
        return ended.code
    files.flush(sys.stdout)
    files.flush(stdout)
    with launch.own_imports(watcher.folder):
        diagnosis = watcher.finish(ended)
        files.write_json(diagnosis.to_dict(), options.json_path, json_file, stdout)
        if watcher.steps and not options.quiet:
            from unvanish.cli.tell import tell_run

            tell_run(diagnosis, stderr, here)
    hint = launch.hint_for(ended.message)
    if watcher.steps and hint is not None and not options.quiet:
        files.say(f"what the script died of: {hint}", stderr)
    if not watcher.steps:
        return _nothing_trained(target, ended, torch_was_there=watcher.session is not None, stream=stderr)
    if ended.code == 0 and is_met(options.fail_on, diagnosis):
        return FAIL_ON_MET
    return ended.code


class Watcher:
    """The session of one run. It begins when the script imports torch, and not at all in forked children."""

    def __init__(self, target: launch.Target, options: RunOptions, out: Path) -> None:
        """Nothing is imported and nothing written yet."""
        self.folder = target.folder
        self.session: Session | None = None
        self._target = target
        self._options = options
        self._out = out
        self._command = tuple(sys.argv)
        self._error: UnvanishError | None = None
        self._stop: tuple[type[BaseException], ...] = ()

    @property
    def steps(self) -> int:
        """Optimizer steps seen."""
        return self.session.steps if self.session is not None else 0

    def begin(self) -> None:
        """Start to watch; when that can't be, keep why and end the script before it trains unwatched."""
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
        from unvanish.session import Session

        self._stop = (StopTraining,)
        self.session = Session(
            out=self._out,
            command=self._command,
            script=self._target.name,
            seed=self._options.seed,
            every=self._options.every,
            exact=self._options.exact,
            stop_after=self._options.steps,
            tell=partial(files.say, stream=sys.stderr),
        )
        self.session.start()

    def is_stop(self, error: BaseException) -> bool:
        """Whether this is the end that --steps asked for."""
        return isinstance(error, self._stop)

    def finish(self, ended: launch.Exit) -> Diagnosis:
        """Close the record and diagnose. A script that never imported torch leaves no record behind."""
        if self._error is not None:
            raise self._error
        if self.session is None:
            version = sys.modules["unvanish"].__version__
            return Diagnosis(version=version, models=(), run="", status=ended.status)
        return self.session.finish(ended.status, ended.message)


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
