"""Which form should a run's record have? The same stream of events into four of them, measured side by side.

    python benchmarks/record_format.py [--steps 2000]

blocks   unvanish.store as it is used: SQLite in WAL mode, a commit per write, the steps of a write in one block
rows     the same with a row of its own for every step and parameter
arrow    Arrow IPC streams, one file a table, a record batch per write
parquet  one Parquet file a table and write (a Parquet file has its footer last: a single one can't be read
         before it is closed, nor after a kill)

Written, in batches of 50 steps: 40 and 400 parameters x 9 statistics at every step, 40 traces of 3 operations
a parameter. Taken: writing, size, reading whole and a window of 50 steps, what is there while another process
writes, and after kill -9. Figures of 2 cores under Linux stand in docs/run-record.md.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unvanish.errors import RecordError
from unvanish.schema.graph import OperationStats, Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    BlockEvent,
    Event,
    ModelEvent,
    ModelInfo,
    ParameterInfo,
    RunInfo,
    StepEvent,
    TraceEvent,
)
from unvanish.store import RunWriter, read_run
from unvanish.store.encode import encode
from unvanish.store.layout import columns

STEPS_A_WRITE = 50
TABLES = ("steps", "parameter_stats", "traces", "trace_operations", "trace_edges")
NAMES = ("blocks", "rows", "arrow", "parquet")


class Writer(Protocol):
    """What all of them can do."""

    def write(self, events: Sequence[Event]) -> None:
        """Keep these."""

    def end(self) -> None:
        """Close the files."""


class Rows:
    """The store, given one step at a time."""

    def __init__(self, folder: Path) -> None:
        info = RunInfo(
            id="b", created="", command=(), script=None, seed=None, versions={}, device="cpu", pid=os.getpid()
        )
        self.writer = RunWriter(folder, info)

    def write(self, events: Sequence[Event]) -> None:
        """One transaction."""
        self.writer.write(events)

    def end(self) -> None:
        """Leave one file."""
        self.writer.close("finished")


class Blocks(Rows):
    """The store as the probe uses it."""

    def write(self, events: Sequence[Event]) -> None:
        """One transaction."""
        self.writer.write(packed(events))


class Arrow:
    """One growing stream file per table; the rows are the store's own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.open: dict[str, tuple[pa.OSFile, pa.RecordBatchStreamWriter]] = {}
        self.writes = self.next_trace = 0

    def write(self, events: Sequence[Event]) -> None:
        """A record batch per table."""
        batch = encode(events, self.next_trace)
        self.next_trace = batch.next_trace
        for table, rows in batch.rows.items():
            if table in TABLES and rows:
                made = pa.table(dict(zip(columns(table), map(list, zip(*rows, strict=True)), strict=True)))
                self.keep(table, made)
        self.writes += 1

    def keep(self, table: str, rows: pa.Table) -> None:
        """Append."""
        if table not in self.open:
            sink = pa.OSFile(str(self.folder / f"{table}.arrows"), "wb")
            self.open[table] = sink, pa.ipc.new_stream(sink, rows.schema)
        sink, stream = self.open[table]
        stream.write_table(rows)
        sink.flush()

    def end(self) -> None:
        """Write the streams' ends."""
        for sink, stream in self.open.values():
            stream.close()
            sink.close()


class Parquet(Arrow):
    """A file of its own for every table of every write, renamed into place when it is whole."""

    def keep(self, table: str, rows: pa.Table) -> None:
        """Write a new file."""
        part = self.folder / f"{table}-{self.writes:06}.parquet"
        pq.write_table(rows, part.with_suffix(".part"))
        part.with_suffix(".part").rename(part)


MAKE: dict[str, type[Rows | Arrow]] = {"blocks": Blocks, "rows": Rows, "arrow": Arrow, "parquet": Parquet}


def packed(events: Sequence[Event]) -> list[Event]:
    """The same with all single steps in one block."""
    steps = [e for e in events if isinstance(e, StepEvent)]
    others: list[Event] = [e for e in events if not isinstance(e, StepEvent)]
    if not steps:
        return others
    columns = [zip(*(e.rows or ()), strict=True) for e in steps]
    block = BlockEvent(
        model=0,
        steps=array("q", [e.step for e in steps]),
        seconds=array("d", [e.seconds for e in steps]),
        losses=array("d", [e.loss or 0.0 for e in steps]),
        clips=array("d", [1.0] * len(steps)),
        learning_rates=array("d", [0.1] * len(steps)),
        measured=array("q", [e.step for e in steps]),
        stats=array("f", [v for table in columns for column in table for v in column]),
    )
    return [*others, block]


def read(name: str, folder: Path, window: tuple[int, int] | None = None) -> int:
    """Read everything (or a window of steps) into columns; gives the number of steps."""
    if name in ("blocks", "rows"):
        models = read_run(folder, steps=window).models
        return len(models[0].parameter_steps) if models else 0
    count = 0
    for table in TABLES:
        rows = _parquet(folder, table, window) if name == "parquet" else _arrow(folder, table, window)
        if table == "steps":
            count = rows
    return count


def _parquet(folder: Path, table: str, window: tuple[int, int] | None) -> int:
    parts = sorted(str(p) for p in folder.glob(f"{table}-*.parquet"))
    if not parts:
        return 0
    inside = window and "step" in columns(table)
    filters = [("step", ">=", window[0]), ("step", "<=", window[1])] if inside and window else None
    return _to_columns(pq.read_table(parts, filters=filters))


def _arrow(folder: Path, table: str, window: tuple[int, int] | None) -> int:
    file = folder / f"{table}.arrows"
    if not file.exists() or not file.stat().st_size:
        return 0
    rows = 0
    with pa.OSFile(str(file), "rb") as source, pa.ipc.open_stream(source) as stream:
        while True:
            try:
                batch = stream.read_next_batch()
            except (StopIteration, pa.ArrowInvalid, OSError):  # the end, or one that was cut off
                return rows
            made = pa.Table.from_batches([batch])
            if window and "step" in made.column_names:
                at = made.column("step")
                made = made.filter(pc.and_(pc.greater_equal(at, window[0]), pc.less_equal(at, window[1])))
            rows += _to_columns(made)


def _to_columns(made: pa.Table) -> int:
    for column in made.columns:
        if pa.types.is_floating(column.type):
            column.to_numpy()
    return int(made.num_rows)


def stream(parameters: int, steps: int) -> Iterator[list[Event]]:
    """The same events every time, in batches as the probe hands them over."""
    rng = random.Random(0)
    infos = tuple(
        ParameterInfo(
            index=i, name=f"p{i}", shape=(8,), dtype="float32", requires_grad=True, optimizer=None, sampled=8
        )
        for i in range(parameters)
    )
    info = ModelInfo(index=0, name="net", class_name="Net", parameters=infos, optimizers=())
    events: list[Event] = [ModelEvent(info=info)]
    for step in range(steps):
        rows = tuple(tuple(rng.random() for _ in PARAMETER_STATISTICS) for _ in range(parameters))
        events.append(StepEvent(model=0, step=step, seconds=step * 0.01, loss=rng.random(), rows=rows))
        if step % max(steps // 40, 1) == 0:
            events.append(TraceEvent(trace=_trace(step, 3 * parameters, rng)))
        if (step + 1) % STEPS_A_WRITE == 0:
            yield events
            events = []
    yield events


def _trace(step: int, operations: int, rng: random.Random) -> Trace:
    stats = tuple(
        OperationStats(
            operation=i,
            count=100,
            norm=rng.random(),
            absmax=rng.random(),
            zeros=0,
            nonfinite=0,
            edge_norms=(rng.random(),),
            parameter_norms=(rng.random(),) if i % 3 == 0 else (),
        )
        for i in range(operations)
    )
    return Trace(model=0, step=step, backward=0, graph="g", loss=1.0, stats=stats, output=operations - 1)


def size(folder: Path) -> float:
    """MB on disk."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def timed(name: str, folder: Path, window: tuple[int, int] | None, expected: int) -> float:
    """Median of three readings, in seconds."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        assert read(name, folder, window) == expected
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(name: str, parameters: int, steps: int, base: Path) -> str:
    """Write and read one stream; gives the table's row."""
    folder = base / f"{name}-{parameters}"
    writer: Writer = MAKE[name](folder)
    batches = list(stream(parameters, steps))
    if name == "blocks":
        batches = [packed(batch) for batch in batches]  # the probe hands them over so
    start, cpu = time.perf_counter(), time.thread_time()
    slowest = 0.0
    for batch in batches:
        before = time.perf_counter()
        writer.write(batch)
        slowest = max(slowest, time.perf_counter() - before)
    writer.end()
    wall, cpu = time.perf_counter() - start, time.thread_time() - cpu
    whole = timed(name, folder, None, steps)
    window = timed(name, folder, (steps // 2, steps // 2 + 49), 50)
    files = sum(1 for _ in folder.iterdir())
    return (
        f"{name:8} {parameters:4}  {1e6 * wall / steps:9.0f} {1e6 * cpu / steps:9.0f} {1e3 * slowest:8.0f}"
        f" {size(folder):8.1f} {files:6} {1e3 * whole:9.0f} {1e3 * window:8.0f}"
    )


CHILD = """
import sys, time
sys.path.insert(0, {here!r})
from record_format import MAKE, stream
from pathlib import Path
writer = MAKE[{name!r}](Path({folder!r}))
done = 0
for batch in stream(40, 10**6):
    writer.write(batch)
    done += 50
    print(done, flush=True)
    time.sleep(0.05)
"""


def kill(name: str, base: Path) -> str:
    """Steps there while a child writes and after its kill -9, of those that its write() had returned from."""
    folder = base / f"{name}-killed"
    code = CHILD.format(here=str(Path(__file__).parent), name=name, folder=str(folder))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(10):
        said = int(child.stdout.readline())
    try:
        during = f"{read(name, folder)} of {said}"
    except (RecordError, pa.ArrowInvalid, OSError) as error:
        during = f"no ({type(error).__name__})"
    child.kill()
    rest = child.stdout.read().split()
    child.wait()
    said = int(rest[-1]) if rest else said
    try:
        after = f"{read(name, folder)} of {said}"
    except (RecordError, pa.ArrowInvalid, OSError) as error:
        after = f"no ({type(error).__name__})"
    return f"{name:8} {during:>20} {after:>20}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    pa.set_cpu_count(1)
    print(f"{steps} steps, {STEPS_A_WRITE} a write, {os.cpu_count()} cores, {sys.platform}")
    print("form     par.  write us/step  cpu us  slowest ms  MB  files  read ms  window ms")
    with tempfile.TemporaryDirectory() as base:
        for parameters in (40, 400):
            for name in NAMES:
                print(measure(name, parameters, steps, Path(base)))
        print("\nform      read while written    read after kill -9   (steps there of steps written)")
        for name in NAMES:
            print(kill(name, Path(base)))


if __name__ == "__main__":
    main()
