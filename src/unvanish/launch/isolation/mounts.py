"""Linux: the process gets a view of the file system of its own, in which what it writes lands in a scratch folder.

A mount namespace (in a user namespace, where the process may not mount otherwise), and in it an overlay over every
folder that is protected. The kernel does it: native code, children and memory maps are held, too. Many containers
forbid it; then `redirect.py` is what is left.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unvanish.launch.isolation.zones import Zones, is_below

_OCTAL = re.compile(r"\\([0-7]{3})")
_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000
# of root's own folders, those that hold programs and the system's state; a script's data lie elsewhere
_SYSTEM = frozenset(
    "bin boot dev etc lib lib32 lib64 libx32 lost+found proc run sbin snap sys usr var".split()
)
_NO_DISK = frozenset(
    "autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs fuse.portal fusectl hugetlbfs mqueue "
    "nsfs proc pstore securityfs squashfs sysfs tracefs".split()
)


class Refused(OSError):  # noqa: N818 - it is the system that refuses
    """The system does not allow it, or can't do it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    path: str
    protected: bool


def mount_overlays(zones: Zones, scratch: Path) -> None:
    """From here on, what this process and its children write in protected folders goes to `scratch`, for good.

    Raises:
        OSError: it can't be done here; then nothing has changed.
    """
    places = tuple(_places(zones, _mounted()))
    here = os.getcwd()
    _try_in_a_child(places, scratch)
    _enter()
    _mount(places, scratch)
    os.chdir(here)  # the same folder, as the overlay shows it


def _try_in_a_child(places: tuple[_Place, ...], scratch: Path) -> None:
    """What fails halfway can't be taken back: a child tries it first."""
    if not sys.platform.startswith("linux"):
        raise Refused("not Linux")
    child = os.fork()
    if not child:
        try:
            _enter()
            _mount(places, scratch / "tried")
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        raise Refused("overlays can't be mounted here")


def _enter() -> None:
    """A mount namespace of our own; as an ordinary user in a user namespace, in which all keep their names."""
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", _NEWNS)
    except OSError:
        _call("unshare", _NEWNS | _NEWUSER)  # refused to a process with threads
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _bind("none", "/", _REC | _PRIVATE)


def _mount(places: tuple[_Place, ...], scratch: Path) -> None:
    """Outer folders first. What is free inside of a protected one is held aside, and put back on top."""
    for index, place in enumerate(places):
        if not place.protected:
            aside = _made(scratch, "aside", index)
            _bind(place.path, aside, _BIND)
    for index, place in enumerate(places):
        if place.protected:
            upper, work = _made(scratch, "upper", index), _made(scratch, "work", index)
            options = f"lowerdir={place.path},upperdir={upper},workdir={work}"
            if any(c in place.path + str(scratch) for c in ",:\\"):
                raise Refused("an overlay's options can't name this folder")
            try:
                _overlay(place.path, f"{options},userxattr")
            except OSError:
                _overlay(
                    place.path, options
                )  # kernels before 5.11, and root where extended attributes are not
        else:
            _bind(str(scratch / "aside" / str(index)), place.path, _BIND)


def _made(scratch: Path, name: str, index: int) -> str:
    folder = scratch / name / str(index)
    folder.mkdir(parents=True)
    return str(folder)


def _places(zones: Zones, mounted: list[tuple[str, str]]) -> Iterator[_Place]:
    """The folders to mount at, outer ones first, each where its own state differs from that around it."""
    found: dict[str, bool] = {}
    for entry in os.scandir("/"):
        if entry.is_dir(follow_symlinks=False) and entry.name not in _SYSTEM and zones.protects(entry.path):
            found[entry.path] = True
    found.update({folder: rule for folder, rule in zones.rules if folder != "/" and os.path.isdir(folder)})
    roots = [folder for folder, rule in found.items() if rule]
    for point, kind in mounted:  # an overlay does not show what is mounted below it
        if any(is_below(point, root) for root in roots):
            found.setdefault(point, zones.protects(point) and kind not in _NO_DISK)
            if kind in _NO_DISK:
                found[point] = False
    state: dict[str, bool] = {}
    points = {point for point, _ in mounted}
    for folder in sorted(found, key=len):
        around = max((f for f in state if is_below(folder, f)), key=len, default=None)
        if around is None and not found[folder]:
            continue
        if around is None or state[around] != found[folder] or (folder in points and state[around]):
            state[folder] = found[folder]
            yield _Place(path=folder, protected=found[folder])


def _mounted() -> list[tuple[str, str]]:
    """(mount point, file system) of all that is mounted but the root."""
    try:
        lines = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        return []
    found = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        point = _OCTAL.sub(lambda m: chr(int(m[1], 8)), before.split(" ")[4])  # a space is \\040
        found[point] = after.split(" ")[0]
    return [(point, kind) for point, kind in found.items() if point != "/" and os.path.isdir(point)]


# --- the kernel ---------------------------------------------------------------------------------------------


def _bind(source: str, target: str, flags: int) -> None:
    _call("mount", source.encode(), target.encode(), None, flags, None)


def _overlay(target: str, options: str) -> None:
    _call("mount", b"overlay", target.encode(), b"overlay", 0, options.encode())


def _call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if name == "mount":
        function.argtypes = (
            ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p
        )  # fmt: skip
    if function(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
