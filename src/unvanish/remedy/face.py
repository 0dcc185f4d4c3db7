"""`unvanish.treat`: the same from Python, with what came of it as an object."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from unvanish import session
from unvanish.errors import UsageError
from unvanish.launch.factory import load_factory
from unvanish.launch.target import FACTORY
from unvanish.present.notebook import treatment_html
from unvanish.present.text import print_diagnosis, print_treatment
from unvanish.remedy.options import Options
from unvanish.remedy.treating import Treated, treat_target
from unvanish.schema.finding import Diagnosis
from unvanish.schema.treatment import TreatmentResult
from unvanish.treatment.recipe import apply_recipe
from unvanish.verify.trial import Target

PRACTICE = "unvanish.launch.practice"
Experiment = str | Path | Callable[[], Any]


class Treatment:
    """What came of a treatment. Prints well; `result` holds the contract's object (`result.to_dict()`)."""

    def __init__(self, treated: Treated, factory: str | None) -> None:
        """`factory`: FILE.py:FACTORY, where the model can be built anew."""
        self._treated = treated
        self._factory = factory

    @property
    def result(self) -> TreatmentResult:
        """All trials, and what was chosen."""
        return self._treated.result

    @property
    def diagnosis(self) -> Diagnosis:
        """Of the untreated script."""
        return self._treated.diagnosis

    @property
    def path(self) -> Path:
        """The folder of the run that all of it is kept with."""
        return self._treated.run

    @property
    def recipe(self) -> Path | None:
        """The file for `unvanish.apply` and `unvanish run --recipe`; None where nothing was chosen."""
        return None if self.result.recipe is None else Path(self.result.recipe)

    @property
    def diff(self) -> Path | None:
        """The source patch, None where there is none."""
        return None if self.result.diff is None else Path(self.result.diff)

    @cached_property
    def model(self) -> nn.Module | None:
        """The model, built by the factory and treated; None where nothing was chosen or a script builds it."""
        if self._factory is None or self.recipe is None:
            return None
        return apply_recipe(load_factory(self._factory).model, self.recipe)

    def __str__(self) -> str:
        """As the command line tells it."""
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=False, color_system=None, width=120)
        print_diagnosis(self.diagnosis, session.chains(session.load(self.path)), console)
        console.print()
        print_treatment(self.result, console)
        return stream.getvalue()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For notebooks."""
        return treatment_html(self.diagnosis, self.result)


def treat(  # noqa: PLR0913 - all that the command line takes, by name
    experiment: Experiment,
    *,
    arguments: Sequence[str] = (),
    out: str | Path = session.DEFAULT_OUT,
    steps: int | None = None,
    seed: int | None = None,
    trial_steps: int | None = None,
    seeds: int = 5,
    budget: float | None = None,
    engine: str = "local",
    only: Sequence[str] = (),
    allow_unsafe: bool = False,
    recipe: str | Path | None = None,
    diff: str | Path | None = None,
) -> Treatment:
    """Find a cure and verify it in paired trials, each in a process of its own.

    `experiment`: a training script (it is run with `arguments`, and not changed), "FILE.py:FACTORY", or such a
    factory itself: a function of a file, without arguments, that gives (model, batch, loss_fn). `budget`: seconds.
    `seeds`: paired seeds of the test; `trial_steps`: optimizer steps of a trial at most. The rest as on the command
    line (docs/treat.md).

    Raises:
        UsageError: no experiment that other processes can run. ScriptError: it trains nothing.
    """
    target, factory = _target(experiment, tuple(arguments))
    options = Options(
        out=Path(out).absolute(),
        steps=steps,
        seed=seed,
        trial_steps=trial_steps,
        seeds=seeds,
        budget=budget,
        engine=engine,
        only=tuple(only),
        allow_unsafe=allow_unsafe,
        recipe=None if recipe is None else Path(recipe).absolute(),
        diff=None if diff is None else Path(diff).absolute(),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    return Treatment(treat_target(target, options, lambda _what, _share, _left: None), factory)


def target_of_factory(spec: str) -> Target:
    """A script that trains what a factory builds.

    Raises:
        UsageError: there is no such file.
    """
    path, _, name = spec.rpartition(":")
    if not Path(path).is_file():
        raise UsageError(f"there is no file {path}", "check the path before the colon")
    whole = f"{Path(path).absolute()}:{name}"
    return Target(program=PRACTICE, arguments=(whole,), directory=str(Path.cwd()), is_module=True)


def _target(experiment: Experiment, arguments: tuple[str, ...]) -> tuple[Target, str | None]:
    if callable(experiment):
        experiment = _spec_of(experiment)
    if not isinstance(experiment, str | Path):
        raise UsageError(
            f"received a {type(experiment).__name__} as the experiment", "pass a script's path or a factory"
        )
    name = str(experiment)
    if FACTORY.match(name):
        target = target_of_factory(name)
        return target, target.arguments[0]
    if not Path(name).is_file():
        raise UsageError(f"there is no script {name}", "check the path")
    return Target(program=name, arguments=arguments, directory=str(Path.cwd())), None


def _spec_of(factory: Callable[[], Any]) -> str:
    if isinstance(factory, nn.Module):
        raise UsageError(
            "received a model: the trials train it anew in other processes",
            "pass a function of a file that builds it: returns (model, batch, loss_fn)",
        )
    name = getattr(factory, "__qualname__", "")
    try:
        file = inspect.getsourcefile(factory)
    except TypeError:
        file = None
    if not file or not Path(file).is_file() or "<" in name:
        raise UsageError(
            "other processes can't import this factory", "define it at the top level of a .py file"
        )
    return f"{file}:{name}"
