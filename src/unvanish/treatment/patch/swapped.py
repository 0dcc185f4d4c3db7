"""Which modules are of another class after a prescription, and which calls are of another function."""

from __future__ import annotations

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.treatment import activations
from unvanish.treatment.anatomy import within
from unvanish.treatment.kinds import BATCH_NORMS
from unvanish.treatment.patch.edits import NewEdit
from unvanish.treatment.patch.facts import (
    Appended,
    Change,
    FunctionSwap,
    Site,
    Swap,
)
from unvanish.treatment.patch.operated import Operated, Tree, base_of, layer_of


def read_swapped(operated: Operated) -> Change:
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
    functions, fault = function_swaps(operated)
    appended = []
    for new in operated.fresh():
        if any(True for _ in new.children()) or any(after.get(p) is new for p in swaps):
            continue
        layer = layer_of(operated, new, {id(x.module): x for x in operated.anatomy.layers})
        path = None if layer is None else operated.path(layer.module)
        if path is None:
            return operated.change(refused=f"where the new {type(new).__name__} stands could not be read")
        appended.append(Appended(layer=path, kind=type(new).__name__, arguments=arguments_of(new)))
    operated.paths.update(stands)  # for the changes that follow
    return operated.change(
        swaps=tuple(swaps.values()), functions=functions, appended=tuple(appended), refused=fault
    )


def function_swaps(operated: Operated) -> tuple[tuple[FunctionSwap, ...], str | None]:
    """The calls of another function; or why one of them can't be told by its place in the source."""
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
            (s for s in operated.stages_at(site) if s.site is None or s.site.owner not in owners), None
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


def _names_at(operated: Operated, edit: NewEdit) -> list[str]:
    """What ran at an edited call."""
    return [
        stage.activation if stage.activation != "identity" else stage.name.rstrip("_")
        for stage in operated.anatomy.flow.stages
        if stage.site is not None
        and stage.site.owner == edit.owner
        and (stage.site.end_line, stage.site.end_column) == edit.end
    ]


def read_seen(operated: Operated, fault: SurgeryError) -> Change:
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


def _short(module: nn.Module) -> str | None:
    """Those of a norm that is as torch builds it by its sizes alone."""
    if isinstance(module, nn.GroupNorm):
        return f"{module.num_groups}, {module.num_channels}"
    if isinstance(module, nn.LayerNorm):
        return ", ".join(map(str, module.normalized_shape))
    return str(module.num_features) if isinstance(module, BATCH_NORMS) else None


def arguments_of(module: nn.Module) -> str:
    """The arguments that build such a module of torch's; empty where the defaults do."""
    try:
        if repr(type(module)()) == repr(module):
            return ""
    except TypeError:
        pass
    if isinstance(module, nn.LeakyReLU):
        return repr(module.negative_slope)
    short = _short(module)
    if short is not None:
        return short
    return module.extra_repr()
