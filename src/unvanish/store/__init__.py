"""The record of a run: one SQLite file in the run's folder, written while it trains, read at any time."""

from unvanish.store.children import child_folders
from unvanish.store.merge import merge_ranks
from unvanish.store.read import list_runs, read_run, run_heads
from unvanish.store.results import load_result, save_result
from unvanish.store.write import RunWriter

__all__ = [
    "RunWriter",
    "child_folders",
    "list_runs",
    "load_result",
    "merge_ranks",
    "read_run",
    "run_heads",
    "save_result",
]
