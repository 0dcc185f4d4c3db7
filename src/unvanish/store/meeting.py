"""How the processes of one launch find the folder of their run by themselves: through a small file beside it.

torchrun, srun and their like start all ranks alike, and tell each its number. Rank 0 makes the run and leaves a note
in the folder of runs, named by what all ranks of this launch know; the others look for it after their first training
step (which waits for rank 0 anyway). Where it does not turn up, the disk is not shared: each node has a run then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from unvanish.errors import RecordError
from unvanish.schema.launch import Launch, new_run_id
from unvanish.store.alive import process_started, this_host
from unvanish.store.children import claim_child

PATIENCE_SECONDS = 60.0  # network disks show a new file late
AT_HOME_SECONDS = 5.0  # ... and this machine's own at once
APART_SECONDS = 600.0  # processes of one launch start within this time


class Meeting:
    """The note that rank 0 leaves in the folder of runs."""

    def __init__(self, out: Path, launch: Launch) -> None:
        """Nothing is read or written yet."""
        self.launch = launch
        self._out = out
        self._file = out / f".ranks-{launch.key}.json"
        self._node_file = out / f".ranks-{launch.key}-{this_host()}.json"

    def announce(self, run: Path) -> None:
        """Rank 0: say where the run is. RecordError when that can't be written."""
        part = self._file.with_name(f"{self._file.name}.{os.getpid()}.part")
        try:
            part.write_text(self._note(run), encoding="utf-8")
            part.replace(self._file)
        except OSError as error:
            raise RecordError(
                f"{self._file} can't be written ({error.strerror})", "name another folder with --out"
            ) from error

    def end(self) -> None:
        """Rank 0: all have come; a later launch finds nothing."""
        for file in (self._file, self._node_file):
            note = _read(file)
            if note is not None and note["host"] == this_host() and note["pid"] == os.getpid():
                with suppress(OSError):
                    file.unlink()

    def find(self) -> Path | None:
        """The run that rank 0 has announced, if it is one of this launch."""
        return self._at(self._file)

    def lead_node(self) -> tuple[Path, bool]:
        """The run of this machine's ranks, where rank 0's is not to be seen; True for the one that leads it.

        OSError when nothing can be written.
        """
        for _ in range(2):
            run = self._out / new_run_id(f"ranks-of-{this_host()}")
            try:
                with self._node_file.open("x", encoding="utf-8") as file:
                    file.write(self._note(run))
            except FileExistsError:
                there = self._at(self._node_file)
                if there is not None:
                    return there, False
                self._node_file.unlink(missing_ok=True)  # an earlier launch's
            else:
                return run, True
        return run, True

    def _note(self, run: Path) -> str:
        return json.dumps(
            {
                "run": run.name,
                "host": this_host(),
                "pid": os.getpid(),
                "started": process_started(os.getpid()),
                "at": time.time(),
            }
        )

    def _at(self, file: Path) -> Path | None:
        note = _read(file)
        if note is None:
            return None
        if note["host"] == this_host() and note["started"] is not None:
            fresh = process_started(note["pid"]) == note["started"]
        else:
            fresh = abs(time.time() - note["at"]) < APART_SECONDS + time.monotonic() - _BEGAN
        return self._out / note["run"] if fresh else None


_BEGAN = time.monotonic()


class RankPlace:
    """Where a rank other than 0 writes: below rank 0's run, else below that of its machine's ranks."""

    def __init__(self, meeting: Meeting, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is looked for before the first question."""
        self._meeting = meeting
        self._clock = clock
        self._since: float | None = None
        self.run: Path | None = None
        self.said: str | None = None
        self.leads = False

    def find(self, name: str, *, last: bool) -> Path | None:
        """Looks once each time it is asked, and gives up after a while."""
        self.run = self._meeting.find()
        if self.run is not None:
            return claim_child(self.run, name)
        now = self._clock()
        self._since = now if self._since is None else self._since
        patience = AT_HOME_SECONDS if self._meeting.launch.one_node else PATIENCE_SECONDS
        if not last and now - self._since < patience:
            return None
        self.run, self.leads = self._meeting.lead_node()
        self.said = (
            f"rank 0's run is not in this machine's {self.run.parent} (the machines share no disk, or rank 0 is not"
            " watched), so the ranks of this machine have a run of their own"
        )
        return self.run if self.leads else claim_child(self.run, name)

    def end(self) -> None:
        """The process ends."""
        if self.leads:
            self._meeting.end()


def _read(file: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wanted = {"run": str, "host": str, "pid": int, "at": float}
    if not isinstance(note, dict) or not all(isinstance(note.get(k), t) for k, t in wanted.items()):
        return None
    return note
