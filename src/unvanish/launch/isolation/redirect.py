"""Where the kernel can't do it (`mounts.py`): python's own functions that open, make, rename or remove files are led.

What does not come by these functions is refused by an audit hook where python raises an event for it: a trial that
fails is better than a file that is lost. Native code that opens files by itself is not seen: of the libraries that
scripts save with, the best known are led by name (`_NATIVE`). Started programs are not held.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
import pathlib
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import Any

from unvanish.launch.importing import when_imported
from unvanish.launch.isolation.calls import WRITES, Call, Calls
from unvanish.launch.isolation.view import View

# (module, name in it, which argument is the path, its name, whether it may write)
_NATIVE: tuple[tuple[str, str, int, str, bool], ...] = (
    ("torch", "_C.PyTorchFileWriter", 0, "file_name", True),
    ("torch", "_C.PyTorchFileReader", 0, "file_name", False),
    ("torch", "UntypedStorage.from_file", 0, "filename", True),
    ("torch", "from_file", 0, "filename", True),
    ("torch", "jit.RecursiveScriptModule.save", 1, "f", True),
    ("torch", "jit.load", 0, "f", False),
    ("torch", "autograd.profiler.profile.export_chrome_trace", 1, "path", True),
    ("sqlite3", "connect", 0, "database", True),
    ("h5py", "File.__init__", 1, "name", True),
    ("cv2", "imwrite", 0, "filename", True),
    ("cv2", "imread", 0, "filename", False),
    ("safetensors.torch", "save_file", 1, "filename", True),
    ("safetensors.torch", "load_file", 0, "filename", False),
    ("safetensors", "safe_open", 0, "filename", False),
)
# audit events, and which of their arguments are paths that are written
_EVENTS = {
    "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.rename": (0, 1), "os.truncate": (0,), "os.link": (1,),
    "os.symlink": (1,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "os.setxattr": (0,),
}  # fmt: skip


class Redirect:
    """Leads the calls of this process while it is active, save its own."""

    def __init__(self, view: View) -> None:
        """Nothing is changed yet."""
        self._view = view
        self._calls = Calls(view)
        self._undo: list[tuple[Any, str, Any]] = []
        self._thread = threading.local()
        self.active = False

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Put the functions in place of python's own, wherever those are known by name."""
        self.active = True
        led: dict[int, tuple[Any, Any]] = {}
        for name, change in self._calls.of_os.items():
            original = getattr(os, name, None)
            if original is not None and id(original) not in led:
                led[id(original)] = original, self._led(original, change)
        led[id(io.open)] = io.open, self._led(io.open, self._calls.open)
        for name in self._calls.of_os:
            if hasattr(os, name):
                self._put(os, name, led[id(getattr(os, name))][1])
        self._put(builtins, "open", led[id(io.open)][1])
        for module in list(sys.modules.values()):
            self._replace_in(module, led)
        # of Python 3.10: pathlib keeps them in a class
        accessor = getattr(pathlib, "_NormalAccessor", None)
        for name, value in list(vars(accessor).items()) if accessor is not None else ():
            plain = value.__func__ if isinstance(value, staticmethod) else value
            if id(plain) in led:
                self._put(accessor, name, staticmethod(led[id(plain)][1]))
        self._put(shutil, "_use_fd_functions", False)  # by names, which we can follow
        for name, path, index, keyword, writes in _NATIVE:
            when_imported(name, functools.partial(self._lead_native, name, path, index, keyword, writes))
        _watch(self)

    def end(self) -> None:
        """Put python's own back."""
        self.active = False
        while self._undo:
            setattr(*self._undo.pop())
        _REDIRECTS.remove(self)

    # --- inside -----------------------------------------------------------------------------------------------

    def _put(self, owner: Any, name: str, value: Any) -> None:
        before = vars(owner).get(name, getattr(owner, name))
        with contextlib.suppress(AttributeError, TypeError):  # a class of C
            setattr(owner, name, value)
            self._undo.append((owner, name, before))

    def _replace_in(self, module: Any, led: dict[int, tuple[Any, Any]]) -> None:
        """`from os import remove`, `bltn_open = open`: a module that holds them under names of its own."""
        name = getattr(module, "__name__", None)
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict) or not isinstance(name, str):
            return
        if name in ("posix", "_io", "os", "builtins") or name.startswith(("unvanish.", "importlib")):
            return
        for key, value in list(names.items()):
            known = led.get(id(value))
            if known is not None and known[0] is value:
                self._put(module, key, known[1])

    def _led(self, original: Call, change: Call) -> Call:
        @functools.wraps(original)
        def called(*args: Any, **kwargs: Any) -> Any:
            if not self.active or self.inside or kwargs.get("opener") is not None:  # which opens it itself
                return original(*args, **kwargs)
            self._thread.inside = True
            try:
                return change(original, *args, **kwargs)
            except OSError as error:
                if isinstance(error.filename, str):
                    error.filename = self._view.seen(error.filename)
                raise
            finally:
                self._thread.inside = False

        return called

    @property
    def inside(self) -> bool:
        """Whether it is us who calls."""
        return getattr(self._thread, "inside", False)

    def _lead_native(self, module: str, path: str, index: int, keyword: str, writes: bool) -> None:
        owner: Any = sys.modules[module]
        *way, name = path.split(".")
        for part in way:
            owner = getattr(owner, part, None)
        original = getattr(owner, name, None)
        if original is None or not self.active:
            return

        def place(real: Call, *args: Any, **kwargs: Any) -> Any:
            given = args[index] if len(args) > index else kwargs.get(keyword)
            if isinstance(given, str | bytes | os.PathLike) and not _is_no_file(given):
                found = self._place(os.fsdecode(given), writes)
                if len(args) > index:
                    args = (*args[:index], found, *args[index + 1 :])
                else:
                    kwargs[keyword] = found
            return real(*args, **kwargs)

        def led(*args: Any, **kwargs: Any) -> Any:
            if not self.active:
                return original(*args, **kwargs)
            return place(original, *args, **kwargs)

        wrapped = functools.wraps(original)(led) if callable(original) else led
        self._put(
            owner, name, staticmethod(wrapped) if isinstance(vars(owner).get(name), staticmethod) else wrapped
        )

    def _place(self, path: str, writes: bool) -> str:
        uri = path.startswith("file:")  # of sqlite
        name, _, query = path.removeprefix("file:").partition("?") if uri else (path, "", "")
        before, self._thread.inside = self.inside, True
        try:
            found = self._view.to_write(name) if writes else self._view.to_read(name)
        finally:
            self._thread.inside = before
        return f"file:{found}" + (f"?{query}" if query else "") if uri else found

    def refuse(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What comes by the real functions, and would write what is protected.

        Raises:
            PermissionError: it says so.
        """
        if event == "open":
            path, _, flags = (*arguments, None, None)[:3]
            paths = [path] if isinstance(flags, int) and flags & WRITES else []
        else:
            paths = [arguments[i] for i in _EVENTS[event] if len(arguments) > i]
        for path in paths:
            if not isinstance(path, str | bytes | os.PathLike):
                continue
            name = os.fsdecode(path)
            if "__pycache__" in name or name.endswith(".pyc") or self.inside:
                continue
            self._thread.inside = True
            try:
                protected = self._view.zones.protects(os.path.realpath(name))
            finally:
                self._thread.inside = False
            if protected:
                raise PermissionError(
                    1, "a trial may not write here, and this way of writing can't be led", name
                )


def _is_no_file(name: Any) -> bool:
    text = os.fsdecode(name)
    return text in ("", ":memory:") or text.startswith("file::memory:")


_REDIRECTS: list[Redirect] = []
_watched: list[bool] = []


def end_all() -> None:
    """Lead no more."""
    while _REDIRECTS:
        _REDIRECTS[-1].end()


def _watch(redirect: Redirect) -> None:
    """An audit hook can't be taken away: one for the whole process, that rests while nothing is redirected."""
    _REDIRECTS.append(redirect)
    if _watched:
        return
    _watched.append(True)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if _REDIRECTS and (event == "open" or event in _EVENTS):
            for one in _REDIRECTS:
                if one.active and not one.inside:
                    one.refuse(event, arguments)

    sys.addaudithook(hear)
