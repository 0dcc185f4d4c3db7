"""Source files as bytes and text, and unified diffs that `git apply` takes."""

from __future__ import annotations

import difflib
import io
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass

from unvanish.errors import UnvanishError

_LINE = re.compile(r"\r\n|\r|\n")


class PatchError(UnvanishError):
    """This source can't be changed safely by a program. `place` is file:line of what stands in the way."""

    def __init__(self, mistake: str, mend: str = "", *, place: str = "") -> None:
        """Keep the place beside the two halves."""
        super().__init__(mistake, mend)
        self.place = place


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A file's text with what it takes to write it back byte by byte."""

    path: str
    text: str
    encoding: str

    def encoded(self, text: str) -> bytes:
        """Another text in this file's encoding (with its byte order mark, if it has one)."""
        return text.encode(self.encoding)


def decode(path: str, raw: bytes | str) -> Text:
    """Read a source as python does: by its byte order mark or coding line, else as UTF-8.

    Raises:
        PatchError: not a text in its declared encoding.
    """
    if isinstance(raw, str):
        return Text(path=path, text=raw, encoding="utf-8")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise PatchError(f"{path} is not a text in its encoding ({error})", place=f"{path}:1") from error
    if text.encode(encoding) != raw:
        raise PatchError(f"{path} does not come back the same from its encoding", place=f"{path}:1")
    return Text(path=path, text=text, encoding=encoding)


def line_starts(text: str) -> list[int]:
    """The offset at which each line begins."""
    return [0, *(found.end() for found in _LINE.finditer(text))]


def diff(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> bytes:
    """One unified diff of all files that differ, with a/ and b/ in front of the paths, for `git apply -p1`.

    Bytes, since files may be in different encodings; ends of lines and a missing one at the end are kept.
    """
    parts = [_file_diff(path, before[path], new) for path, new in after.items() if before[path] != new]
    return b"".join(parts)


def _file_diff(path: str, old: bytes, new: bytes) -> bytes:
    # latin-1 takes every byte to one character and back; only \n ends a line, as git sees it
    lines = difflib.unified_diff(
        _lines(old), _lines(new), _name("a", path), _name("b", path), lineterm="\n", n=3
    )
    found = []
    for place, line in enumerate(lines):
        if place < 2 or line.endswith("\n"):
            found.append(line)
        else:
            found.append(line + "\n\\ No newline at end of file\n")
    head, body = found[:2], found[2:]
    return "".join(head).encode("utf-8") + "".join(body).encode("latin-1")


def _lines(raw: bytes) -> list[str]:
    text = raw.decode("latin-1")
    return [part + "\n" for part in text.split("\n")[:-1]] + (
        [last] if (last := text.split("\n")[-1]) else []
    )


def _name(side: str, path: str) -> str:
    """The path as git writes it: quoted where it has to be, with a tab behind it where it has a space."""
    if any(letter in '"\\' or ord(letter) < 32 for letter in path):
        inner = "".join(
            f"\\{letter}" if letter in '"\\' else f"\\{ord(letter):03o}" if ord(letter) < 32 else letter
            for letter in path
        )
        return f'"{side}/{inner}"'
    return f"{side}/{path}" + ("\t" if " " in path else "")
