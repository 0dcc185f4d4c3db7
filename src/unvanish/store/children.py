"""The folders of a run's other processes: `<run>/children/<name>`, each a record like the run's own."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from unvanish.errors import RecordError
from unvanish.store.layout import FILE_NAME

CHILDREN = "children"
_MOST_OF_A_NAME = 1000


class Place(Protocol):
    """Where a process that is not the first of its run writes."""

    @property
    def run(self) -> Path | None:
        """The run's folder, once it is known."""
        ...

    @property
    def said(self) -> str | None:
        """What a reader should know of this place."""
        ...

    def find(self, name: str, *, last: bool) -> Path | None:
        """A folder for `name`, made for it alone. None = not known yet, which is no answer to the `last` question.

        Raises RecordError when it can't be made.
        """
        ...

    def end(self) -> None:
        """The process ends."""
        ...


class ChildPlace:
    """Below the folder of a run that is known."""

    def __init__(self, run: Path) -> None:
        """`run`: the run's folder, which may not be there yet."""
        self.folder = run
        self.run: Path | None = run
        self.said: str | None = None

    def find(self, name: str, *, last: bool) -> Path | None:  # noqa: ARG002 - as Place has it
        """Made at once."""
        return claim_child(self.folder, name)

    def end(self) -> None:
        """Nothing is left to be done."""


def claim_child(run: Path, name: str) -> Path:
    """Make `run/children/name`, or with a number behind it where another process has that name."""
    for number in range(1, _MOST_OF_A_NAME):
        folder = run / CHILDREN / (name if number == 1 else f"{name}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if not folder.parent.is_dir():
                break
            continue
        except OSError as error:
            raise RecordError(
                f"the folder {folder} can't be made ({error.strerror})",
                "let all processes of the run write there, or name another folder with --out",
            ) from error
        return folder
    raise RecordError(
        f"{run / CHILDREN} can't hold {name}: something else is in the way", "name another folder with --out"
    )


def child_folders(run: Path) -> list[Path]:
    """The folders in which other processes of this run have kept a record, by name."""
    return sorted(file.parent for file in (run / CHILDREN).glob(f"*/{FILE_NAME}"))


def leave_word(run: Path, text: str) -> None:
    """Let the run's first process know what this one could not write into the run's folder."""
    with suppress(OSError):
        _words_of(run, str(os.getpid())).write_text(text, encoding="utf-8")


def take_words(run: Path) -> list[str]:
    """What processes of this run, on this machine, have left so; it is gone after that."""
    words = []
    for file in sorted(Path(tempfile.gettempdir()).glob(_words_of(run, "*").name)):
        with suppress(OSError, UnicodeDecodeError):
            words.append(file.read_text(encoding="utf-8"))
            file.unlink()
    return words


def _words_of(run: Path, process: str) -> Path:
    return Path(tempfile.gettempdir(), f"unvanish-{run.name}-{process}.txt")
