"""What one prescription did to the module tree, read from before and after."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment import activations
from unvanish.treatment.anatomy import Layer, read_anatomy, within
from unvanish.treatment.blocks import Residual
from unvanish.treatment.draw import seed_mark
from unvanish.treatment.init_plan import Planned, plan_init
from unvanish.treatment.patch.facts import (
    Change,
    Drawn,
    Dropped,
    FunctionCall,
    FunctionSwap,
    Norm,
    Skip,
    Swap,
)
from unvanish.treatment.patch.record import Recorder, Root
from unvanish.treatment.registry import TREATMENTS
from unvanish.treatment.spans import keeps_shape

Tree = dict[str, nn.Module]
_NORM_FEATURES = {"GroupNorm": "num_channels", "LayerNorm": "normalized_shape"}


class Operated:
    """The model before one prescription; made before it is carried out, asked afterwards."""

    def __init__(
        self,
        recorder: Recorder,
        root: Root,
        prescription: Prescription,
        paths: dict[int, str],
        functions: tuple[FunctionCall, ...],
    ) -> None:
        """`paths` are of the untreated model's modules, by id."""
        self.recorder, self.root, self.prescription = recorder, root, prescription
        self.model = root.model
        self.paths, self.functions = paths, functions
        self.before: Tree = dict(self.model.named_modules(remove_duplicate=False))
        self.anatomy = read_anatomy(self.model)
        self.target = prescription.target
        self.plan: list[Planned] = []
        if prescription.treatment == "init":
            _, settings = TREATMENTS.read(prescription)
            with contextlib.suppress(SurgeryError):  # the surgery itself will say it
                self.plan = plan_init(self.model, self.target, self.anatomy, settings)

    def path(self, module: nn.Module) -> str | None:
        """The module's path in the untreated model; None for a new one."""
        return self.paths.get(id(module))

    def fresh(self) -> list[nn.Module]:
        """The modules that this prescription brought, in order."""
        old = {id(m) for m in self.before.values()}
        return [m for m in self.model.modules() if id(m) not in old]

    def parents(self, module: nn.Module) -> list[tuple[nn.Module, str]]:
        """Where the module stands now."""
        return [(p, n) for p in self.model.modules() for n, c in p._modules.items() if c is module]

    def change(self, **parts: Any) -> Change:
        """A change with this prescription."""
        return Change(prescription=self.prescription, **parts)


def read_change(operated: Operated, fault: SurgeryError | None) -> Change:
    """What was changed; `fault` is why surgery refused (then what is called in forward may still be changed)."""
    treatment = operated.prescription.treatment
    reader = _READERS.get(treatment)
    if reader is None:
        return operated.change(refused=None if fault is None else fault.mistake)
    if fault is not None and treatment != "activation":
        return operated.change(refused=fault.mistake)
    return reader(operated, fault)


# --- other activations ------------------------------------------------------------------------------------------


def _activation(operated: Operated, fault: SurgeryError | None) -> Change:
    _, settings = TREATMENTS.read(operated.prescription)
    kind, slope = settings.word("kind"), settings.number("slope")
    wanted = activations.build(kind, slope)
    called = [
        f for f in operated.functions if not f.kept and f.name != kind and within(f.owner, operated.target)
    ]
    if fault is not None and not called:
        return operated.change(refused=fault.mistake)
    if fault is None:
        swaps = _swaps(operated)
        if not operated.anatomy.functional:
            called = []  # surgery knew of none, so that the recipe leaves them
    else:
        hidden = [
            m for m in operated.anatomy.hidden if within(operated.paths.get(id(m), ""), operated.target)
        ]
        swaps = tuple(_swap(operated.paths[id(m)], m, wanted) for m in hidden if repr(m) != repr(wanted))
    arguments = f"{slope!r}" if kind == "leaky_relu" else ""
    return operated.change(
        swaps=swaps, functions=tuple(FunctionSwap(call=f, name=kind, arguments=arguments) for f in called)
    )


def _swaps(operated: Operated) -> tuple[Swap, ...]:
    """Modules whose place is taken by one of another class, each once."""
    found: dict[str, Swap] = {}
    after: Tree = dict(operated.model.named_modules(remove_duplicate=False))
    for place, old in operated.before.items():
        new, path = after.get(place), operated.path(old)
        if new is not None and new is not old and path is not None and id(new) not in operated.paths:
            found.setdefault(path, _swap(path, old, new))
    return tuple(found.values())


def _swap(path: str, old: nn.Module, new: nn.Module) -> Swap:
    same = old.extra_repr() == new.extra_repr() != ""
    return Swap(
        path=path,
        old=type(old).__name__,
        new=type(new).__name__,
        arguments=None if same else arguments_of(new),
    )


def arguments_of(module: nn.Module) -> str:
    """The arguments that build such a module of torch's; empty where the defaults do."""
    try:
        if repr(type(module)()) == repr(module):
            return ""
    except TypeError:
        pass
    if isinstance(module, nn.LeakyReLU):
        return repr(module.negative_slope)
    return module.extra_repr()


# --- norms ------------------------------------------------------------------------------------------------------


def _norms(operated: Operated, _: SurgeryError | None) -> Change:
    layers = {id(layer.module): layer for layer in operated.anatomy.layers}
    found = []
    for norm in operated.fresh():
        if any(True for _ in norm.children()):
            continue
        layer = _layer_of(operated, norm, layers)
        path = None if layer is None else operated.path(layer.module)
        if layer is None or path is None:
            return operated.change(refused="which layer a new norm belongs to could not be read")
        act = None if layer.activation is None else operated.path(layer.activation)
        called = [f.site for f in operated.functions if f.layer == path]
        found.append(
            Norm(
                layer=path,
                kind=type(norm).__name__,
                before=f"{norm.num_groups}, " if isinstance(norm, nn.GroupNorm) else "",
                features=_features(norm),
                activation=act,
                function=called[0] if act is None and len(called) == 1 else None,
            )
        )
    return operated.change(norms=tuple(found))


def _layer_of(operated: Operated, norm: nn.Module, layers: dict[int, Layer]) -> Layer | None:
    """The layer in front: the neighbour in the container, or the one whose activation stands behind."""
    for parent, _ in operated.parents(norm):
        children = list(parent.children())
        place = next(i for i, c in enumerate(children) if c is norm)
        if place and id(children[place - 1]) in layers:
            return layers[id(children[place - 1])]
        behind = children[place + 1] if place + 1 < len(children) else None
        for layer in layers.values():
            if layer.activation is not None and layer.activation is behind:
                return layer
    return None


def _features(norm: nn.Module) -> int:
    value = getattr(norm, _NORM_FEATURES.get(type(norm).__name__, "num_features"))
    return int(value[0]) if isinstance(value, tuple) else int(value)


# --- skips, dropped blocks --------------------------------------------------------------------------------------


def _skips(operated: Operated, _: SurgeryError | None) -> Change:
    found = []
    inside: set[int] = set()
    for block in operated.fresh():
        if not isinstance(block, Residual):
            continue
        body = [block.body]
        if operated.path(block.body) is None:
            body = [m for m in block.body.children() if operated.path(m) is not None]
        names = [operated.path(m) for m in body]
        if not names or names[0] is None or names[-1] is None:
            return operated.change(refused="what a skip goes around could not be read")
        inside |= {id(m) for m in block.modules()}
        found.append(Skip(first=names[0], last=names[-1], scale=block.scale))
    if not found:
        return operated.change(refused="what the skips go around could not be read")
    uneven = [
        layer.region or layer.path
        for layer in operated.anatomy.layers
        if id(layer.module) not in inside and not keeps_shape(layer.module)
    ]
    return operated.change(skips=tuple(found), uneven=tuple(uneven))


def _dropped(operated: Operated, _: SurgeryError | None) -> Change:
    now = {id(m) for m in operated.model.modules()}
    gone = {p: m for p, m in operated.before.items() if id(m) not in now}
    tops = [p for p in gone if p.rpartition(".")[0] not in gone]
    names = [operated.path(gone[p]) for p in tops]
    if any(n is None for n in names):
        return operated.change(refused="a block that an earlier change built is dropped")
    return operated.change(dropped=tuple(Dropped(members=(n,)) for n in names if n is not None))


# --- inits ------------------------------------------------------------------------------------------------------


def _init(operated: Operated, _: SurgeryError | None) -> Change:
    own = TREATMENTS.read(operated.prescription)[1].optional("seed")
    slots = Counter(id(p) for m in operated.model.modules() for p in m._parameters.values())
    drawn = []
    for one in operated.plan:
        path = operated.path(one.module)
        if path is None:
            return operated.change(refused="a new module's weights are drawn")
        if slots[id(one.parameter)] > 1:
            return operated.change(refused=f"the weight of {path} is shared with another module")
        value = one.parameter
        drawn.append(
            Drawn(
                path=path, module=base_of(one.module), name=one.name, kind=one.draw.kind, size=one.draw.size,
                pieces=one.draw.pieces, kept=one.draw.kept, blank=one.draw.blank, inward=one.inward,
                outward=one.outward, gain=one.gain, shape=tuple(value.shape),
                stored=value.is_contiguous() and value.dtype.itemsize == 4 and value.device.type == "cpu",
            )
        )  # fmt: skip
    frozen = any(not p.requires_grad for one in operated.plan for p in one.module.parameters(recurse=False))
    return operated.change(
        drawn=tuple(drawn),
        seed=None if own is None else int(own),
        seed_mark=seed_mark(operated.target),
        partial=frozen,
    )


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


_READERS: dict[str, Callable[[Operated, SurgeryError | None], Change]] = {
    "activation": _activation,
    "output": lambda operated, _: operated.change(swaps=_swaps(operated)),
    "batchnorm": _norms,
    "layernorm": _norms,
    "groupnorm": _norms,
    "residual": _skips,
    "simplify": _dropped,
    "init": _init,
}
