"""A patch in the making: the parsed files, their edits, what has to be defined, and what is to be said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

import libcst as cst

from unvanish.treatment.patch.facts import Facts, Norm, Site
from unvanish.treatment.patch.origin import Origins
from unvanish.treatment.patch.spelling import Spelling
from unvanish.treatment.patch.splices import Splices
from unvanish.treatment.patch.text import PatchError, Text, decode
from unvanish.treatment.patch.tree import Tree


class Draft:
    """All files of a patch. Every change asks it for trees and makes its edits in their splices."""

    def __init__(self, sources: Mapping[str, bytes | str], facts: Facts) -> None:
        """`sources` by their paths relative to `facts.root`.

        Raises:
            PatchError: a file can't be read or parsed, or is another one than ran.
        """
        self.facts = facts
        self.notes: list[str] = []
        self._trees: dict[str, Tree] = {}
        for path, raw in sources.items():
            if path in facts.digests and hashlib.sha256(_bytes(raw)).hexdigest() != facts.digests[path]:
                raise PatchError(f"{path} was changed since it ran", "make the patch anew", place=f"{path}:1")
            if path.endswith(".py"):
                self._trees[path] = Tree(decode(path, raw))
        self._splices = {path: Splices(tree) for path, tree in self._trees.items()}
        self._spellings = {path: Spelling(tree, self._splices[path]) for path, tree in self._trees.items()}
        self.origins = Origins(self._trees)
        self._defined: dict[tuple[str, str], str] = {}
        self._definitions: dict[tuple[str, int], list[str]] = {}  # by file and offset
        self.inserted: set[str] = set()  # layers that have a norm as their neighbour in a Sequential
        self.norms: tuple[Norm, ...] = ()  # of the change that is being made
        self.done: set[str] = set()  # what several modules share and is edited once

    def tree(self, path: str) -> Tree:
        """A file's tree.

        Raises:
            PatchError: it is not among the sources.
        """
        if path not in self._trees:
            raise PatchError(f"{path} is not among the sources that were handed in", place=f"{path}:1")
        return self._trees[path]

    def trees(self) -> list[Tree]:
        """All of them."""
        return list(self._trees.values())

    def edits(self, tree: Tree) -> Splices:
        """The file's edits."""
        return self._splices[tree.path]

    def spelling(self, tree: Tree) -> Spelling:
        """The file's names for torch."""
        return self._spellings[tree.path]

    def call(self, site: Site) -> tuple[Tree, cst.Call]:
        """The call of a site, in its tree.

        Raises:
            PatchError: it is not there.
        """
        tree = self.tree(site.file)
        return tree, tree.call_at(site, self._names_at(site))

    def _names_at(self, site: Site) -> set[str]:
        """What is called there, as far as the facts know: for pythons that know the line alone."""
        facts = self.facts
        if site.end is not None:
            return set()
        names = {facts.parts[p].kind for p in facts.born.get(site, ()) if p is not None}
        names |= {o.kind for o in facts.optimizers if o.site == site}
        names |= {"step" for s in facts.steps if s.site == site}
        names |= {f.name for f in facts.functions if f.site == site}
        names |= {facts.parts[p].name for p, s in facts.visits if s == site}
        return {name.rpartition(".")[2] for name in names}

    def attempt(self, change: Callable[[], object]) -> PatchError | None:
        """Make a change, or none of it: the fault is given back, and all is as before."""
        edits = {path: splices.saved() for path, splices in self._splices.items()}
        names = {path: spelling.saved() for path, spelling in self._spellings.items()}
        held = list(self.notes), dict(self._defined), set(self.inserted), set(self.done)
        definitions = {spot: list(codes) for spot, codes in self._definitions.items()}
        try:
            change()
        except PatchError as error:
            for path, splices in self._splices.items():
                splices.restore(edits[path])
                self._spellings[path].restore(names[path])
            self.notes, self._defined, self.inserted, self.done = held
            self._definitions = definitions
            return error
        return None

    def note(self, text: str) -> None:
        """Say something of the patch, once."""
        if text not in self.notes:
            self.notes.append(text)

    def texts(self) -> dict[str, tuple[Text, str]]:
        """Every file with its new text. The last thing that is asked."""
        self._with_definitions()
        return {path: (tree.source, self._splices[path].joined()) for path, tree in self._trees.items()}

    def free_name(self, tree: Tree, wanted: str) -> str:
        """`wanted`, or with a number behind it where the file has that name already."""
        name, number = wanted, 1
        while tree.uses(name) or tree.attributes(name):
            number += 1
            name = f"{wanted}_{number}"
        return name

    def define(self, tree: Tree, node: cst.CSTNode, name: str, lines: Iterable[str]) -> str:
        """Add a class or function to the module's body, in front of the statement that holds `node`, once.

        `lines` are indented by four spaces and speak of it as `{name}`. Gives the name that it got.
        """
        lines = tuple(lines)
        key = (tree.path, "\n".join(lines))
        if key not in self._defined:
            taken = [n for (path, _), n in self._defined.items() if path == tree.path]
            free = self.free_name(tree, name)
            while free in taken:
                free += "_"
            self._defined[key] = free
            self._place(tree, node, [line.replace("{name}", free) for line in lines])
        return self._defined[key]

    def _place(self, tree: Tree, node: cst.CSTNode, lines: list[str]) -> None:
        here = tree.start(tree.top_level(node))
        last: cst.CSTNode | None = None
        for statement in tree.module.body:
            if tree.start(statement) >= here:
                break
            if isinstance(statement, (cst.ClassDef, cst.FunctionDef)) or (
                not isinstance(last, (cst.ClassDef, cst.FunctionDef)) and _is_head(statement)
            ):
                last = statement
        step = [line.replace("    ", tree.indent) for line in lines]
        if last is None:
            raise PatchError(f"{tree.path} imports nothing before {tree.place(node)}", place=tree.place(node))
        end = tree.line_end(tree.end(last))
        self._definitions.setdefault((tree.path, end), []).append(tree.newline.join(step))

    def _with_definitions(self) -> None:
        """Two empty lines in front of each, and behind the last."""
        for (path, end), codes in self._definitions.items():
            tree = self._trees[path]
            blank = _blank_lines(tree.text[end:])
            apart = tree.newline * 3
            pad = "" if blank is None else tree.newline * max(0, 2 - blank)
            self._splices[path].behind(end, apart + apart.join(codes) + pad)
        self._definitions.clear()


def _is_head(statement: cst.CSTNode) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and isinstance(
        statement.body[0], (cst.Import, cst.ImportFrom)
    )


def _blank_lines(text: str) -> int | None:
    """How many empty lines follow the end of this line; None at the end of the file."""
    lines = text.replace("\r\n", "\n").split("\n")[1:]
    for place, line in enumerate(lines):
        if line.strip():
            return place
    return None


def _bytes(raw: bytes | str) -> bytes:
    return raw if isinstance(raw, bytes) else raw.encode("utf-8")
