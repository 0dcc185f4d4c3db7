"""How a file writes the names of torch: nn.ReLU, torch.nn.ReLU, ReLU; and the import where it has none."""

from __future__ import annotations

import libcst as cst

from unvanish.treatment.patch.splices import Splices
from unvanish.treatment.patch.text import PatchError
from unvanish.treatment.patch.tree import Tree, dotted

# torch.nn.modules.activation.ReLU and the like are the classes that torch.nn gives out
_SAME = ("torch.nn.modules.activation.", "torch.nn.modules.linear.", "torch.nn.modules.")


class Spelling:
    """The imports of one file. `bound` maps a name to what it stands for, for the imports of the module's body."""

    def __init__(self, tree: Tree, splices: Splices) -> None:
        """Read the imports."""
        self._tree, self._splices = tree, splices
        self.bound: dict[str, str] = {}
        self._from_nn: cst.ImportFrom | None = None
        self._asked: dict[str, str] = {}
        self.stars: set[str] = set()
        for node in sorted([*tree.all(cst.Import), *tree.all(cst.ImportFrom)], key=tree.start):
            inner = any(isinstance(n, (cst.FunctionDef, cst.ClassDef)) for n in tree.around(node))
            if not inner and isinstance(node, (cst.Import, cst.ImportFrom)):
                self._read(node)

    def _read(self, node: cst.Import | cst.ImportFrom) -> None:
        if isinstance(node, cst.Import):
            for alias in node.names:
                name = dotted(alias.name) or ""
                as_name = alias.asname.name if alias.asname is not None else None
                if isinstance(as_name, cst.Name):
                    self.bound[as_name.value] = name
                else:
                    self.bound[name.partition(".")[0]] = name.partition(".")[0]
            return
        module = dotted(node.module) if node.module is not None else None
        if module is None or node.relative:
            return
        if isinstance(node.names, cst.ImportStar):
            self.stars.add(module)
            return
        for alias in node.names:
            as_name = alias.name if alias.asname is None else alias.asname.name  # type: ignore[assignment]  # a tuple never stands here
            if isinstance(as_name, cst.Name) and isinstance(alias.name, cst.Name):
                self.bound[as_name.value] = f"{module}.{alias.name.value}"
        if module == "torch.nn":
            self._from_nn = node

    def saved(self) -> tuple[dict[str, str], dict[str, str]]:
        """The names so far, for `restore`."""
        return dict(self.bound), dict(self._asked)

    def restore(self, saved: tuple[dict[str, str], dict[str, str]]) -> None:
        """Forget the imports that were added since."""
        self.bound, self._asked = dict(saved[0]), dict(saved[1])

    def meaning(self, node: cst.CSTNode) -> str | None:
        """What a dotted expression stands for: torch.nn.ReLU for nn.ReLU. None where no import tells."""
        name = dotted(node)
        if name is None:
            return None
        first, dot, rest = name.partition(".")
        if first in self.bound:
            full = self.bound[first] + dot + rest
        elif "torch.nn" in self.stars and not dot and first[:1].isupper():
            full = f"torch.nn.{first}"
        else:
            return None
        for prefix in _SAME:
            if full.startswith(prefix) and full.rpartition(".")[2][:1].isupper():
                return "torch.nn." + full.rpartition(".")[2]
        return full

    def write(self, full: str, like: cst.CSTNode | None = None) -> str:
        """How this file is to write a name of torch, in the manner of `like` where that is of the same module.

        An import is added where there is none that serves.

        Raises:
            PatchError: every name that would serve is taken by something else in this file.
        """
        module, _, last = full.rpartition(".")
        if like is not None:
            name = dotted(like) or ""
            left = name.rpartition(".")[0]
            if left and self.bound.get(left) == module:
                return f"{left}.{last}"
            if not left and self._from_nn is not None and module == "torch.nn":
                return self._bare(last)
        for name, meaning in self.bound.items():
            if meaning == full and self._safe(name):
                return name
        classes = module == "torch.nn" and last[:1].isupper()
        if classes and self._from_nn is not None and module not in self.bound.values():
            return self._bare(last)
        return self._through(full)

    def _through(self, full: str) -> str:
        """By the name of a module that is imported: nn.ReLU, torch.nn.ReLU."""
        for outer in self._outward(full.rpartition(".")[0]):
            for name, meaning in self.bound.items():
                if meaning == outer and self._safe(name):
                    return name + full[len(outer) :]
        return self._import(full)

    def _bare(self, last: str) -> str:
        if self.bound.get(last) == f"torch.nn.{last}":
            return last
        if (
            not self._tree.uses(last)
            and self._from_nn is not None
            and not isinstance(self._from_nn.names, cst.ImportStar)
        ):
            if last not in self._asked:
                self._asked[last] = last
                alias = self._from_nn.names[-1]
                spot = alias.name if alias.asname is None else alias.asname.name
                self._splices.behind(self._tree.end(spot), f", {last}")
                self.bound[last] = f"torch.nn.{last}"
            return last
        return self._through(f"torch.nn.{last}")

    def _import(self, full: str) -> str:
        taken = [
            n for n in self._tree.uses("torch") if self._tree.above(n, (cst.Import, cst.ImportFrom)) is None
        ]
        if "torch" in self._asked or not taken:
            if "torch" not in self._asked:
                self._asked["torch"] = "torch"
                self._splices.block(self._import_spot(), f"import torch{self._tree.newline}")
                self.bound["torch"] = "torch"
            return full
        raise PatchError(
            f"{self._tree.path} imports nothing that {full} could be written with",
            place=f"{self._tree.path}:1",
        )

    def _import_spot(self) -> int:
        """In front of the first import of the body that is not from __future__."""
        for statement in self._tree.module.body:
            if isinstance(statement, cst.SimpleStatementLine):
                first = statement.body[0]
                if isinstance(first, cst.Import) or (
                    isinstance(first, cst.ImportFrom)
                    and first.module is not None
                    and dotted(first.module) != "__future__"
                ):
                    return self._tree.line_start(self._tree.start(statement))
        raise PatchError(f"{self._tree.path} imports nothing", place=f"{self._tree.path}:1")

    def _outward(self, module: str) -> list[str]:
        parts = module.split(".")
        return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]

    def _safe(self, name: str) -> bool:
        """Whether the name means the import everywhere: nothing in the file binds it again."""
        for node in self._tree.uses(name):
            parent = self._tree.parents[node]
            if isinstance(parent, (cst.AssignTarget, cst.Param, cst.CompFor, cst.For, cst.AnnAssign)) and (
                getattr(parent, "target", None) is node or getattr(parent, "name", None) is node
            ):
                return False
        return True
