"""Where the stages meet: probe -> record -> diagnosis -> explanation -> page. Imports no torch until it watches."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import io
import json
import os
import platform
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from unvanish.diagnose.engine import diagnose_run
from unvanish.errors import CaptureError, RecordError, UnvanishWarning, UsageError
from unvanish.explanation.chain import chain_for, most_starved_parameter
from unvanish.family import ATTEMPT, FIRST_STEP, await_children, read_family
from unvanish.present.html import render_html
from unvanish.present.notebook import diagnosis_html, explanation_html, run_html
from unvanish.present.view import build_view
from unvanish.schema.chain import Chain
from unvanish.schema.explanation import Explanation, ScalarPaths
from unvanish.schema.finding import Diagnosis, NotChecked
from unvanish.schema.launch import attempt_of, launch_of, new_run_id
from unvanish.schema.notebook import html_of, show_with
from unvanish.schema.run import Event, Incident, Run, RunInfo, RunStatus, Skipped
from unvanish.schema.treatment import TreatmentResult
from unvanish.store import RunWriter, load_result, save_result
from unvanish.store.children import Place, leave_word, take_words
from unvanish.store.meeting import Meeting, RankPlace

if TYPE_CHECKING:
    import torch

    from unvanish.probe.buffer import Buffer
    from unvanish.probe.engine import Explain, Probe
    from unvanish.probe.trigger import Trigger

__version__ = sys.modules["unvanish"].__version__
DEFAULT_OUT = Path("unvanish_runs")
PAGE_CHAINS = 10  # that a page lets one choose from, for each model
CHAIN_LOOKS = 20_000  # operations that are looked at for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a process is in its run: alone by default.

    `name`: the run's id, where it was chosen before. `place`: where to write, for a process that is not the run's
    first. `meeting`: where other ranks of the same launch look for this run. `in_fork` is called in every process
    that is forked from this one, where nothing is watched any more.
    """

    name: str | None = None
    place: Place | None = None
    meeting: Meeting | None = None
    in_fork: Callable[[], None] | None = None


class Session:
    """One watched run: from the first hook to the diagnosis.

    Making it creates the run's folder `out/<id>` (RecordError when that can't be written), save where its role has a
    place below another's run: that is made at the first optimizer step. `start` places the hooks, `end` takes them
    away and closes the record, `finish` gives the diagnosis of the run, its children's records included.
    """

    def __init__(
        self,
        *,
        out: Path,
        command: tuple[str, ...],
        script: str | None = None,
        seed: int | None = None,
        every: int | None = None,
        stop_after: int | None = None,
        exact: bool = False,
        tell: Callable[[str], None] | None = None,
        role: Role = Role(),
    ) -> None:
        """`every`: trace each so many steps; `stop_after`: end training after so many optimizer steps.

        `exact`: look at every element instead of at samples of large tensors. `tell` shows the user the first
        fault of unvanish, in one line; by default as a warning.
        """
        self._tell = tell or _warn
        self._every = every
        self._exact = exact
        self._stop_after = stop_after
        self._info = _run_info(command, script, seed, role.name)
        self.path = Path(out) / self._info.id
        self._place, self._meeting, self._in_fork = role.place, role.meeting, role.in_fork
        self._writer = RunWriter(self.path, self._info) if self._place is None else None
        if self._meeting is not None:
            self._meeting.announce(self.path)
        self._held: list[Event] = []  # until there is a folder
        self._claimed: Path | None = None
        self._noted = False
        self._stopped = self._ended = False
        self._answers = True
        self._buffer: Buffer | None = None
        self._probe: Probe | None = None
        self._dropped = 0
        self._diagnosis: Diagnosis | None = None
        self._fault: str | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps seen so far."""
        return self._probe.steps if self._probe is not None else 0

    @property
    def said(self) -> str | None:
        """What to tell the user where this process leads a run that is not the whole."""
        return self._place.said if isinstance(self._place, RankPlace) and self._place.leads else None

    def start(
        self,
        only: tuple[torch.nn.Module, Sequence[torch.optim.Optimizer]] | None = None,
        *,
        trigger: Trigger | None = None,
        explain: Explain | None = None,
    ) -> None:
        """Place the hooks. `only`: watch one model and its optimizers instead of all that is trained.

        `trigger`: what has set this off; its step hooks become the probe's. `explain`: as of the probe.
        """
        # torch takes a second to import: not before something is to be watched
        from unvanish.probe.buffer import Buffer  # noqa: PLC0415
        from unvanish.probe.engine import Probe  # noqa: PLC0415

        self._buffer = Buffer(self._write, self._tell)
        self._probe = Probe(
            self._buffer,
            every=self._every,
            stop_after=self._stop_after,
            only=only,
            exact=self._exact,
            explain=explain,
        )
        try:
            self._buffer.start()
            self._probe.attach(trigger)
        except BaseException as error:
            self._buffer.close()
            if self._writer is not None:
                with contextlib.suppress(RecordError):
                    self._writer.close("crashed", f"{type(error).__name__}: {error}")
            raise
        if self._in_fork is not None and hasattr(os, "register_at_fork"):
            _Fork(self, self._buffer, self._in_fork)

    def flush(self) -> None:
        """Write all that waits, now."""
        if self._buffer is not None:
            self._buffer.flush()

    def end(self, status: RunStatus, message: str | None = None) -> None:
        """Remove the hooks and close the record. A process that made no step leaves nothing in another's run."""
        if self._ended:
            return
        self._ended = True
        self._stop()
        if self._answers:  # else the record can't be closed either: its lock is held
            try:
                if self._settled(last=True) and self._held:
                    self._put([], 0)
                if self._writer is not None:
                    self._writer.close(status, message)
            except (RecordError, OSError) as error:
                self._fault = str(error)
        fault = self._fault or (self._buffer.fault if self._buffer is not None else None)
        if fault is not None and self._place is not None and self._place.run is not None:
            leave_word(self._place.run, f"{self._process()} was not recorded: {fault}")
        for leader in (self._meeting, self._place):
            if leader is not None:
                leader.end()

    def _stop(self) -> None:
        """Take the hooks away and write what waits, once."""
        if self._stopped:
            return
        self._stopped = True
        if self._probe is not None:
            self._probe.detach()
        self._answers = self._buffer is None or self._buffer.close()

    def _keep_words(self) -> None:
        """What children could not write themselves."""
        lost = [Skipped(model=None, what="a child process", why=word) for word in take_words(self.path)]
        if lost and self._answers and self._writer is not None:
            with contextlib.suppress(RecordError):
                self._writer.write(lost)

    def finish(self, status: RunStatus, message: str | None = None) -> Diagnosis:
        """End, wait a moment for what other processes of the run still write, and diagnose.

        A second call gives the same diagnosis.
        """
        if self._diagnosis is not None:
            return self._diagnosis
        self._stop()
        if self._place is None:
            await_children(self.path)
            self._keep_words()
        self.end(status, message)
        try:
            self._diagnosis = self.look()
            if self._writer is not None:
                save_result(self.path, "diagnosis.json", to_json(self._diagnosis.to_dict()))
        except Exception as error:  # noqa: BLE001 - the training that was watched is over and well: it must not fail now
            self._diagnosis = self._diagnosis or self._no_diagnosis(error, status)
        return self._diagnosis

    def look(self) -> Diagnosis:
        """The diagnosis of what was recorded so far."""
        return diagnose(self._with_unsaved(self.run()))

    def run(self) -> Run:
        """What was recorded so far, by this process and by its children."""
        self.flush()
        if self._writer is None:  # not one step yet
            return Run(
                info=self._info, path=str(self.path), status="running", ended=None, message=None, models=()
            )
        return load(self.path)

    def _with_unsaved(self, run: Run) -> Run:
        """With what was to be said and could not be written."""
        waiting = self._buffer.unsaved if self._buffer is not None else []
        incidents = [e for e in waiting if isinstance(e, Incident)]
        for said in (self._fault, self._buffer.fault if self._buffer is not None else None):
            if said is not None and not any(said in i.what for i in incidents):
                incidents.append(Incident(step=self.steps, where="record", what=said))
        dropped = self._buffer.dropped - self._dropped if self._buffer is not None else 0
        return replace(
            run,
            incidents=(*run.incidents, *incidents),
            skipped=(*run.skipped, *(e for e in waiting if isinstance(e, Skipped))),
            events_dropped=run.events_dropped + dropped,
        )

    def _no_diagnosis(self, error: Exception, status: RunStatus) -> Diagnosis:
        why = f"{type(error).__name__}: {error}"
        lost = NotChecked(what="the record of this run", why=why, fault=True)
        return Diagnosis(version=__version__, models=(), run=str(self.path), status=status, skipped=(lost,))

    def _write(self, events: list[Event]) -> None:
        dropped = self._buffer.dropped if self._buffer is not None else 0
        if not self._settled():
            self._held += events
            return
        self._put(events, dropped - self._dropped)
        self._dropped = dropped

    def _put(self, events: list[Event], dropped: int) -> None:
        if self._writer is None:
            return
        held, self._held = self._held, []
        self._writer.write([*held, *events], dropped=dropped)
        if self.steps and not self._noted:
            self._noted = True
            began = self._probe.began if self._probe is not None else time.time()
            self._writer.note(FIRST_STEP, str(began))
            self._writer.note(ATTEMPT, str(attempt_of(os.environ)))

    def _process(self) -> str:
        """How the folder of this process is called."""
        rank = self._probe.rank if self._probe is not None else None
        return f"process{self._info.pid}" if rank is None else f"rank{rank}"

    def _settled(self, *, last: bool = False) -> bool:
        """Whether there is a record to write into, made now if it is time for it. `last`: it is, or never."""
        if self._writer is not None or self._place is None:
            return self._writer is not None
        if not self.steps or self._fault is not None:
            return False
        folder = self._claimed = self._claimed or self._place.find(self._process(), last=last)
        if folder is None:
            return False
        self._writer = RunWriter(folder, self._info)
        self.path = folder
        if self._place.said is not None:
            self._held.append(Skipped(model=None, what="ranks of other machines", why=self._place.said))
        return True


class _Fork:
    """What happens around a fork: the writer's thread holds no lock then, and the child is told once."""

    def __init__(self, session: Session, buffer: Buffer, in_child: Callable[[], None]) -> None:
        # python never forgets a function that was registered for forks
        self._session, self._buffer = weakref.ref(session), weakref.ref(buffer)
        self._in_child: Callable[[], None] | None = in_child
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._child)

    def _before(self) -> None:
        buffer = self._buffer()
        if buffer is not None and self._in_child is not None:
            buffer.hold()

    def _after(self) -> None:
        buffer = self._buffer()
        if buffer is not None and self._in_child is not None:
            buffer.go_on()

    def _child(self) -> None:
        session, in_child = self._session(), self._in_child
        self._in_child = None  # a fork of the fork is the business of the child's own session
        if session is not None and in_child is not None and not session._ended:
            with contextlib.suppress(Exception):
                in_child()


class Watch:
    """What `unvanish.watch` gives: a context manager around the training loop."""

    def __init__(
        self, session: Session, only: tuple[torch.nn.Module, Sequence[torch.optim.Optimizer]]
    ) -> None:
        """Starts to watch at once, so that it also works without `with` (then call `close`)."""
        self._session = session
        session.start(only)

    @property
    def path(self) -> Path:
        """The run's folder; of a rank that is not the first: its own below that, from its first steps on."""
        return self._session.path

    def __enter__(self) -> Watch:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the record; what was raised goes on its way."""
        if kind is None:
            self.close()
        elif issubclass(kind, KeyboardInterrupt):
            self.close("interrupted", "KeyboardInterrupt")
        else:
            self.close("crashed", f"{kind.__name__}: {error}")

    def close(self, status: RunStatus = "finished", message: str | None = None) -> Diagnosis:
        """End the watching; hooks are gone after this."""
        return self._session.finish(status, message)

    def diagnose(self) -> Diagnosis:
        """The verdict on what was seen so far; works during training and after it."""
        return self._session._diagnosis or self._session.look()

    def run(self) -> Run:
        """The record so far."""
        return self._session.run()

    def _repr_html_(self) -> str | None:
        """For notebooks: the page of what was recorded so far."""
        return html_of(self.run())

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page of this run; gives its path."""
        self._session.flush()
        return write_report(self.path, Path(path) if path is not None else None)


def watch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    out: str | Path = DEFAULT_OUT,
    every: int | None = None,
    exact: bool = False,
) -> Watch:
    """Watch a model while its optimizer trains it: ``with unvanish.watch(model, optimizer) as w: ...``.

    Training stays bit-identical. Misuse raises here and at once (UsageError, CaptureError, RecordError), nothing
    is raised into the loop later. `every` traces each so many steps instead of the log-spaced schedule.
    `exact` looks at every element: large tensors are sampled otherwise (256 elements of each parameter at every step,
    4,096 of each signal at a traced one), and exactness costs time and memory.
    """
    optimizers: list[torch.optim.Optimizer] = (
        list(optimizer) if isinstance(optimizer, list | tuple) else [cast("torch.optim.Optimizer", optimizer)]
    )
    _check_watch(model, optimizers)
    meeting = _meeting(Path(out))
    other = meeting is not None and meeting.launch.rank > 0
    session = Session(
        out=Path(out),
        command=tuple(sys.argv),
        script=sys.argv[0] or None,
        every=every,
        exact=exact,
        role=Role(
            place=RankPlace(meeting) if meeting is not None and other else None,
            meeting=None if other else meeting,
        ),
    )
    return Watch(session, (model, optimizers))


def _meeting(out: Path) -> Meeting | None:
    """Where the ranks of this process's launch find each other; None: it trains alone."""
    distributed = sys.modules.get("torch.distributed")
    environment = dict(os.environ)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        environment["RANK"] = str(distributed.get_rank())
        environment["WORLD_SIZE"] = str(distributed.get_world_size())
    launch = launch_of(environment)
    return None if launch is None else Meeting(out, launch)


def check_model(model: object) -> None:
    """UsageError where it is no nn.Module."""
    if isinstance(model, type):
        raise UsageError(f"received the class {model.__name__}, not a model", "instantiate it first")
    if not hasattr(model, "named_parameters"):
        raise UsageError(
            f"received a {type(model).__name__}, not an nn.Module", "pass the model that is trained"
        )


def _check_watch(model: torch.nn.Module, optimizers: Sequence[object]) -> None:
    check_model(model)
    for optimizer in optimizers:
        if isinstance(optimizer, type) or not hasattr(optimizer, "param_groups"):
            raise UsageError(
                f"received {optimizer!r:.60} as the optimizer",
                "pass a torch.optim.Optimizer, or a list of them",
            )
    parameters = {id(p) for _, p in model.named_parameters()}
    if not parameters:
        raise CaptureError(
            "the model has no parameters", "there is nothing to train in it; pass the trained model"
        )
    stepped = {id(p) for o in optimizers for g in o.param_groups for p in g["params"]}  # type: ignore[attr-defined]
    if not parameters & stepped:
        raise CaptureError(
            "the optimizer holds none of the model's parameters",
            "build it from model.parameters() of this very model, after moving it to its device",
        )


def load(path: str | Path) -> Run:
    """Read a run from its folder, with what its other processes recorded: ranks are merged."""
    return read_family(path)


def diagnose(run: Run) -> Diagnosis:
    """The verdict on a run."""
    return diagnose_run(run, version=__version__)


def chains(run: Run, model: str | None = None, parameter: str | None = None) -> tuple[Chain, ...]:
    """The product of factors of each model (or one) to `parameter`; default the most starved weight.

    Models without a traced step have none. UsageError for a name that is not there.
    """
    names = [m.info.name for m in run.models]
    if model is not None and model not in names:
        raise UsageError(f"the run has no model {model!r}", f"its models are: {', '.join(names)}")
    found: list[Chain] = []
    known: list[str] = []
    for one in run.models:
        if model is not None and one.info.name != model:
            continue
        known += [p.name for p in one.info.parameters]
        if parameter is not None and parameter not in known:
            continue
        chain = chain_for(one, parameter or most_starved_parameter(one))
        if chain is not None:
            found.append(chain)
    if parameter is not None and parameter not in known:
        raise unknown_parameter(parameter, known, "no model of the run has a")
    return tuple(found)


def explain(
    model: torch.nn.Module,
    batch: Any,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    *,
    parameter: str | None = None,
    index: int | Sequence[int] | None = None,
    paths: int = 5,
) -> Explanation:
    """The product of factors from the loss to a parameter, of a model as it is now: ``print(unvanish.explain(...))``.

    One forward and one backward pass are made; gradients, buffers and random states stay as they are. `batch` is a
    pair (inputs, targets) for ``loss_fn(model(inputs), targets)``; inputs that are a tuple or a dict are the model's
    arguments. Without a loss_fn `batch` is what the model is called with, and the gradient is that of a random
    direction at its output. `parameter`: by default the most starved weight. `index`: one weight of it, whose
    gradient is followed along all paths through the units of the net, in float64; the strongest `paths` are listed.

    Raises:
        UsageError: what was given can't be called, or there is no such parameter or index.
    """
    from unvanish.paths.scalar import follow_model  # noqa: PLC0415 - torch, as above
    from unvanish.probe.once import trace_once  # noqa: PLC0415

    check_model(model)
    known = dict(model.named_parameters())
    if parameter is not None and parameter not in known:
        raise unknown_parameter(parameter, list(known), "the model has no")
    made = trace_once(model, batch, loss_fn)
    name = parameter or most_starved_parameter(made)
    chain = chain_for(made, name)
    if chain is None or name is None:
        frozen = name is not None and not known[name].requires_grad
        raise UsageError(
            f"no gradient reaches {name or 'any parameter'}",
            "it is frozen (requires_grad is False)"
            if frozen
            else "the loss does not depend on it: look for detach(), no_grad(), or a layer that forward() leaves out",
        )
    scalar = None
    if index is not None:
        place = weight_index(name, tuple(known[name].shape), index)
        scalar = follow_model(model, batch, loss_fn, name, place, paths)
    return as_explanation((chain,), scalar)


def as_explanation(
    found: Sequence[Chain], scalar: ScalarPaths | None = None, run: str | None = None
) -> Explanation:
    """The answer, with the text that it prints as."""
    from rich.console import Console  # noqa: PLC0415 - only where there is something to print

    from unvanish.present.chain_text import print_explanation  # noqa: PLC0415

    explanation = Explanation(chains=tuple(found), scalar=scalar, run=run)
    stream = io.StringIO()
    print_explanation(explanation, Console(file=stream, force_terminal=False, color_system=None))
    return replace(explanation, text=stream.getvalue().rstrip("\n"))


def weight_index(name: str, shape: tuple[int, ...], index: int | Sequence[int]) -> tuple[int, ...]:
    """The index as a tuple of a weight that is there, counted from 0; UsageError where it is none."""
    given = (index,) if isinstance(index, int) else tuple(index)
    like = ",".join(str(max(0, n - 1)) for n in shape)
    if len(given) != len(shape):
        raise UsageError(
            f"{name} has the shape {list(shape)}, and the index {','.join(map(str, given))} has {len(given)} numbers",
            f"give {len(shape)} of them, from {','.join('0' for _ in shape)} to {like}"
            if shape
            else "give none",
        )
    if not all(-n <= i < n for i, n in zip(given, shape, strict=True)):
        raise UsageError(
            f"the index {','.join(map(str, given))} lies outside of {name}, which has the shape {list(shape)}",
            f"count from 0: the last one is {like}",
        )
    return tuple(i % n for i, n in zip(given, shape, strict=True))


def unknown_parameter(name: str, known: Sequence[str], said: str) -> UsageError:
    """The error for a name that is not there, with those that are like it."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    near += [k for k in known if name in k and k not in near][: 3 - len(near)]
    there = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    mend = f"did you mean {' or '.join(near)}?" if near else f"there are: {there}"
    return UsageError(f"{said} parameter {name!r}", mend)


def write_report(path: str | Path, out: Path | None = None) -> Path:
    """One self-contained HTML page of a run; by default `report.html` in the run's folder. Gives its path."""
    run = load(path)
    page = render_html(page_view(run))
    if out is None:
        return save_result(_folder_of(run), "report.html", page)
    return save_result(out.parent, out.name, page)


def page_view(run: str | Path | Run, treatment: TreatmentResult | None = None) -> dict[str, Any]:
    """All that the page of a run shows (present.view.build_view), with the chains that it lets one choose from.

    `treatment`: by default the one that is kept with the run, if there is one.
    """
    run = run if isinstance(run, Run) else load(run)
    return build_view(run, diagnose(run), page_chains(run), treatment or load_treatment(_folder_of(run)))


def page_chains(run: Run) -> tuple[Chain, ...]:
    """The product of factors down to the most starved weight of each model, and to some others over its depth.

    A model of thousands of operations has fewer of them, as each is followed through its whole graph.
    """
    found: list[Chain] = []
    for model in run.models:
        first = most_starved_parameter(model)
        if first is None:
            continue
        chain = chain_for(model, first)
        found += [chain] if chain is not None else []
        early = replace(
            model, traces=model.traces[:1]
        )  # looks at one trace are enough where it reaches everything
        largest = max((len(g.operations) for g in early.graphs.values()), default=1)
        limit = max(min(CHAIN_LOOKS // largest, PAGE_CHAINS), 1)
        weights = [p.name for p in model.info.parameters if len(p.shape) > 1 and p.name != first]
        count = min(limit - 1, len(weights))
        others = [weights[round(i * (len(weights) - 1) / max(count - 1, 1))] for i in range(count)]
        for name in dict.fromkeys(others):
            chain = chain_for(early, name)
            found += [chain] if chain is not None else []
    return tuple(found)


def _run_html(run: Run) -> str:
    view = page_view(run)
    return run_html(view, render_html(view))


show_with(Run, _run_html)
show_with(Diagnosis, diagnosis_html)
show_with(Explanation, explanation_html)


def _folder_of(run: Run) -> Path:
    return Path(run.path) if Path(run.path).is_dir() else Path(run.path).parent


def load_treatment(folder: str | Path) -> TreatmentResult | None:
    """The trials kept with a run, or None where there are none. RecordError when the file is not ours."""
    stored = load_result(folder, "treatment.json")
    if stored is None:
        return None
    try:
        return TreatmentResult.from_dict(json.loads(stored))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{Path(folder) / 'treatment.json'} is not a treatment result ({error})",
            "delete it and try again",
        ) from error


def to_json(data: object) -> str:
    """JSON as all commands write it: indented, strict numbers, a final newline."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _warn(text: str) -> None:
    warnings.warn(text, UnvanishWarning, stacklevel=2)


def _run_info(command: tuple[str, ...], script: str | None, seed: int | None, name: str | None) -> RunInfo:
    now = datetime.now(timezone.utc)
    return RunInfo(
        id=name or new_run_id(script, now),
        created=now.isoformat(timespec="seconds"),
        command=command,
        script=script,
        seed=seed,
        versions={
            "unvanish": __version__,
            "torch": _version("torch"),
            "python": platform.python_version(),
        },
        device=platform.machine(),
        pid=os.getpid(),
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
