"""The reading side of the record: a file in, the nouns of schema.run out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from unvanish.errors import RecordError
from unvanish.schema.run import (
    Incident,
    ModelInfo,
    OptimizerInfo,
    ParameterInfo,
    Run,
    RunInfo,
    RunStatus,
    Shard,
    Skipped,
)
from unvanish.store.alive import writer_alive
from unvanish.store.encode import RANK, RANKS, Row, untext
from unvanish.store.layout import FILE_NAME, columns, present, select_statement
from unvanish.store.open import reading, record_file, wal_file
from unvanish.store.read_model import Wanted, read_model


def read_run(
    path: str | Path,
    *,
    steps: tuple[int, int] | None = None,
    rows: int | None = None,
    traces: bool = True,
) -> Run:
    """The run in a folder (or the file inside of it), as far as it is written. Never blocks the writer.

    `steps` = (first, last) reads only that window of steps, both included; infos, graphs and findings about
    the run are read whole. `rows`: no more than so many rows of the parameters' statistics: where there are more,
    all but those at both ends are merged (mean, smallest, largest). `traces=False` leaves out graphs and traces:
    where there are thousands of operations, most of the time goes into them.
    Raises RecordError, with the mend, for a path that is missing, foreign or damaged.
    """
    wanted = Wanted(steps=steps, rows=None if rows is None else max(1, rows), traces=traces)
    file = record_file(path)
    with reading(file) as connection:
        info, end = _run_row(connection, file)
        extra = {untext(key): untext(value) for key, value in _rows(connection, "extra", order="rowid")}
        if RANK in extra:
            info = replace(info, rank=int(extra.pop(RANK)), ranks=int(extra.pop(RANKS)))
        models = tuple(read_model(connection, m, wanted) for m in _models(connection))
        incidents = tuple(
            Incident(step=step, where=untext(where), what=untext(what))
            for step, where, what in _rows(connection, "incidents", order="rowid")
        )
        skipped = tuple(
            Skipped(model=model, what=untext(what), why=untext(why))
            for model, what, why in _rows(connection, "skipped", order="rowid")
        )
    return Run(
        info=info,
        path=str(file.parent),
        status=end["status"],
        ended=end["ended"],
        message=end["message"],
        models=models,
        incidents=incidents,
        skipped=skipped,
        events_dropped=end["events_dropped"],
        extra=extra,
    )


def list_runs(folder: str | Path) -> list[tuple[Path, RunInfo, RunStatus]]:
    """The runs in a folder of runs, the oldest first; what can't be read is left out.

    Raises RecordError when there is no such folder.
    """
    base = Path(folder)
    if not base.is_dir():
        raise RecordError(f"there is no folder {base}", "name the one that runs were kept in, with --out")
    found = []
    for file in base.glob(f"*/{FILE_NAME}"):
        try:
            with reading(file) as connection:
                info, end = _run_row(connection, file)
        except RecordError:
            continue
        found.append((file.parent, info, end["status"]))
    return sorted(found, key=lambda run: (run[1].created, str(run[0])))


def run_heads(folders: Iterable[Path]) -> list[tuple[dict[str, str], RunStatus]]:
    """Of each record: its notes (Run.extra) and its status, and nothing else. What can't be read is left out."""
    heads = []
    for folder in folders:
        try:
            with reading(record_file(folder)) as connection:
                _, end = _run_row(connection, record_file(folder))
                notes = {untext(key): untext(value) for key, value in _rows(connection, "extra")}
        except RecordError:
            continue
        heads.append((notes, end["status"]))
    return heads


def _rows(connection: sqlite3.Connection, table: str, where: str = "", order: str = "") -> Iterator[Row]:
    """All columns of layout.TABLES; NULL for those that a record of an older format does not have."""
    there = present(connection, table)
    names = tuple(name if name in there else f"NULL AS {name}" for name in columns(table))
    return cast("Iterator[Row]", connection.execute(select_statement(table, where, order, names)))


def _run_row(connection: sqlite3.Connection, file: Path) -> tuple[RunInfo, dict[str, Any]]:
    row = next(_rows(connection, "run"), None)
    if row is None:
        raise RecordError(f"{file} holds no run", "run the script again")
    identity, created, command, script, seed, versions, device, pid, host, started = row[:10]
    status, ended, message, dropped = row[10:]
    if status is None:
        alive = writer_alive(pid, host, started, (file, wal_file(file)))
        status = "running" if alive else "cut_off"
    info = RunInfo(
        id=untext(identity),
        created=untext(created),
        command=tuple(json.loads(command)),
        script=untext(script),
        seed=None if seed is None else int(seed),
        versions=json.loads(versions),
        device=untext(device),
        pid=pid,
    )
    return info, {"status": status, "ended": ended, "message": untext(message), "events_dropped": dropped}


def _models(connection: sqlite3.Connection) -> list[ModelInfo]:
    parameters: dict[int, list[ParameterInfo]] = {}
    for model, index, name, shape, dtype, requires_grad, optimizer, sampled, shard in _rows(
        connection, "parameters", order="rowid"
    ):
        info = ParameterInfo(
            index=index,
            name=untext(name),
            shape=tuple(json.loads(shape)),
            dtype=untext(dtype),
            requires_grad=bool(requires_grad),
            optimizer=optimizer,
            sampled=sampled,
            shard=None if shard is None else Shard(**json.loads(shard)),
        )
        parameters.setdefault(model, []).append(info)
    optimizers: dict[int, list[OptimizerInfo]] = {}
    for model, index, class_name, rates, options in _rows(connection, "optimizers", order="rowid"):
        optimizer_info = OptimizerInfo(
            index=index,
            class_name=untext(class_name),
            learning_rates=tuple(json.loads(rates)),
            options=json.loads(options),
        )
        optimizers.setdefault(model, []).append(optimizer_info)
    return [
        ModelInfo(
            index=model,
            name=untext(name),
            class_name=untext(class_name),
            parameters=tuple(parameters.get(model, ())),
            optimizers=tuple(optimizers.get(model, ())),
            training_modules=training_modules,
        )
        for model, name, class_name, training_modules in _rows(connection, "models", order="model")
    ]
