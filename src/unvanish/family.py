"""The processes of one run, read as one: ranks of a training are merged, other models stand side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unvanish.errors import RecordError
from unvanish.schema.run import ModelRun, Run, Skipped
from unvanish.store import child_folders, merge_ranks, read_run, run_heads
from unvanish.store.children import CHILDREN
from unvanish.store.encode import RANKS
from unvanish.store.layout import FILE_NAME
from unvanish.store.merge import renumbered

ATTEMPT, FIRST_STEP = "unvanish.attempt", "unvanish.first_step"  # keys of Run.extra
LAST_WRITES_SECONDS = 2.0  # so long the first process waits for what the others write at their end
_POLL_SECONDS = 0.02


def read_family(path: str | Path) -> Run:
    """The run in a folder, with all that its other processes recorded. RecordError as `read_run` has it."""
    given = Path(path)
    folder = given.parent if given.is_file() else given
    children, unread = [], []
    for child in child_folders(folder):
        try:
            children.append(read_run(child))
        except RecordError as error:
            unread.append(Skipped(model=None, what=f"what {child.name} recorded", why=str(error)))
    if children and not (folder / FILE_NAME).exists():
        first = min(children, key=_began)  # the process that should have made the folder was killed before
        own = replace(
            first, path=str(folder), models=(), incidents=(), skipped=(), status="cut_off", extra={}
        )
        own = replace(own, info=replace(own.info, id=folder.name))
    else:
        own = read_run(path)
    alone = not children and (own.info.ranks == 1 or folder.parent.name == CHILDREN)
    run = own if alone else combine(own, children)
    return replace(run, skipped=(*run.skipped, *unread))


def combine(own: Run, children: Sequence[Run]) -> Run:
    """One run of a process and its children.

    Ranks of one training are merged. Models of the other processes are kept apart, by name. Where a launcher has
    started all ranks anew, the newest attempt counts.
    """
    newest = max((_attempt(run) for run in children), default=0)
    late = [run for run in children if _attempt(run) == newest]
    parts = _parts([own, *late] if own.models else late)
    models: list[ModelRun] = []
    incidents = [] if own.models else list(own.incidents)
    skipped = [] if own.models else list(own.skipped)
    for part, label in zip(parts, _labels(parts, own), strict=True):
        run = merge_ranks(part.runs) if part.is_training else part.runs[0]
        skipped += [s if s.model is None else replace(s, model=s.model + len(models)) for s in run.skipped]
        for end in _endings(part, own, label):
            skipped += [replace(end, model=model.info.index + len(models)) for model in run.models]
        incidents += run.incidents
        models += [_moved(model, len(models), label) for model in run.models]
    skipped += _earlier(children, newest)
    return replace(
        own,
        models=tuple(models),
        incidents=tuple(incidents),
        skipped=tuple(dict.fromkeys(skipped)),
        events_dropped=own.events_dropped + sum(run.events_dropped for run in late),
    )


def await_children(run: Path, seconds: float = LAST_WRITES_SECONDS) -> None:
    """Wait until all other processes of a run have written their end, or are gone; not for long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not _all_ended(run):
        time.sleep(_POLL_SECONDS)


def _all_ended(run: Path) -> bool:
    heads = run_heads([run, *child_folders(run)])
    if any(status == "running" for _, status in heads):
        return False
    ranks = [(int(notes.get(ATTEMPT, 0)), int(notes[RANKS])) for notes, _ in heads if RANKS in notes]
    newest = max((attempt for attempt, _ in ranks), default=0)
    late = [expected for attempt, expected in ranks if attempt == newest]
    return len(late) >= max(late, default=0)


@dataclass(frozen=True, slots=True)
class _Part:
    """Runs whose models are one: the ranks of a training, or one process."""

    runs: list[Run]
    ranks: int

    @property
    def is_training(self) -> bool:
        """Whether it is a training of several ranks."""
        return self.ranks > 1


def _labels(parts: Sequence[_Part], own: Run) -> list[str | None]:
    """What stands behind the names of each part's models, where they would not be told apart otherwise."""
    labels: list[str | None] = []
    others = trainings = 0
    for part in parts:
        trainings += part.is_training
        if own in part.runs or len(parts) == 1:
            labels.append(None)
        elif part.is_training:
            labels.append(None if trainings == 1 else f"{part.ranks} ranks, training {trainings}")
        else:
            others += 1
            labels.append(f"process {others}")
    return labels


def _parts(runs: Sequence[Run]) -> list[_Part]:
    """In the order in which they began to train. A rank that is there already begins another training."""
    parts: list[_Part] = []
    for run in sorted(runs, key=_began):
        rank, ranks = _rank(run)
        mine = next((p for p in reversed(parts) if ranks > 1 and p.ranks == ranks), None)
        if mine is None or rank in {_rank(other)[0] for other in mine.runs}:
            parts.append(_Part([run], ranks))
        else:
            mine.runs.append(run)
    for part in parts:
        part.runs.sort(key=lambda run: _rank(run)[0] or 0)
    return parts


def _moved(model: ModelRun, by: int, label: str | None) -> ModelRun:
    """The same model with another number and name."""
    moved = renumbered(model, model.info.index + by)
    if label is None:
        return moved
    return replace(moved, info=replace(moved.info, name=f"{moved.info.name} ({label})"))


def _endings(part: _Part, own: Run, label: str | None) -> list[Skipped]:
    """Which of these processes did not come to their end."""
    said = []
    for run in part.runs:
        if run is own:
            continue
        who = f"rank {_rank(run)[0]}" if part.is_training else label or f"process {run.info.pid}"
        steps = max((len(model.steps) for model in run.models), default=0)
        if run.status == "cut_off":
            said.append(Skipped(model=None, what=who, why=f"cut off after {steps} recorded steps"))
        elif run.status == "running" and own.ended is not None:
            said.append(Skipped(model=None, what=who, why=f"still running, at step {steps}"))
        elif run.status == "crashed":
            said.append(Skipped(model=None, what=who, why=f"crashed: {run.message}"))
    return said


def _earlier(children: Sequence[Run], newest: int) -> list[Skipped]:
    early = [run for run in children if _attempt(run) < newest]
    if not early:
        return []
    folders = ", ".join(sorted(Path(run.path).name for run in early))
    why = f"the launcher started the processes anew {newest}x; what they recorded before is in children/: {folders}"
    return [Skipped(model=None, what="earlier attempts", why=why)]


def _rank(run: Run) -> tuple[int | None, int]:
    """(rank, number of ranks) of the process that wrote it."""
    return (run.info.rank, run.info.ranks) if run.info.ranks > 1 else (None, 1)


def _attempt(run: Run) -> int:
    return int(run.extra.get(ATTEMPT, 0))


def _began(run: Run) -> tuple[float, str]:
    return float(run.extra.get(FIRST_STEP, "inf")), run.path
