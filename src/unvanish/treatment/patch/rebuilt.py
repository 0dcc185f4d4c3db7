"""What stands elsewhere after a prescription: norms behind layers, skips around blocks, blocks that are gone."""

from __future__ import annotations

from torch import nn

from unvanish.treatment.anatomy import Layer
from unvanish.treatment.blocks import Residual
from unvanish.treatment.boundary import Standardised
from unvanish.treatment.dressing import coats_of
from unvanish.treatment.patch.facts import (
    CallSkip,
    Change,
    Entrance,
    Norm,
    Site,
    Skip,
)
from unvanish.treatment.patch.operated import Operated, base_of, layer_of
from unvanish.treatment.patch.swapped import function_swaps
from unvanish.treatment.spans import keeps_shape
from unvanish.treatment.standardise import Standardise


def read_norms(operated: Operated) -> Change:
    """Each new norm with the layer in front of it and the activation behind."""
    layers = {id(layer.module): layer for layer in operated.anatomy.layers}
    found = []
    for norm in operated.fresh():
        if any(True for _ in norm.children()):
            continue
        layer = layer_of(operated, norm, layers)
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


def read_skips(operated: Operated) -> Change:
    """What the skips go around: modules of a container, or two calls in a forward."""
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
        passing = {id(stage.module) for stage in operated.stages_at(first.site)}
        mixed = any(id(x.module) in passing and not keeps_shape(x.module) for x in operated.anatomy.layers)
        owners = {e.owner for e in edits if e.site == first.site}
        others = [
            s for s in operated.stages_at(first.site) if s.site is not None and s.site.owner not in owners
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


def read_entrances(operated: Operated) -> Change:
    """What the new standardisers stand in front of."""
    found = []
    for front in (m for m in operated.fresh() if isinstance(m, Standardise)):
        path, name = _behind(operated, front)
        if path is None:
            return operated.change(refused="where the data is standardised could not be read")
        called = [c for c in operated.recorder.watch.visits if operated.path(c[0]) == path]
        if len(called) != 1:
            return operated.change(refused=f"{path or 'the model'} sees the data more than once in a pass")
        found.append(Entrance(layer=path, name=name, features=front.mean.numel(), axis=front.axis))
    return operated.change(entrances=tuple(found))


def _behind(operated: Operated, front: nn.Module) -> tuple[str | None, str]:
    """The path of what a standardiser stands in front of, and the argument's name where that is the model itself."""
    for parent in operated.parents(front):
        if parent is operated.model:
            coat = next((c for c in coats_of(parent) if isinstance(c, Standardised)), None)
            if coat is not None:
                return "", coat.name
        children = list(parent.children())
        place = next(i for i, c in enumerate(children) if c is front)
        if place + 1 < len(children):
            return operated.path(children[place + 1]), ""
    return None, ""


def read_dropped(operated: Operated) -> Change:
    """The modules that left their containers, and the calls that hand on what they get."""
    now = {id(m) for m in operated.model.modules()}
    gone = {p: m for p, m in operated.before.items() if id(m) not in now}
    tops = [p for p in gone if p.rpartition(".")[0] not in gone]
    names = [operated.path(gone[p]) for p in tops]
    if any(n is None for n in names):
        return operated.change(refused="a block that an earlier change built is dropped")
    functions, fault = function_swaps(operated)
    dropped = tuple(n for n in names if n is not None)
    return operated.change(dropped=dropped, functions=functions, refused=fault)
