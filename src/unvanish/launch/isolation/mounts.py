"""Linux: the process gets a view of the file system of its own, in which what it writes lands in a scratch folder.

A mount namespace (in a user namespace, where the process may not mount otherwise), and in it an overlay over every
folder that is protected. The kernel does it: native code, children and memory maps are held, too. Many containers
forbid it; then `redirect.py` is what is left.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unvanish.launch.isolation.mounted import mounted
from unvanish.launch.isolation.zones import Zones, is_below

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_BIND, _REC, _PRIVATE, _REMOUNT, _RDONLY, _RELATIME = 0x1000, 0x4000, 0x40000, 0x20, 0x1, 0x200000
_DETACH = 0x2
_MOST, _MOST_LOOKED_AT = 400, 5000  # folders that mounts take; files
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
    inner: bool  # it lies in another place, which will hide it


def mount_overlays(zones: Zones, scratch: Path) -> None:
    """From here on, what this process and its children write in protected folders goes to `scratch`, for good.

    Raises:
        OSError: it can't be done here; then nothing has changed.
    """
    places = tuple(_places(zones, mounted()))
    here = os.getcwd()
    _try_in_a_child(places, zones.own, scratch)
    _enter()
    _Mounts(places, zones.own, scratch).make()
    os.chdir(here)  # the same folder, as the overlay shows it


def _try_in_a_child(places: tuple[_Place, ...], own: tuple[str, ...], scratch: Path) -> None:
    """What fails halfway can't be taken back: a child tries it first."""
    if not sys.platform.startswith("linux"):
        raise Refused("not Linux")
    child = os.fork()
    if not child:
        try:
            if _enter() and not all(map(_all_ours, own)):
                raise Refused("a user namespace can't copy what belongs to others")
            _Mounts(places, own, scratch / "tried").make()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        raise Refused("overlays can't be mounted here")


def _enter() -> bool:
    """A mount namespace of our own; as an ordinary user in a user namespace (True), in which we keep our name."""
    user, group = os.geteuid(), os.getegid()
    as_user = False
    try:
        _call("unshare", _NEWNS)
    except OSError:
        as_user = True
        _call("unshare", _NEWNS | _NEWUSER)  # refused to a process with threads
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _bind("none", "/", _REC | _PRIVATE)
    return as_user


def _all_ours(folder: str) -> bool:
    """Whether all that is in it has our user and group (looked at: the first thousands)."""
    ours, looked_at = (os.geteuid(), os.getegid()), 0
    for place, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            there = os.lstat(os.path.join(place, name))
            if (there.st_uid, there.st_gid) != ours:
                return False
            looked_at += 1
            if looked_at >= _MOST_LOOKED_AT:
                return True
    return True


class _Mounts:
    """Outer folders first. What lies in them and is another file system, or free, is held aside and put on top."""

    def __init__(self, places: tuple[_Place, ...], own: tuple[str, ...], scratch: Path) -> None:
        """`own`: where a script must be able to write."""
        self._places = places
        self._own = own
        self._scratch = scratch
        self._count = 0

    def make(self) -> None:
        """All of them."""
        source = {place.path: place.path for place in self._places}
        for place in self._places:
            if place.inner:
                source[place.path] = self._new("aside")
                _bind(place.path, source[place.path], _BIND)
        for place in self._places:
            if not place.protected:
                _bind(source[place.path], place.path, _BIND)
                continue
            try:
                self._overlay(place.path, source[place.path])
            except OSError:  # in a user namespace: what is mounted in it may not be hidden
                self._split(place.path)
        for place in self._places:
            if place.inner:  # whoever removes the scratch folder must not find the user's files in it
                _call("umount2", source[place.path].encode(), _DETACH)

    def _split(self, folder: str) -> None:
        """An overlay for each folder in it; what lies in it directly can't be written."""
        below = [p.path for p in self._places if p.inner and is_below(p.path, folder) and p.path != folder]
        if not below:
            raise Refused("an overlay is refused here")
        _bind(folder, folder, _BIND | _REC)
        _bind(folder, folder, _BIND | _REMOUNT | _RDONLY | _flags_of(folder))
        self._cover(folder, below)

    def _cover(self, folder: str, below: list[str]) -> None:
        if folder in self._own:
            raise Refused("a script could not write in its own folder")
        for entry in _folders_in(folder):
            if entry in below:
                continue
            if any(is_below(path, entry) for path in below):
                self._cover(entry, below)
            else:
                self._overlay(entry, entry)

    def _overlay(self, target: str, lower: str) -> None:
        if any(c in lower + str(self._scratch) for c in ",:\\"):
            raise Refused("an overlay's options can't name this folder")
        options = f"lowerdir={lower},upperdir={self._new('upper')},workdir={self._new('work')}"
        try:
            _overlay(target, f"{options},userxattr")
        except OSError:
            _overlay(target, options)  # kernels before 5.11; where there are no extended attributes for users

    def _new(self, name: str) -> str:
        if self._count > _MOST:
            raise Refused("too many mounts would be needed")
        self._count += 1
        folder = self._scratch / name / str(self._count)
        folder.mkdir(parents=True)
        return str(folder)


def _folders_in(folder: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:  # not for us, so that nothing in it is written either
        return []


def _flags_of(folder: str) -> int:
    """What the mount does not allow goes on to be so: a user namespace may not take that away."""
    there = os.statvfs(folder).f_flag
    return (there & 0b1110) | (there & 0xC00) | (_RELATIME if there & 0x1000 else 0)


def _places(zones: Zones, others: list[tuple[str, str]]) -> Iterator[_Place]:
    """The folders to mount at, outer ones first, each where its own state differs from that around it."""
    found: dict[str, bool] = {}
    for entry in _folders_in("/"):
        if entry[1:] not in _SYSTEM and zones.protects(entry):
            found[entry] = True
    found.update({folder: rule for folder, rule in zones.rules if folder != "/" and os.path.isdir(folder)})
    roots = [folder for folder, rule in found.items() if rule]
    for point, kind in others:  # an overlay does not show what is mounted below it
        if any(is_below(point, root) for root in roots):
            found.setdefault(point, zones.protects(point) and kind not in _NO_DISK)
            if kind in _NO_DISK:
                found[point] = False
    state: dict[str, bool] = {}
    points = {point for point, _ in others}
    for folder in sorted(found, key=len):
        around = max((f for f in state if is_below(folder, f)), key=len, default=None)
        if around is None and not found[folder]:
            continue
        if around is None or state[around] != found[folder] or (folder in points and state[around]):
            state[folder] = found[folder]
            yield _Place(path=folder, protected=found[folder], inner=around is not None)


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
