"""The file system as a script sees it whose writes lie elsewhere: its own files on top of the user's."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from unvanish.launch.isolation.zones import Zones

_MOST_LINKS = 40


class View:
    """Where each path really lies. All methods take and give paths as text; names of errors are the script's own.

    A path of the script is `seen`; made absolute and free of links it is `real`; the file that holds its content is
    its `place`: `upper` + real where the script has written it, else real itself. `gone`: what it has removed.
    """

    def __init__(self, zones: Zones, scratch: Path) -> None:
        """`scratch` takes what is written."""
        self.zones = zones
        self._upper = os.path.join(os.path.realpath(scratch), "files")
        os.makedirs(self._upper, exist_ok=True)
        self._gone: set[str] = set()
        self._touched = False  # nothing was written yet: all is where it seems to be

    # --- looking ----------------------------------------------------------------------------------------------

    def here(self) -> str:
        """The working directory, as the script sees it."""
        return self.seen(os.getcwd())

    def seen(self, place: str) -> str:
        """The script's name of a place."""
        return place[len(self._upper) :] or "/" if place.startswith(self._upper + "/") else place

    def real(self, path: str, *, follow: bool = True) -> str:
        """Absolute and without links; `follow` False leaves a link at its end."""
        path = os.path.join(self.here(), self.seen(path))
        if not self._touched:
            return os.path.realpath(path) if follow else self._real_parent(os.path.normpath(path))
        return self._walk(path, follow, 0)

    @staticmethod
    def _real_parent(path: str) -> str:
        folder, name = os.path.split(path)
        return os.path.join(os.path.realpath(folder), name)

    def _walk(self, path: str, follow: bool, links: int) -> str:
        """As os.path.realpath, over both layers."""
        found = "/"
        parts = [p for p in path.split("/") if p not in ("", ".")]
        for index, part in enumerate(parts):
            if part == "..":
                found = os.path.dirname(found)
                continue
            step = os.path.join(found, part)
            place = self.place(step)
            if os.path.islink(place) and (follow or index + 1 < len(parts)):
                if links >= _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                step = self._walk(os.path.join(found, os.readlink(place)), True, links + 1)
            found = step
        return found

    def place(self, real: str) -> str:
        """The file that holds it. Where there is none, a name that is not there either."""
        if not self._touched or not self.zones.protects(real):
            return real
        own = self._upper + real
        return own if os.path.lexists(own) or self._is_gone(real) else real

    def to_read(self, path: str, *, follow: bool = True) -> str:
        """The place of something that is looked at."""
        return self.place(self.real(path, follow=follow)) if self._touched else path

    def layers(self, path: str) -> tuple[str, str | None]:
        """(place, the user's folder below it that shows through, or None) of a folder."""
        real = self.real(path)
        place = self.place(real)
        through = place != real and not self._is_gone(real) and os.path.isdir(real)
        return place, real if through else None

    def hidden(self, folder: str, name: str) -> bool:
        """Whether the script has removed what lies under this name in the user's folder."""
        return os.path.join(folder, name) in self._gone

    def _is_gone(self, real: str) -> bool:
        while self._gone and real != "/":
            if real in self._gone:
                return True
            real = os.path.dirname(real)
        return False

    # --- changing ---------------------------------------------------------------------------------------------

    def to_write(self, path: str, *, follow: bool = True, keep: bool = True) -> str:
        """The place to write it: a copy of what is there (`keep`), or room for something new."""
        real = self.real(path, follow=follow)
        if not self.zones.protects(real):
            return real
        place = self.place(real)
        own = self._upper + real
        if place == real and os.path.lexists(real):
            if not _can_be_copied(real):
                return real  # a pipe, a device: what is written to it is for whoever reads it
            self._copy_up(real, own, content=keep)
        elif place == real or not os.path.lexists(own):
            self._room_for(real)
        return own

    def to_move(self, path: str) -> tuple[str, str]:
        """(place, real): something that is to get another name, with all that is in it in one place."""
        real = self.real(path, follow=False)
        if not self.zones.protects(real):
            return real, real
        place, own = self.place(real), self._upper + real
        if os.path.isdir(place) and not os.path.islink(place):
            self._merge(real)
        elif place == real and os.path.lexists(real):
            if not _can_be_copied(real):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
            self._copy_up(real, own, content=True)
        return own, real

    def room(self, path: str) -> tuple[str, str]:
        """(place, real) of a name that is to be given to something; what lies there may be replaced."""
        real = self.real(path, follow=False)
        if not self.zones.protects(real):
            return real, real
        place, own = self.place(real), self._upper + real
        if os.path.isdir(place) and not os.path.islink(place):
            if self.names(real):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            os.makedirs(
                own, exist_ok=True
            )  # so that the system's own rules hold: no file in place of a folder
            self._touched = True
        else:
            self._room_for(real)
        return own, real

    def forget(self, real: str) -> None:
        """It is removed: what the user has under this name is not to be seen."""
        self._touched = True
        if self.zones.protects(real) and os.path.lexists(real):
            self._gone.add(real)

    def names(self, real: str) -> list[str]:
        """What is in a folder, over both layers, in no order."""
        place, through = self.layers(real)
        found = os.listdir(place) if os.path.isdir(place) else []
        if place == real:
            return [n for n in found if not self.hidden(real, n)]
        if through is not None:
            own = set(found)
            found += [n for n in os.listdir(through) if n not in own and not self.hidden(through, n)]
        return found

    def _room_for(self, real: str) -> None:
        """Its folder, if the script sees one there; else the system says that there is none."""
        self._touched = True
        folder = os.path.dirname(real)
        if os.path.isdir(self.place(folder)):
            os.makedirs(self._upper + folder, exist_ok=True)

    def _copy_up(self, real: str, own: str, *, content: bool) -> None:
        """A copy with its times and permissions; `content` False: it is going to be replaced."""
        if not os.access(real, os.W_OK) and not os.path.islink(real):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), real)
        self._room_for(real)
        if os.path.islink(real):
            os.symlink(os.readlink(real), own)
        elif os.path.isdir(real):
            os.makedirs(own, exist_ok=True)
        elif content:
            shutil.copyfile(real, own)
        else:
            os.close(os.open(own, os.O_CREAT | os.O_WRONLY))
        with contextlib.suppress(OSError):
            shutil.copystat(real, own, follow_symlinks=False)

    def _merge(self, real: str) -> None:
        """Bring a whole folder up."""
        own = self._upper + real
        if not os.path.lexists(own):
            self._copy_up(real, own, content=True)
        for name in self.names(real):
            inner = os.path.join(real, name)
            place = self.place(inner)
            if os.path.isdir(place) and not os.path.islink(place):
                self._merge(inner)
            elif place == inner and _can_be_copied(inner):
                self._copy_up(inner, self._upper + inner, content=True)


def _can_be_copied(path: str) -> bool:
    mode = os.lstat(path).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
