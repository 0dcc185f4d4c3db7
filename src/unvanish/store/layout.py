"""The tables of a run's record, said once: the writer, the reader and docs/run-record.md follow this file.

One rule holds in every REAL column, since SQLite keeps a NaN as NULL: **NULL is NaN, unless the column's
name stands in the row's `not_measured`** (names parted by a blank). Infinity is kept as such. Text that is no
valid Unicode (a lone surrogate in a file name) is kept as its bytes.

BLOBs are arrays of little-endian numbers, row-major; their NaNs are NaNs. step_blocks and stat_blocks hold all
steps of a model that came packed, traces_packed all that was traced; `steps`, `parameter_stats`,
`trace_operations` and `trace_edges` have a log-spaced share of the same as rows, for ordinary tools.
"""

from __future__ import annotations

import sqlite3

from unvanish.schema.run import PARAMETER_STATISTICS

FILE_NAME = "run.sqlite"
APPLICATION_ID = 0x756E7631  # "unv1", in the file's header: tells our files from other SQLite files
SCHEMA_VERSION = 2  # the header's user_version; a reader refuses what is newer than itself

SNAPSHOT_COLUMNS = ("minimum", "q05", "q25", "median", "q75", "q95", "maximum")  # as SNAPSHOT_QUANTILES

# table -> its columns as SQL declares them; the order is the order of the rows that the writer hands over
TABLES: dict[str, tuple[str, ...]] = {
    "run": (
        "id TEXT", "created TEXT", "command TEXT", "script TEXT", "seed TEXT", "versions TEXT", "device TEXT",
        "pid INTEGER", "host TEXT", "process_started TEXT", "status TEXT", "ended TEXT", "message TEXT",
        "events_dropped INTEGER",
    ),
    "models": ("model INTEGER PRIMARY KEY", "name TEXT", "class_name TEXT", "training_modules INTEGER"),
    "parameters": (
        "model INTEGER", "parameter INTEGER", "name TEXT", "shape TEXT", "dtype TEXT",
        "requires_grad INTEGER", "optimizer INTEGER", "sampled INTEGER", "shard TEXT",
    ),
    "optimizers": (
        "model INTEGER", "optimizer INTEGER", "class_name TEXT", "learning_rates TEXT", "options TEXT",
    ),
    "steps": (
        "model INTEGER", "step INTEGER", "seconds REAL", "loss REAL", "not_measured TEXT",
        "packed INTEGER",  # 1: a copy of what stands in step_blocks
    ),
    "parameter_stats": (
        "model INTEGER", "step INTEGER", "parameter INTEGER",
        *(f"{name} REAL" for name in PARAMETER_STATISTICS),
    ),
    "snapshots": (
        "model INTEGER", "step INTEGER", "parameter INTEGER", "norm REAL",
        *(f"{name} REAL" for name in SNAPSHOT_COLUMNS),
    ),
    "graphs": ("model INTEGER", "graph TEXT"),
    "operations": (
        "model INTEGER", "graph TEXT", "operation INTEGER", "name TEXT", "kind TEXT", "module TEXT",
        "module_class TEXT", "call INTEGER", "parents TEXT", "parameters TEXT",
    ),
    "traces": (
        "trace INTEGER PRIMARY KEY", "model INTEGER", "step INTEGER", "backward INTEGER", "graph TEXT",
        "loss REAL", "output INTEGER", "chance REAL", "not_measured TEXT",
    ),
    "trace_operations": (
        "trace INTEGER", "position INTEGER", "operation INTEGER", "count INTEGER", "norm REAL", "absmax REAL",
        "zeros INTEGER", "nonfinite INTEGER", "output_count INTEGER", "output_std REAL", "output_rms REAL",
        "units INTEGER", "closed_units INTEGER", "not_measured TEXT", "total REAL", "sampled INTEGER",
        "exponents TEXT",
    ),
    "trace_edges": (
        "trace INTEGER", "position INTEGER", "towards TEXT", "slot INTEGER", "norm REAL", "not_measured TEXT",
    ),
    "layers": (
        "model INTEGER", "position INTEGER", "name TEXT", "fan_in INTEGER", "fan_out INTEGER",
        "weight_variance REAL", "bias_variance REAL", "bias_centres INTEGER", "input_second_moment REAL",
        "batch INTEGER", "norm TEXT", "activation TEXT", "activation_parameters TEXT", "skip TEXT",
        "predictable INTEGER", "not_measured TEXT", "input_variety REAL", "input_disparity REAL", "unit_variety REAL",
    ),
    "incidents": ("step INTEGER", "place TEXT", "what TEXT"),
    "skipped": ("model INTEGER", "what TEXT", "why TEXT"),
    "extra": ("key TEXT PRIMARY KEY", "value TEXT"),
    # level 0 = whole steps; at level k about one step in 2^k is kept, with the extremes of the loss
    "step_blocks": (
        "block INTEGER PRIMARY KEY", "model INTEGER", "level INTEGER", "first INTEGER", "last INTEGER",
        "rows INTEGER", "steps BLOB", "seconds BLOB", "losses BLOB", "clips BLOB", "learning_rates BLOB",
        "unseen BLOB",
    ),
    # level 0 = whole steps, `mean` is the value; at level k a row stands for 2^k measured steps
    "stat_blocks": (
        "block INTEGER PRIMARY KEY", "model INTEGER", "level INTEGER", "first INTEGER", "last INTEGER",
        "rows INTEGER", "parameters INTEGER", "dtype TEXT", "steps BLOB", "until BLOB", "counts BLOB",
        "mean BLOB", "smallest BLOB", "largest BLOB",
    ),
    # `norms`: float64, one for each time step
    "through_time": (
        "trace INTEGER", "position INTEGER", "module TEXT", "call INTEGER", "layer INTEGER", "reverse INTEGER",
        "samples INTEGER", "norms BLOB",
    ),
    "traces_packed": (
        "trace INTEGER PRIMARY KEY", "operations INTEGER", "integers BLOB", "floats BLOB", "unknown BLOB",
        "lengths BLOB", "edges BLOB", "edges_unknown BLOB", "exponents BLOB", "unit_bits BLOB",
    ),
}  # fmt: skip

# tables that are read by their key, stored in its order; the others keep the order of writing (rowid)
KEYS: dict[str, str] = {
    "steps": "model, step",
    "parameter_stats": "model, step, parameter",
    "graphs": "model, graph",
    "trace_operations": "trace, position",
    "trace_edges": "trace, position, towards, slot",
    "through_time": "trace, position",
}

INDEXES: dict[str, str] = {
    "snapshots": "model, step",
    "step_blocks": "model, first, last",
    "stat_blocks": "model, first, last",
}

VIEWS = {
    "gradients": (
        "SELECT m.name AS model, p.name AS parameter, s.step AS step, "  # noqa: S608 - all of it is ours
        + ", ".join(f"s.{name} AS {name}" for name in PARAMETER_STATISTICS)
        + " FROM parameter_stats s JOIN parameters p ON p.model = s.model AND p.parameter = s.parameter"
        " JOIN models m ON m.model = s.model"
    ),
    "signals": (
        "SELECT m.name AS model, t.step AS step, t.backward AS backward, o.operation AS operation,"
        " o.name AS name, o.kind AS kind, o.module AS module, s.norm AS norm,"
        " s.norm / sqrt(s.count) AS rms, s.zeros AS zeros, s.count AS count"
        " FROM trace_operations s JOIN traces t ON t.trace = s.trace"
        " JOIN operations o ON o.model = t.model AND o.graph = t.graph AND o.operation = s.operation"
        " JOIN models m ON m.model = t.model"
    ),
}


def columns(table: str) -> tuple[str, ...]:
    """The names of a table's columns, in order."""
    return tuple(column.split()[0] for column in TABLES[table])


def present(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """The columns that a record's table has; none where it has no such table (a record of an older format)."""
    return tuple(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))


def create_statements() -> tuple[str, ...]:
    """The SQL that makes an empty record."""
    made = []
    for table, declared in TABLES.items():
        key = KEYS.get(table)
        tail = f", PRIMARY KEY ({key})) WITHOUT ROWID" if key else ")"
        made.append(f"CREATE TABLE {table} ({', '.join(declared)}{tail}")
    made += [f"CREATE INDEX {table}_by_step ON {table} ({by})" for table, by in INDEXES.items()]
    made += [f"CREATE VIEW {name} AS {select}" for name, select in VIEWS.items()]
    return (*made, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {SCHEMA_VERSION}")


def select_statement(table: str, where: str = "", order: str = "", names: tuple[str, ...] = ()) -> str:
    """SELECT of all columns in order, or of `names`; `where` and `order` are SQL of ours, never a user's text."""
    clause = f" WHERE {where}" if where else ""
    tail = f" ORDER BY {order}" if order else ""
    return f"SELECT {', '.join(names or columns(table))} FROM {table}{clause}{tail}"  # noqa: S608 - all of it is ours
