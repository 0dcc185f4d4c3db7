"""A script's own modules that are called like modules which are imported already, by us or by what we use."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

# python has these before the first line of any script, so that a script gets python's
_PYTHONS_OWN = frozenset(
    "__main__ _collections_abc _distutils_hack _frozen_importlib _frozen_importlib_external _sitebuiltins abc codecs "
    "encodings genericpath io ntpath os posixpath site sitecustomize stat usercustomize zipimport".split()
)


@contextlib.contextmanager
def room_for_modules_in(folder: Path) -> Iterator[None]:
    """Meanwhile what lies in the script's folder is imported from there, as it is in a fresh python.

    `import calendar` beside a calendar.py of the script's own means that; it would give python's, since torch has
    imported it before. At the end those who were there are there again.
    """
    aside = {}
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top in _PYTHONS_OWN or top in sys.builtin_module_names or not _is_in(folder, top):
            continue
        if not _comes_from(folder, top):
            aside[name] = sys.modules.pop(name)
    try:
        yield
    finally:
        tops = {name.partition(".")[0] for name in aside}
        for name in [n for n in sys.modules if n.partition(".")[0] in tops]:
            del sys.modules[name]
        sys.modules.update(aside)


def _is_in(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def _comes_from(folder: Path, top: str) -> bool:
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and folder.resolve() in Path(file).resolve().parents
