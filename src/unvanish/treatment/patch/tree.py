"""A parsed source: every node with its place in the text, its parents, and how to find a call in it."""

from __future__ import annotations

import bisect
from collections.abc import Container, Iterator
from typing import TypeVar, cast

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, ParentNodeProvider, PositionProvider

from unvanish.treatment.patch.facts import Site
from unvanish.treatment.patch.text import PatchError, Text, line_starts

Node = TypeVar("Node", bound=cst.CSTNode)
Scope = cst.FunctionDef | cst.Lambda | cst.ClassDef | cst.Module
Loop = cst.For | cst.CompFor


class Tree:
    """One file. Offsets count characters of its text."""

    def __init__(self, source: Text) -> None:
        """Parse.

        Raises:
            PatchError: no python that libcst knows.
        """
        self.source, self.text, self.path = source, source.text, source.path
        try:
            wrapper = MetadataWrapper(cst.parse_module(self.text), unsafe_skip_copy=True)
            self.positions = cast("dict[cst.CSTNode, CodeRange]", wrapper.resolve(PositionProvider))
            self.parents = cast("dict[cst.CSTNode, cst.CSTNode]", wrapper.resolve(ParentNodeProvider))
        except (cst.ParserSyntaxError, RecursionError) as error:
            raise PatchError(f"{self.path} can't be parsed", place=f"{self.path}:1") from error
        self.module = wrapper.module
        if self.module.code != self.text:
            raise PatchError(f"{self.path} can't be parsed without loss", place=f"{self.path}:1")
        self._starts = line_starts(self.text)
        self.nodes = [n for n in self.parents if n in self.positions]
        self._calls = {self.end(c): c for c in self.all(cst.Call)}

    @property
    def newline(self) -> str:
        """How most lines end."""
        return self.module.default_newline

    @property
    def indent(self) -> str:
        """One step of indentation."""
        return self.module.default_indent

    # --- places ---------------------------------------------------------------------------------------------

    def offset(self, line: int, column: int) -> int:
        """From libcst's (line from 1, column from 0)."""
        return self._starts[line - 1] + column

    def start(self, node: cst.CSTNode) -> int:
        """Where the node begins (inside of its own parentheses)."""
        at = self.positions[node].start
        return self.offset(at.line, at.column)

    def end(self, node: cst.CSTNode) -> int:
        """Just behind the node."""
        at = self.positions[node].end
        return self.offset(at.line, at.column)

    def close(self, node: cst.CSTNode) -> int:
        """Just behind the node and the parentheses that are its own."""
        own = getattr(node, "rpar", ())
        return self.end(own[-1]) if own else self.end(node)

    def line(self, node: cst.CSTNode) -> int:
        """The line that it begins in, from 1."""
        return int(self.positions[node].start.line)

    def place(self, node: cst.CSTNode) -> str:
        """file:line."""
        return f"{self.path}:{self.line(node)}"

    def code(self, node: cst.CSTNode) -> str:
        """The node's text."""
        return self.text[self.start(node) : self.end(node)]

    def line_start(self, offset: int) -> int:
        """Where the line of this offset begins."""
        return self._starts[bisect.bisect_right(self._starts, offset) - 1]

    def line_end(self, offset: int) -> int:
        """Where the line of this offset ends, in front of its newline."""
        place = bisect.bisect_right(self._starts, offset)
        end = self._starts[place] if place < len(self._starts) else len(self.text)
        return offset + len(self.text[offset:end].rstrip("\r\n"))

    # --- nodes ----------------------------------------------------------------------------------------------

    def all(self, kind: type[Node]) -> Iterator[Node]:
        """All nodes of a kind, in no special order."""
        return (n for n in self.nodes if isinstance(n, kind))

    def call_at(self, site: Site, names: Container[str] = ()) -> cst.Call:
        """The call of a site; `names` are what may be called there, for pythons that know the line alone.

        Raises:
            PatchError: it is not there, or (before python 3.11) there are several in its line.
        """
        place = f"{site.file}:{site.line}"
        if site.end is not None:
            line, column = site.end
            start = self._starts[line - 1]
            raw = self.text[start : self.line_end(start)].encode("utf-8")[:column]
            found = self._calls.get(start + len(raw.decode("utf-8", errors="replace")))
            if found is None:
                raise PatchError(f"no call was found where {place} makes one", place=place)
            return found
        near = [c for c in self.all(cst.Call) if self.line(c) == site.line]
        named = [c for c in near if _last_name(c.func).rstrip("_") in names] or near
        if len(named) != 1:
            raise PatchError(f"which of the calls in {place} is meant is not clear", place=place)
        return named[0]

    def above(self, node: cst.CSTNode, kind: type[Node] | tuple[type[Node], ...]) -> Node | None:
        """The nearest node of a kind around this one."""
        found = self.parents.get(node)
        while found is not None and not isinstance(found, kind):
            found = self.parents.get(found)
        return found if isinstance(found, kind) else None

    def around(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The nodes around this one, the nearest first."""
        found = self.parents.get(node)
        while found is not None:
            yield found
            found = self.parents.get(found)

    def inside(self, node: cst.CSTNode, outer: cst.CSTNode) -> bool:
        """Whether a node is this one or lies in it."""
        return node is outer or any(n is outer for n in self.around(node))

    def statement(self, node: cst.CSTNode, *, shared: bool = False) -> cst.SimpleStatementLine:
        """The simple statement, on lines of its own, that the node is in; `shared` allows for others in its line.

        Raises:
            PatchError: it is in the head of a compound statement, or several share a line.
        """
        for outer in self.around(node):
            if isinstance(outer, cst.SimpleStatementLine):
                if shared or len(outer.body) == 1:
                    return outer
                break
            if isinstance(outer, (cst.BaseCompoundStatement, cst.SimpleStatementSuite)):
                break
        raise PatchError(
            f"{self.place(node)} is not a statement on a line of its own", place=self.place(node)
        )

    def statement_or_none(self, node: cst.CSTNode) -> cst.SimpleStatementLine | None:
        """The simple statement that the node is in, whatever else stands in its line."""
        return self.above(node, cst.SimpleStatementLine)

    def scope(self, node: cst.CSTNode) -> Scope:
        """The function, class or module whose names the node sees first."""
        return self.above(node, (cst.FunctionDef, cst.Lambda, cst.ClassDef, cst.Module)) or self.module

    def top_level(self, node: cst.CSTNode) -> cst.CSTNode:
        """The statement of the module's body that holds the node."""
        for outer in [node, *self.around(node)]:
            if self.parents.get(outer) is self.module:
                return outer
        return self.module

    def uses(self, name: str, scope: cst.CSTNode | None = None) -> list[cst.Name]:
        """All plain names of this spelling in the scope, but attributes and keywords of the same spelling."""
        found = []
        for node in self.all(cst.Name):
            if node.value != name or (scope is not None and not self.inside(node, scope)):
                continue
            parent = self.parents[node]
            if isinstance(parent, cst.Attribute) and parent.attr is node:
                continue
            if isinstance(parent, cst.Arg) and parent.keyword is node:
                continue
            found.append(node)
        return sorted(found, key=self.start)

    def attributes(self, name: str, scope: cst.CSTNode | None = None) -> list[cst.Attribute]:
        """All `something.name` in the scope."""
        found = [
            n for n in self.all(cst.Attribute)
            if n.attr.value == name and (scope is None or self.inside(n, scope))
        ]  # fmt: skip
        return sorted(found, key=self.start)


def _last_name(node: cst.CSTNode) -> str:
    return (
        node.attr.value
        if isinstance(node, cst.Attribute)
        else node.value
        if isinstance(node, cst.Name)
        else ""
    )


def dotted(node: cst.CSTNode) -> str | None:
    """a.b.c as a text; None for anything else."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        left = dotted(node.value)
        return None if left is None else f"{left}.{node.attr.value}"
    return None


def argument(call: cst.Call, place: int, keyword: str) -> cst.Arg | None:
    """An argument by place or keyword; None where it is left out, or stars make it unclear."""
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value == keyword:
            return arg
    plain = []
    for arg in call.args:
        if arg.star:
            break
        if arg.keyword is None:
            plain.append(arg)
    return plain[place] if place < len(plain) else None


def is_self(node: cst.CSTNode, attribute: str | None = None) -> bool:
    """Whether it is self.attribute (any, where None is asked for)."""
    return (
        isinstance(node, cst.Attribute)
        and isinstance(node.value, cst.Name)
        and node.value.value == "self"
        and (attribute is None or node.attr.value == attribute)
    )
