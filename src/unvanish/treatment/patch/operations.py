"""What one prescription did to the model, read from before and after: in the module tree, and in its forwards."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment import activations
from unvanish.treatment.anatomy import Layer, read_anatomy, within
from unvanish.treatment.blocks import Residual
from unvanish.treatment.draw import seed_mark
from unvanish.treatment.flow import Stage
from unvanish.treatment.init_plan import Planned, plan_init
from unvanish.treatment.patch.edits import NewEdit, new_edits
from unvanish.treatment.patch.facts import (
    Appended,
    CallSkip,
    Change,
    Drawn,
    FunctionCall,
    FunctionSwap,
    Norm,
    Site,
    Skip,
    Swap,
)
from unvanish.treatment.patch.record import Recorder, Root
from unvanish.treatment.patch.seen import SeenLayers
from unvanish.treatment.registry import TREATMENTS
from unvanish.treatment.spans import keeps_shape

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


def read_change(operated: Operated, fault: SurgeryError | None) -> Change:
    """What was changed; `fault` is why surgery refused (then what is called in forward may still be changed)."""
    treatment = operated.prescription.treatment
    reader = _READERS.get(treatment)
    if fault is not None and treatment == "activation":
        return _seen_activations(operated, fault)
    if fault is not None and treatment == "init":
        return _seen_init(operated, fault)
    if fault is not None:
        return operated.change(refused=fault.mistake)
    return operated.change() if reader is None else reader(operated)


# --- other activations and outputs --------------------------------------------------------------------------------


def _activation(operated: Operated) -> Change:
    """Modules of another class, calls of another function."""
    swaps: dict[str, Swap] = {}
    stands: dict[int, str] = {}
    after: Tree = dict(operated.model.named_modules(remove_duplicate=False))
    for place, old in operated.before.items():
        new, path = after.get(place), operated.path(old)
        if new is None or new is old or path is None or id(new) in operated.paths:
            continue
        if not any(m is old for m in new.modules()):  # else it is a wrapper around the old one
            swaps.setdefault(path, _swap(path, old, new))
            stands[id(new)] = path
    functions, fault = _function_swaps(operated)
    appended = []
    for new in operated.fresh():
        if any(True for _ in new.children()) or any(after.get(p) is new for p in swaps):
            continue
        layer = _layer_of(operated, new, {id(x.module): x for x in operated.anatomy.layers})
        path = None if layer is None else operated.path(layer.module)
        if path is None:
            return operated.change(refused=f"where the new {type(new).__name__} stands could not be read")
        appended.append(Appended(layer=path, kind=type(new).__name__, arguments=arguments_of(new)))
    operated.paths.update(stands)  # for the changes that follow
    return operated.change(
        swaps=tuple(swaps.values()), functions=functions, appended=tuple(appended), refused=fault
    )


def _function_swaps(operated: Operated) -> tuple[tuple[FunctionSwap, ...], str | None]:
    by_site: dict[tuple[Site, str, str | None], list[NewEdit]] = {}
    for edit in operated.edits():
        if edit.site is None:
            return (), f"a call in {edit.owner or 'the model'} is changed that is not in the sources"
        arguments: str | None = repr(edit.value) if edit.name == "leaky_relu" else ""
        if edit.action == "callee":
            arguments = None
        by_site.setdefault((edit.site, edit.name, arguments), []).append(edit)
    swaps = []
    for (site, name, arguments), edits in by_site.items():
        owners = {edit.owner for edit in edits}
        other = next(
            (s for s in _stages_at(operated, site) if s.site is None or s.site.owner not in owners), None
        )
        if other is not None and other.site is not None and other.activation != name:
            where = f"{site.file}:{site.line}"
            return (
                (),
                f"the call in {where} becomes {name} in {edits[0].owner}, and stays in {other.site.owner}",
            )
        swaps.append(
            FunctionSwap(
                site=site,
                old=tuple(sorted({n for e in edits for n in _names_at(operated, e)})),
                name=name,
                arguments=arguments,
                owners=tuple(dict.fromkeys(e.owner for e in edits)),
            )
        )
    return tuple(swaps), None


def _stages_at(operated: Operated, site: Site) -> list[Stage]:
    """Everything that ran at a call in the source, in whichever instance of its class."""
    relative = operated.recorder.places.relative
    return [
        stage for stage in operated.anatomy.flow.stages
        if stage.site is not None
        and (stage.site.end_line, stage.site.end_column) == site.end
        and relative(stage.site.code.co_filename) == site.file
    ]  # fmt: skip


def _names_at(operated: Operated, edit: NewEdit) -> list[str]:
    """What ran at an edited call."""
    return [
        stage.activation if stage.activation != "identity" else stage.name.rstrip("_")
        for stage in operated.anatomy.flow.stages
        if stage.site is not None
        and stage.site.owner == edit.owner
        and (stage.site.end_line, stage.site.end_column) == edit.end
    ]


def _seen_activations(operated: Operated, fault: SurgeryError) -> Change:
    """Where no surgery can change what is called in forward: the source still can."""
    kind, slope = operated.settings.word("kind"), operated.settings.number("slope")
    hidden = [
        f for f in operated.functions if not f.kept and f.name != kind and within(f.owner, operated.target)
    ]
    if not hidden or kind in activations.LEARNED or any(f.site is None for f in hidden):
        return operated.change(refused=fault.mistake)
    wanted = activations.build(kind, slope)
    modules = [m for m in operated.anatomy.hidden if within(operated.paths.get(id(m), ""), operated.target)]
    swaps = tuple(_swap(operated.paths[id(m)], m, wanted) for m in modules if repr(m) != repr(wanted))
    functions = []
    for site in dict.fromkeys(f.site for f in hidden if f.site is not None):
        here = [f for f in operated.functions if f.site == site]
        kept = next((f.kept for f in here if f.kept), None)
        if kept is not None:
            return operated.change(
                refused=f"the {here[0].name} in {site.file}:{site.line} is hidden for one layer, and has to stay "
                f"for another ({kept})"
            )
        functions.append(
            FunctionSwap(
                site=site,
                old=tuple(sorted({f.name for f in here})),
                name=kind,
                arguments=repr(slope) if kind == "leaky_relu" else "",
                owners=tuple(dict.fromkeys(f.owner for f in here)),
            )
        )
    return operated.change(swaps=swaps, functions=tuple(functions), only_here=fault.mistake)


def _swap(path: str, old: nn.Module, new: nn.Module) -> Swap:
    same = old.extra_repr() == new.extra_repr() != ""
    names = [base_of(m).rpartition(".")[2] for m in (old, new)]
    return Swap(path=path, old=names[0], new=names[1], arguments=None if same else arguments_of(new))


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


def _norms(operated: Operated) -> Change:
    layers = {id(layer.module): layer for layer in operated.anatomy.layers}
    found = []
    for norm in operated.fresh():
        if any(True for _ in norm.children()):
            continue
        layer = _layer_of(operated, norm, layers)
        path = None if layer is None else operated.path(layer.module)
        if layer is None or path is None:
            return operated.change(refused="which layer a new norm belongs to could not be read")
        axes = [c.axes for c in operated.recorder.watch.calls if c.module is layer.module]
        found.append(
            Norm(
                layer=path,
                kind=base_of(norm).rpartition(".")[2],
                before=f"{norm.num_groups}, " if isinstance(norm, nn.GroupNorm) else "",
                features=_features(norm),
                axes=max(axes, default=0),
                activation=None if layer.activation is None else operated.path(layer.activation),
                function=_called_behind(operated, layer, path),
            )
        )
    return operated.change(norms=tuple(found))


def _layer_of(operated: Operated, norm: nn.Module, layers: dict[int, Layer]) -> Layer | None:
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


def _called_behind(operated: Operated, layer: Layer, path: str) -> Site | None:
    """The function that is called straight behind a layer."""
    if layer.activation is not None:
        return None
    called = [f.site for f in operated.functions if f.layer == path]
    return called[0] if len(called) == 1 else None


def _features(norm: nn.Module) -> int:
    for name in ("num_features", "num_channels", "normalized_shape"):
        value = getattr(norm, name, None)
        if value is not None:
            return int(value[0]) if isinstance(value, tuple) else int(value)
    return 0


# --- skips, dropped blocks --------------------------------------------------------------------------------------


def _skips(operated: Operated) -> Change:
    found = []
    inside: set[int] = set()
    for block in operated.fresh():
        if not isinstance(block, Residual):
            continue
        body = [block.body]
        if operated.path(block.body) is None:
            body = [m for m in block.body.children() if operated.path(m) is not None]
        first, last = (operated.path(m) if body else None for m in (body[:1] + body[-1:] or [block]))
        if first is None or last is None:
            return operated.change(refused="what a skip goes around could not be read")
        inside |= {id(m) for m in block.modules()}
        found.append(Skip(first=first, last=last, scale=block.scale))
    calls, fault = _call_skips(operated)
    if not found and not calls:
        fault = fault or "what the skips go around could not be read"
    uneven = [
        layer.region or layer.path
        for layer in operated.anatomy.layers
        if id(layer.module) not in inside and not keeps_shape(layer.module)
    ]
    return operated.change(skips=tuple(found), call_skips=calls, uneven=tuple(uneven), refused=fault)


def _call_skips(operated: Operated) -> tuple[tuple[CallSkip, ...], str | None]:
    """Pairs of edits: what is kept at one call is added at another."""
    edits = operated.edits()
    kept = {(e.owner, e.name): e for e in edits if e.action == "keep"}
    found: list[CallSkip] = []
    for last in (e for e in edits if e.action == "add"):
        first = kept.get((last.owner, last.name))
        if first is None or first.site is None or last.site is None:
            return (), f"a call in {last.owner or 'the model'} is changed that is not in the sources"
        passing = {id(stage.module) for stage in _stages_at(operated, first.site)}
        mixed = any(id(x.module) in passing and not keeps_shape(x.module) for x in operated.anatomy.layers)
        owners = {e.owner for e in edits if e.site == first.site}
        others = [
            s for s in _stages_at(operated, first.site) if s.site is not None and s.site.owner not in owners
        ]
        if any(s.module is not None and keeps_shape(s.module) for s in others):
            return (), f"{first.site.file}:{first.site.line} also runs a layer that gets no skip"
        skip = CallSkip(first=first.site, last=last.site, scale=last.value, mixed=mixed)
        if skip not in found:
            found.append(skip)
    sites = [(s.first, s.last) for s in found]
    if len(set(sites)) != len(sites):  # other instances of the class pass other layers
        found = [
            CallSkip(first=a, last=b, scale=found[0].scale, mixed=any(s.mixed for s in found if s.first == a))
            for a, b in dict.fromkeys(sites)
        ]
    return tuple(found), None


def _dropped(operated: Operated) -> Change:
    now = {id(m) for m in operated.model.modules()}
    gone = {p: m for p, m in operated.before.items() if id(m) not in now}
    tops = [p for p in gone if p.rpartition(".")[0] not in gone]
    names = [operated.path(gone[p]) for p in tops]
    if any(n is None for n in names):
        return operated.change(refused="a block that an earlier change built is dropped")
    functions, fault = _function_swaps(operated)
    dropped = tuple(n for n in names if n is not None)
    return operated.change(dropped=dropped, functions=functions, refused=fault)


# --- inits ------------------------------------------------------------------------------------------------------


def _init(operated: Operated) -> Change:
    if not operated.plan:
        return operated.change(refused="what the init draws could not be read")
    slots = Counter(id(p) for m in operated.model.modules() for p in m._parameters.values())
    drawn = []
    for one in operated.plan:
        path, value = operated.path(one.module), one.parameter
        if path is None:
            return operated.change(refused="a new module's weights are drawn")
        if slots[id(value)] > 1:
            return operated.change(refused=f"the weight of {path} is shared with another module")
        drawn.append(
            Drawn(
                path=path, module=base_of(one.module), name=one.name, kind=one.draw.kind, size=one.draw.size,
                pieces=one.draw.pieces, kept=one.draw.kept, blank=one.draw.blank, inward=one.inward,
                outward=one.outward, gain=one.gain, shape=tuple(value.shape),
                stored=value.is_contiguous() and value.dtype.itemsize == 4 and value.device.type == "cpu",
            )
        )  # fmt: skip
    own = operated.settings.optional("seed")
    return operated.change(
        drawn=tuple(drawn),
        seed=None if own is None else int(own),
        seed_mark=seed_mark(operated.target),
        partial=any(
            not p.requires_grad for one in operated.plan for p in one.module.parameters(recurse=False)
        ),
    )


def _seen_init(operated: Operated, fault: SurgeryError) -> Change:
    """The same where the activations are known from the observed pass alone."""
    layers = SeenLayers(operated.recorder.watch, operated.paths, operated.earlier)
    try:
        operated.plan = plan_init(operated.model, operated.target, layers, operated.settings)
    except SurgeryError:
        return operated.change(refused=fault.mistake)
    change = _init(operated)
    return (
        replace(change, only_here=fault.mistake) if change.drawn else operated.change(refused=fault.mistake)
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


_READERS: dict[str, Callable[[Operated], Change]] = {
    "activation": _activation,
    "output": _activation,
    "batchnorm": _norms,
    "layernorm": _norms,
    "groupnorm": _norms,
    "residual": _skips,
    "simplify": _dropped,
    "init": _init,
    "gated_rnn": _activation,
}
