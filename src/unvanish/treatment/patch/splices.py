"""Edits of a text that know nothing of each other, joined in the end: all else stays as it is, byte by byte."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree


@dataclass(frozen=True, slots=True)
class _Splice:
    start: int
    end: int  # equal to start: an insertion
    text: str
    closing: bool  # an insertion that belongs to what stands in front of it
    far: int  # the other end of a wrap


class Splices:
    """The edits of one file. Wraps nest by what they go around; of two around the same, the later one is outside."""

    def __init__(self, tree: Tree) -> None:
        """No edit yet."""
        self.tree = tree
        self._found: list[_Splice] = []

    def __bool__(self) -> bool:
        """Whether there is any edit."""
        return bool(self._found)

    def saved(self) -> tuple[_Splice, ...]:
        """The edits so far, for `restore`."""
        return tuple(self._found)

    def restore(self, saved: tuple[_Splice, ...]) -> None:
        """Forget what came after."""
        self._found = list(saved)

    def replace(self, start: int, end: int, text: str) -> None:
        """Put a text in the place of another. The same edit again does nothing.

        Raises:
            PatchError: another edit is there already.
        """
        new = _Splice(start, end, text, False, end)
        if new in self._found:
            return
        for old in self._found:
            inserted = old.start == old.end
            crosses = start < old.start < end if inserted else start < old.end and old.start < end
            if crosses:
                raise self._meeting(start)
        if self.tree.text[start:end] != text:
            self._found.append(new)

    def replace_node(self, node: cst.CSTNode, text: str) -> None:
        """Put a text in a node's place."""
        self.replace(self.tree.start(node), self.tree.end(node), text)

    def wrap(self, start: int, end: int, before: str, behind: str) -> None:
        """Put texts around a range."""
        self._insert(start, before, closing=False, far=end)
        self._insert(end, behind, closing=True, far=start)

    def wrap_node(self, node: cst.CSTNode, before: str, behind: str) -> None:
        """Put texts around a node."""
        self.wrap(self.tree.start(node), self.tree.end(node), before, behind)

    def behind(self, offset: int, text: str) -> None:
        """Insert a text that belongs to what stands in front of it."""
        self._insert(offset, text, closing=True)

    def lines_before(self, statement: cst.CSTNode, lines: list[str]) -> None:
        """Insert lines, indented like the statement, in front of it (behind its comments)."""
        start = self.tree.start(statement)
        first = self.tree.line_start(start)
        margin = self.tree.text[first:start]
        self._refuse_unless_blank(margin, statement)
        self._insert(first, "".join(margin + line + self.tree.newline for line in lines), closing=True)

    def before(self, node: cst.CSTNode, lines: list[str]) -> None:
        """Insert statements in front of the one that holds `node`: on lines of their own, or in its line with `;`.

        Raises:
            PatchError: the node is in the head of a compound statement.
        """
        small = self.tree.above(node, cst.BaseSmallStatement)
        line = None if small is None else self.tree.parents[small]
        if isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1:
            self.lines_before(line, lines)
        elif small is not None and isinstance(line, (cst.SimpleStatementLine, cst.SimpleStatementSuite)):
            self._insert(self.tree.start(small), "".join(f"{text}; " for text in lines), closing=True)
        else:
            place = self.tree.place(node)
            raise PatchError(f"{place} is not in a statement of its own", place=place)

    def lines_after(self, statement: cst.CSTNode, lines: list[str]) -> None:
        """Insert lines, indented like the statement, behind it (and behind its trailing comment)."""
        start, end = self.tree.start(statement), self.tree.end(statement)
        first = self.tree.line_start(start)
        margin = self.tree.text[first:start]
        self._refuse_unless_blank(margin, statement)
        text = "".join(self.tree.newline + margin + line for line in lines)
        self._insert(self.tree.line_end(end), text, closing=True)

    def block(self, offset: int, text: str) -> None:
        """Insert whole lines at the beginning of a line."""
        self._insert(offset, text, closing=True)

    def joined(self) -> str:
        """The text with all edits."""
        order = sorted(enumerate(self._found), key=_place)
        text, parts, at = self.tree.text, [], 0
        for _, splice in order:
            parts += [text[at : splice.start], splice.text]
            at = max(at, splice.end)
        return "".join([*parts, text[at:]])

    def _insert(self, offset: int, text: str, *, closing: bool, far: int | None = None) -> None:
        new = _Splice(offset, offset, text, closing, offset if far is None else far)
        if any(old.start < offset < old.end for old in self._found):
            raise self._meeting(offset)
        if text:
            self._found.append(new)

    def _meeting(self, offset: int) -> PatchError:
        place = f"{self.tree.path}:{self.tree.text.count(chr(10), 0, offset) + 1}"
        return PatchError(f"two changes meet at {place}", place=place)

    def _refuse_unless_blank(self, margin: str, statement: cst.CSTNode) -> None:
        if margin.strip(" \t\f"):
            place = self.tree.place(statement)
            raise PatchError(f"{place} is not a statement on a line of its own", place=place)


def _place(pair: tuple[int, _Splice]) -> tuple[int, int, int, int]:
    """At one offset: what closes (the inner first), what opens (the outer first), then what is replaced."""
    when, splice = pair
    if splice.closing:
        return (splice.start, 0, -splice.far, when)
    return (splice.start, 1 if splice.start == splice.end else 2, -splice.far, -when)
