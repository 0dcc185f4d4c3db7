"""One place on a cluster where trials run, one at a time: what Ray's worker process does.

The trial itself runs in processes below that (supervisor.py), as on this machine: its limits are kept there, and
whatever it does to its process does not reach Ray.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from unvanish.errors import UsageError
from unvanish.verify.engines import machine
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.engines.parcel import Folder, fingerprint, relocate, unpack
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

_COPIES = "unvanish-scripts-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What has to be the same on all machines, or trials could not be compared."""

    unvanish: str
    torch: str
    python: str

    def differences(self, other: Versions) -> list[str]:
        """What differs, in words."""
        names = ("unvanish", "torch", "python")
        pairs = [(n, getattr(self, n), getattr(other, n)) for n in names]
        return [f"{name} {theirs} instead of {ours}" for name, ours, theirs in pairs if ours != theirs]


def versions() -> Versions:
    """Those of this process. Of unvanish, a hash of its source: two states of a checkout have the same number."""
    ours = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(ours.rglob("*.py")):
        digest.update(f"{path.relative_to(ours)}\0".encode() + path.read_bytes())
    torch = "none"
    with contextlib.suppress(metadata.PackageNotFoundError):
        torch = metadata.version("torch")
    return Versions(unvanish=digest.hexdigest()[:12], torch=torch, python=platform.python_version())


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a seat stands."""

    host: str
    versions: Versions


def check(place: Place) -> None:
    """Refuse a machine whose trials could not be compared with ours.

    Raises:
        UsageError: it says which versions differ.
    """
    differences = versions().differences(place.versions)
    if differences:
        raise UsageError(
            f"the machine {place.host} has {', '.join(differences)}",
            "trials can be compared only where all versions are the same: install them there",
        )


class Lacking:
    """The script is not there; send its folders along."""


class Seat:
    """Runs one trial after the other, where Ray has put it."""

    def __init__(
        self,
        runner: str,
        threads: int,
        memory_bytes: int | None,
        neighbours: int,
        path: Sequence[str],
    ) -> None:
        """`neighbours` seats at most share this machine; `path` is the sys.path that the runner was found by."""
        sys.path += [folder for folder in path if folder not in sys.path]
        limit = machine.share_bytes(neighbours) if memory_bytes is None else memory_bytes
        self._engine = LocalEngine(1, runner, threads=threads, memory_bytes=limit)
        self._there: dict[tuple[Target, str], Target] = {}  # the script, and where it lies here
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def place(self) -> Place:
        """Where this is; that it answers says that it is up."""
        return Place(host=platform.node(), versions=versions())

    def run(
        self, spec: TrialSpec, digest: str | None, folders: tuple[Folder, ...] | None = None
    ) -> TrialOutcome | Lacking:
        """One trial of the script whose fingerprint is `digest` (None: it is no file, the runner knows it)."""
        if digest is not None:
            target = self._found(spec.target, digest, folders)
            if target is None:
                return Lacking()
            spec = replace(spec, target=target)
        (outcome,) = self._engine.run([spec])
        return outcome

    def close(self) -> None:
        """End what runs here, remove what lies here."""
        self._engine.close()
        if self._copies is not None:
            self._copies.cleanup()

    def _found(self, target: Target, digest: str, folders: tuple[Folder, ...] | None) -> Target | None:
        key = (target, digest)
        if key not in self._there:
            if folders is None and fingerprint(target) != digest:
                return None
            self._there[key] = target
            if folders is not None:
                if self._copies is None:
                    _sweep()
                    self._copies = tempfile.TemporaryDirectory(prefix=f"{_COPIES}{os.getpid()}-")
                under = Path(tempfile.mkdtemp(dir=self._copies.name))
                self._there[key] = relocate(target, unpack(folders, under))
        return self._there[key]


def _sweep() -> None:
    """Remove the copies of seats that were killed: they could not."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_COPIES}*-*"):
        owner = folder.name[len(_COPIES) :].partition("-")[0]
        try:
            os.kill(int(owner), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another user's
            continue
