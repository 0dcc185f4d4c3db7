"""The model before a prescription and after it: what is new, what ran where, which calls were changed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.anatomy import Layer, read_anatomy
from unvanish.treatment.flow import Stage
from unvanish.treatment.init_plan import Planned, plan_init
from unvanish.treatment.patch.edits import NewEdit, new_edits
from unvanish.treatment.patch.facts import (
    Change,
    FunctionCall,
    Site,
)
from unvanish.treatment.patch.record import Recorder, Root
from unvanish.treatment.registry import TREATMENTS

Tree = dict[str, nn.Module]


class Operated:
    """The model before one prescription; made before it is carried out, asked afterwards."""

    def __init__(
        self,
        recorder: Recorder,
        root: Root,
        prescription: Prescription,
        paths: dict[int, str],
        functions: tuple[FunctionCall, ...],
        earlier: Sequence[Change] = (),
    ) -> None:
        """`paths` are of the untreated model's modules, by id; `earlier` the changes so far."""
        self.recorder, self.root, self.prescription = recorder, root, prescription
        self.model = root.model
        self.paths, self.functions, self.earlier = paths, functions, earlier
        self.before: Tree = dict(self.model.named_modules(remove_duplicate=False))
        self.anatomy = read_anatomy(self.model, None, root.batch)
        self.target = prescription.target
        self.settings = TREATMENTS.read(prescription)[1]
        self._edited = new_edits(recorder.places, self.model)
        self.plan: list[Planned] = []
        if prescription.treatment == "init":
            with contextlib.suppress(SurgeryError):  # the surgery itself will say it
                self.plan = plan_init(self.model, self.target, self.anatomy, self.settings)

    def path(self, module: nn.Module) -> str | None:
        """The module's path in the untreated model; None for a new one."""
        return self.paths.get(id(module))

    def fresh(self) -> list[nn.Module]:
        """The modules that this prescription brought, in order."""
        old = {id(m) for m in self.before.values()}
        return [m for m in self.model.modules() if id(m) not in old]

    def parents(self, module: nn.Module) -> list[nn.Module]:
        """Where the module stands now."""
        return [p for p in self.model.modules() if any(c is module for c in p._modules.values())]

    def edits(self) -> list[NewEdit]:
        """The calls in forwards that this prescription changed."""
        return [e for e in new_edits(self.recorder.places, self.model) if e not in self._edited]

    def change(self, **parts: Any) -> Change:
        """A change with this prescription."""
        return Change(prescription=self.prescription, **parts)

    def stages_at(self, site: Site) -> list[Stage]:
        """Everything that ran at a call in the source, in whichever instance of its class."""
        relative = self.recorder.places.relative
        return [
            stage for stage in self.anatomy.flow.stages
            if stage.site is not None
            and (stage.site.end_line, stage.site.end_column) == site.end
            and relative(stage.site.code.co_filename) == site.file
        ]  # fmt: skip


def kind_of(module: nn.Module) -> str:
    """The class's dotted name; torch.nn's own as users write them."""
    cls = type(module)
    if getattr(nn, cls.__name__, None) is cls:
        return f"torch.nn.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def base_of(module: nn.Module) -> str:
    """The nearest class of torch.nn that the module is an instance of."""
    bases = (b for b in type(module).__mro__ if getattr(nn, b.__name__, None) is b)
    return f"torch.nn.{next(bases).__name__}"


def layer_of(operated: Operated, norm: nn.Module, layers: dict[int, Layer]) -> Layer | None:
    """The layer in front: the neighbour in the container, or the one whose activation stands behind."""
    for parent in operated.parents(norm):
        children = list(parent.children())
        place = next(i for i, c in enumerate(children) if c is norm)
        if place and id(children[place - 1]) in layers:
            return layers[id(children[place - 1])]
        behind = children[place + 1] if place + 1 < len(children) else None
        for layer in layers.values():
            if layer.activation is not None and layer.activation is behind:
                return layer
    return None
