"""The processes that a watched script starts: they learn of the run from their environment, join it by training."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unvanish.launch.importing import own_imports
from unvanish.schema.launch import Launch

if TYPE_CHECKING:
    from unvanish.probe.trigger import Trigger

RUN, SEED = "UNVANISH_RUN", "UNVANISH_SEED"  # startup/sitecustomize.py knows them too
STARTUP = str(Path(__file__).with_name("startup"))
_ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a child has to know of the run that its parent is part of."""

    folder: str | None  # of the run; None: where rank 0 of `launch` says, in the folder `out`
    owner: int  # the process that says so, which is no child
    out: str = ""
    launch: Launch | None = None
    every: int | None = None
    steps: int | None = None
    exact: bool = False
    seed: int | None = None


@contextmanager
def announced(told: Told | None) -> Iterator[None]:
    """Meanwhile all processes that are started from here learn of the run; None: they learn of no run."""
    before = {name: os.environ.get(name) for name in (RUN, SEED, "PYTHONPATH")}
    # an outer `unvanish run` has its hook in this process: from here on this run is the one that counts
    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__module__ != "_unvanish_importing"]
    others = [p for p in (before["PYTHONPATH"] or "").split(os.pathsep) if p != STARTUP]
    os.environ.pop(SEED, None)
    if told is None:
        os.environ.pop(RUN, None)
        ours = others
    else:
        os.environ[RUN] = json.dumps(asdict(told))
        if told.seed is not None:
            os.environ[SEED] = str(told.seed)
        ours = [STARTUP, *(others if before["PYTHONPATH"] else ())]
    if any(ours):
        os.environ["PYTHONPATH"] = os.pathsep.join(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def await_training(told: Told | None = None) -> None:
    """In a child that has torch: begin to record when it begins to train. `told` None: ask the environment."""
    if told is None:
        told = _from_environment()
    if told is None or told.owner == os.getpid():
        return
    from unvanish.probe.trigger import Trigger

    Trigger(lambda trigger: _begin(told, trigger))


def _begin(told: Told, trigger: Trigger) -> None:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    with own_imports(os.path.dirname(os.path.realpath(main)) if main else "", last=_ROOT):  # noqa: PTH120
        from unvanish.launch.child import watch_child

        watch_child(told, trigger)


def _from_environment() -> Told | None:
    try:
        told = json.loads(os.environ[RUN])
        launch = told.pop("launch")
        return Told(**told, launch=None if launch is None else Launch(**launch))
    except (KeyError, TypeError, ValueError, AttributeError):  # not there, or another version's
        return None
