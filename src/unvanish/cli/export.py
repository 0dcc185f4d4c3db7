"""``unvanish export``: a run as files for other tools."""

from __future__ import annotations

from pathlib import Path

from unvanish.errors import UsageError


def export_run(path: str, to: str, output: str | None) -> Path:
    """Write the run's tables; gives the folder or the file that they are in. UnvanishError where that can't be."""
    from unvanish import session
    from unvanish.export.files import write_csv, write_json
    from unvanish.export.tables import tables

    run = session.load(path)
    made = tables(run, session.diagnose(run))
    folder = Path(run.path) / "export"
    place = Path(output) if output is not None else None
    if to == "json":
        place = place or folder / "run.json"
        if place.is_dir():
            raise UsageError(f"{place} is a folder, and the JSON is one file", "name a file with -o")
        return write_json(run, made, place)
    if to == "csv":
        place = place or folder / "csv"
        write_csv(made, place)
    elif to == "parquet":
        try:
            from unvanish.export.parquet import write_parquet
        except ImportError:
            raise UsageError(
                "Parquet needs pyarrow, which is not here", "pip install 'unvanish[parquet]', or use --to csv"
            ) from None
        place = place or folder / "parquet"
        write_parquet(made, place)
    else:
        from unvanish.export.tensorboard import write_events

        place = place or folder / "tensorboard"
        write_events(run, made, place)
    return place
