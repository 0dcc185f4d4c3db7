"""The functions of `os`, and `open`, for a script whose writes lie elsewhere: each looks up where that is.

Each takes the real function first, and then what the script has given it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from unvanish.launch.isolation.view import View

if TYPE_CHECKING:
    from typing_extensions import Self

Call = Callable[..., Any]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_WRITING = frozenset("wxa+")


class Calls:
    """All of them, over one view."""

    def __init__(self, view: View) -> None:
        """By the name in `os`; `open` is python's own."""
        self._view = view
        self.of_os: dict[str, Call] = {
            "open": self._os_open, "scandir": self._scandir, "listdir": self._listdir, "chdir": self._chdir,
            "getcwd": self._getcwd, "getcwdb": self._getcwdb, "mkdir": self._new, "mkfifo": self._new,
            "mknod": self._new, "symlink": self._symlink, "link": self._link, "rmdir": self._rmdir,
            "unlink": self._unlink, "remove": self._unlink, "rename": self._rename, "replace": self._rename,
        }  # fmt: skip
        for name in ("stat", "access", "statvfs", "getxattr", "listxattr"):
            self.of_os[name] = self._look
        for name in ("lstat", "readlink"):
            self.of_os[name] = self._look_at_link
        for name in ("chmod", "chown", "utime", "truncate", "setxattr", "removexattr"):
            self.of_os[name] = self._change
        for name in ("lchown", "lchmod"):
            self.of_os[name] = self._change_link

    def open(self, real: Call, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """Python's own."""
        path = _text(file)
        if path is None:
            return real(file, mode, *args, **kwargs)
        if not _WRITING & set(mode):
            return real(self._view.to_read(path), mode, *args, **kwargs)
        return real(self._view.to_write(path, keep="w" not in mode), mode, *args, **kwargs)

    def _os_open(
        self, real: Call, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> Any:
        text = _text(path, dir_fd)
        if text is None:
            return real(path, flags, mode)
        follow = not flags & getattr(os, "O_NOFOLLOW", 0)
        if flags & WRITES:
            place = self._view.to_write(text, follow=follow, keep=not flags & os.O_TRUNC)
        else:
            place = self._view.to_read(text, follow=follow)
        return real(place, flags, mode)

    # --- looking ----------------------------------------------------------------------------------------------

    def _look(self, real: Call, path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
        text = _text(path, dir_fd)
        if text is None:
            return real(path, *args, **kwargs)
        return real(self._view.to_read(text, follow=kwargs.get("follow_symlinks", True)), *args, **kwargs)

    def _look_at_link(self, real: Call, path: Any, *args: Any, dir_fd: int | None = None) -> Any:
        text = _text(path, dir_fd)
        found = real(path if text is None else self._view.to_read(text, follow=False), *args)
        return os.fsencode(found) if isinstance(path, bytes) and isinstance(found, str) else found

    def _listdir(self, real: Call, path: Any = ".") -> Any:
        text = _text(path)
        if text is None:
            return real(path)
        folder = self._view.real(text)
        place, through = self._view.layers(text)
        names = real(place) if through is None and place != folder else self._view.names(folder)
        if not names:
            real(place)  # says so where it is no folder
        return [os.fsencode(n) for n in names] if isinstance(path, bytes) else names

    def _scandir(self, real: Call, path: Any = ".") -> Any:
        text = _text(path)
        if text is None:
            return real(path)
        place, through = self._view.layers(text)
        folder = self._view.real(text)
        entries = [e for e in real(place) if place != folder or not self._view.hidden(folder, e.name)]
        own = {e.name for e in entries}
        if through is not None:
            entries += [
                e for e in real(through) if e.name not in own and not self._view.hidden(through, e.name)
            ]
        return _Entries(entries, path if path is not None else ".")

    def _chdir(self, real: Call, path: Any) -> Any:
        text = _text(path)
        return real(path if text is None else self._view.place(self._view.real(text)))

    def _getcwd(self, real: Call) -> str:
        del real
        return self._view.here()

    def _getcwdb(self, real: Call) -> bytes:
        del real
        return os.fsencode(self._view.here())

    # --- changing ---------------------------------------------------------------------------------------------

    def _change(self, real: Call, path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
        text = _text(path, dir_fd)
        if text is None:
            return real(path, *args, **kwargs)
        place = self._view.to_write(text, follow=kwargs.get("follow_symlinks", True))
        return real(place, *args, **kwargs)

    def _change_link(self, real: Call, path: Any, *args: Any) -> Any:
        return real(self._view.to_write(_sure(path), follow=False), *args)

    def _new(self, real: Call, path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
        return real(self._vacant(_sure(path, dir_fd)), *args, **kwargs)

    def _symlink(
        self, real: Call, src: Any, dst: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any
    ) -> Any:
        return real(os.fsdecode(src), self._vacant(_sure(dst, dir_fd)), *args, **kwargs)

    def _link(
        self, real: Call, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> Any:  # fmt: skip
        # a copy is what gets the second name: what is written under either is not to reach the user's file
        place = self._view.to_write(_sure(src, src_dir_fd), follow=follow_symlinks)
        return real(place, self._vacant(_sure(dst, dst_dir_fd)))

    def _vacant(self, text: str) -> str:
        """The place of a new name."""
        path = self._view.real(text, follow=False)
        if os.path.lexists(self._view.place(path)):
            raise _error(errno.EEXIST, text)
        return self._view.to_write(text, follow=False)

    def _unlink(self, real: Call, path: Any, *, dir_fd: int | None = None) -> None:
        text = _sure(path, dir_fd)
        name = self._view.real(text, follow=False)
        place = self._view.place(name)
        if not os.path.lexists(place):
            raise _error(errno.ENOENT, text)
        if os.path.isdir(place) and not os.path.islink(place):
            raise _error(errno.EISDIR, text)
        if place != name or not self._view.zones.protects(name):
            real(place)
        self._view.forget(name)

    def _rmdir(self, real: Call, path: Any, *, dir_fd: int | None = None) -> None:
        text = _sure(path, dir_fd)
        name = self._view.real(text, follow=False)
        place = self._view.place(name)
        if not os.path.lexists(place):
            raise _error(errno.ENOENT, text)
        if os.path.islink(place) or not os.path.isdir(place):
            raise _error(errno.ENOTDIR, text)
        if self._view.names(name):
            raise _error(errno.ENOTEMPTY, text)
        if place != name or not self._view.zones.protects(name):
            real(place)
        self._view.forget(name)

    def _rename(
        self, real: Call, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        source, target = _sure(src, src_dir_fd), _sure(dst, dst_dir_fd)
        moved, old = self._view.to_move(source)
        if not os.path.lexists(moved):
            raise _error(errno.ENOENT, source)
        if old == self._view.real(target, follow=False):
            return
        into, new = self._view.room(target)
        real(moved, into)
        self._view.forget(old)
        self._view.forget(new)


class _Entries:
    """What os.scandir gives, over two layers."""

    def __init__(self, entries: list[os.DirEntry[str]], folder: Any) -> None:
        self._entries = iter([_Entry(e, folder) for e in entries])

    def __iter__(self) -> Iterator[_Entry]:
        return self

    def __next__(self) -> _Entry:
        return next(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No more entries."""
        self._entries = iter(())


class _Entry:
    """An os.DirEntry under the name by which the script knows it."""

    def __init__(self, entry: os.DirEntry[str], folder: Any) -> None:
        as_bytes = isinstance(folder, bytes)
        self.name: Any = os.fsencode(entry.name) if as_bytes else entry.name
        self.path: Any = os.path.join(os.fspath(folder), self.name)
        self._entry = entry

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def inode(self) -> int:
        """As of os.DirEntry."""
        return self._entry.inode()

    def is_symlink(self) -> bool:
        """As of os.DirEntry."""
        return self._entry.is_symlink()

    def is_junction(self) -> bool:
        """As of os.DirEntry."""
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """As of os.DirEntry; a link may lead from one layer to the other."""
        if follow_symlinks and self.is_symlink():
            return os.path.isdir(self.path)
        return self._entry.is_dir(follow_symlinks=False)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """As of os.DirEntry."""
        if follow_symlinks and self.is_symlink():
            return os.path.isfile(self.path)
        return self._entry.is_file(follow_symlinks=False)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As of os.DirEntry."""
        return os.stat(self.path, follow_symlinks=follow_symlinks)


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)


def _sure(path: Any, dir_fd: int | None = None) -> str:
    text = _text(path, dir_fd)
    if text is None:
        raise TypeError(f"path should be string, bytes or os.PathLike, not {type(path).__name__}")
    return text


def _text(path: Any, dir_fd: int | None = None) -> str | None:
    """A path as text; None where it is an open file. An open folder is asked for its name."""
    if isinstance(path, int):
        return None
    text = "." if path is None else os.fsdecode(path)
    if dir_fd is None or os.path.isabs(text):
        return text
    return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
