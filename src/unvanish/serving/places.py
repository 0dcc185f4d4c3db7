"""Where the runs of a folder lie: by their names alone, nothing outside of it, no symbolic link followed."""

from __future__ import annotations

import os
from pathlib import Path

from unvanish.errors import RecordError, UnvanishError
from unvanish.schema.run import RunInfo, RunStatus
from unvanish.serving.kept import Signature
from unvanish.store import list_runs, run_heads
from unvanish.store.children import CHILDREN
from unvanish.store.layout import FILE_NAME

_RESULTS = ("diagnosis.json", "treatment.json")


class NotServedError(UnvanishError):
    """There is no such run in the folder, or it may not be shown."""


class Places:
    """The runs in a folder of runs, or a single run where the folder is one."""

    def __init__(self, folder: str | Path) -> None:
        """RecordError where there is no such folder."""
        given = Path(folder)
        if not given.is_dir():
            raise RecordError(f"there is no folder {folder}", "name the one that runs are kept in")
        whole = given.resolve()
        self.only = whole.name if (whole / FILE_NAME).is_file() else None
        self.root = whole.parent if self.only is not None else whole

    def listed(self) -> list[tuple[Path, RunInfo, RunStatus]]:
        """The runs, the newest first; what can't be read or may not be shown is left out."""
        return [
            (place, info, status)
            for place, info, status in reversed(list_runs(self.root))
            if self.only in (None, place.name) and _is_text(place.name) and not _holds_links(place)
        ]

    def find(self, name: str) -> Path:
        """The folder of the run with this name. NotServedError for any other word, whatever it looks like.

        A name counts as it stands in the folder's own listing: it is never joined to a path before it was found
        there.
        """
        if self.only is not None:
            there = {self.only}
        else:
            there = {entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)}
        if name not in there or not (self.root / name / FILE_NAME).is_file():
            raise NotServedError("there is no such run here", "go back to the list of runs")
        folder = self.root / name
        if _holds_links(folder):
            raise NotServedError(
                "this run's folder holds symbolic links, so it is not shown", "copy it as plain files"
            )
        return folder


def signature(folder: Path, status: RunStatus | None = None) -> Signature:
    """Other when there is something new in a run: sizes and times of its files, its `status` (read if not given)."""
    files = [folder / FILE_NAME, folder / f"{FILE_NAME}-wal", *(folder / name for name in _RESULTS)]
    children = folder / CHILDREN
    if children.is_dir():
        files += [
            file for child in sorted(children.iterdir()) for file in sorted(child.glob(f"{FILE_NAME}*"))
        ]
    told = [status] if status is not None else [now for _, now in run_heads([folder])]
    return (*(_stamp(file) for file in files), *told)


def _stamp(file: Path) -> tuple[str, int, int]:
    try:
        stat = file.stat()
    except OSError:
        return file.name, -1, -1
    return file.name, stat.st_size, stat.st_mtime_ns


def _is_text(name: str) -> bool:
    """Whether it can stand in JSON and in an address."""
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def _holds_links(folder: Path) -> bool:
    """Whether anything that is read of a run leads elsewhere: the folder, its files, its children's."""
    if folder.is_symlink():
        return True
    children = folder / CHILDREN
    for place in (folder, children, *(children.iterdir() if children.is_dir() else ())):
        if place.is_symlink():
            return True
        if place.is_dir() and any(entry.is_symlink() for entry in os.scandir(place)):
            return True
    return False
