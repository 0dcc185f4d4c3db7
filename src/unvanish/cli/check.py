"""``unvanish check``: a script is run up to its first step, or a factory called; what it built is checked.

That is an experiment: it happens in a process of its own, in which what the script writes is not kept.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from unvanish import launch
from unvanish.cli import files
from unvanish.errors import CaptureError, ScriptError, UnvanishError
from unvanish.schema.finding import Diagnosis
from unvanish.schema.launch import new_run_id

if TYPE_CHECKING:
    from unvanish.precheck.catch import Catch

RESULT = "check.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """The options of ``unvanish check``, as they were given."""

    out: str
    json_path: str | None = None
    seed: int | None = None
    quiet: bool = False


def check_target(target: launch.Target, options: CheckOptions) -> int:
    """Check what a script or a factory builds; tells it, keeps it below --out, and gives the exit code 0.

    Raises UnvanishError for what can't be checked.
    """
    factory = not target.is_module and launch.is_factory(target.name)
    if not factory:
        target.check()
    elif target.arguments:
        raise ScriptError("a factory takes no arguments", f"leave out {' '.join(target.arguments)[:60]}")
    json_file = files.writable_json(options.json_path)
    folder = files.writable_folder(options.out)
    stdout, stderr, here = sys.stdout, sys.stderr, Path.cwd()
    path = target.name.rpartition(":")[0] if factory else target.name
    own = str(Path(path).absolute().parent) if factory else target.folder
    from unvanish.launch.isolation import apart, folders_of

    diagnosis = apart(
        lambda: _factory(target.name, own, options) if factory else _script(target, options),
        folders_of(target.name, str(here), is_module=target.is_module, arguments=target.arguments),
    )
    with launch.own_imports(own):
        kept = _keep(diagnosis, folder / new_run_id(path))
        files.write_json(kept.to_dict(), options.json_path, json_file, stdout)
        if not options.quiet:
            _tell(kept, stderr, here)
    return 0


def _factory(spec: str, own: str, options: CheckOptions) -> Diagnosis:
    with launch.own_imports(own):
        from unvanish.launch.factory import load_factory
        from unvanish.precheck.check import check_all, subject_of

    if options.seed is not None:
        launch.seed_everything(options.seed)
    with contextlib.redirect_stdout(sys.stderr):  # our stdout may be the result
        built = load_factory(spec)
    subject = subject_of(built.model, built.batch, built.loss_fn, name=spec.rpartition(":")[2])
    return check_all([subject], seed=options.seed or 0)


def _script(target: launch.Target, options: CheckOptions) -> Diagnosis:
    watcher = _Watcher(target)
    launch.when_imported("torch", watcher.begin)
    ended = launch.run_target(target, seed=options.seed, is_stop=watcher.is_stop)
    if ended.forked:
        os._exit(ended.code)  # a child of the script's: not ours to tell of
    files.flush(sys.stdout)
    if watcher.error is not None:
        raise watcher.error
    with launch.own_imports(target.folder):
        caught = watcher.catch.end() if watcher.catch is not None else None
        if caught is None or not caught.stepped:
            raise _never_stepped(target, ended, torch_was_there=caught is not None)
        records = () if caught.subjects else caught.records
        if not caught.subjects and not any(record.traces for record in records):
            raise CaptureError(
                f"{target.title} steps parameters of no module that it calls",
                "check it by a factory (FILE.py:NAME that returns model, batch), or watch it: unvanish run",
            )
        from unvanish.precheck.check import check_all

        with contextlib.suppress(OSError):
            os.chdir(watcher.here)
        return check_all(caught.subjects, records, seed=options.seed or 0)


class _Watcher:
    """Begins to watch when the script imports torch."""

    def __init__(self, target: launch.Target) -> None:
        self.catch: Catch | None = None
        self.error: UnvanishError | None = None
        self.here = Path.cwd()
        self._folder = target.folder
        self._stop: tuple[type[BaseException], ...] = ()

    def begin(self) -> None:
        """Place the hooks; where that fails, end the script."""
        try:
            with launch.own_imports(self._folder):
                from unvanish.precheck.catch import Catch
                from unvanish.probe.engine import StopTraining

                self._stop = (StopTraining,)
                self.catch = Catch()
                self.catch.begin()
        except UnvanishError as error:
            self.error = error
            raise launch.Abort from None

    def is_stop(self, error: BaseException) -> bool:
        """Whether this is our end of the script."""
        return isinstance(error, self._stop)


def _never_stepped(target: launch.Target, ended: launch.Exit, *, torch_was_there: bool) -> UnvanishError:
    if ended.status != "finished":
        hint = launch.hint_for(ended.message)
        return ScriptError(
            f"{target.title} ended before its first optimizer step",
            hint or "what it died of stands above; see whether plain python runs it",
        )
    seen = "no torch optimizer stepped" if torch_was_there else "torch was never imported"
    return ScriptError(
        f"{seen} while {target.title} ran, so there was nothing to check",
        "start it with the arguments that make it train, or name a factory: FILE.py:NAME",
    )


def _keep(diagnosis: Diagnosis, folder: Path) -> Diagnosis:
    from unvanish.session import to_json
    from unvanish.store import save_result

    kept = replace(diagnosis, run=str(folder))
    save_result(folder, RESULT, to_json(kept.to_dict()))
    return kept


def _tell(diagnosis: Diagnosis, stream: TextIO, here: Path) -> None:
    from unvanish.cli.tell import console_on, shown_path
    from unvanish.present.check import print_check

    console = console_on(stream)
    print_check(diagnosis, console)
    place = shown_path(f"{diagnosis.run}/{RESULT}", here)
    console.print(f"Kept in {place}", highlight=False, markup=False, soft_wrap=True)
