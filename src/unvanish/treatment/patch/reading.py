"""From a recorded script and a recipe to plain facts: what the surgery changes, and where that is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from unvanish.errors import SurgeryError, UsageError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.draw import quiet_rng
from unvanish.treatment.operate import Undo, apply
from unvanish.treatment.patch.facts import (
    Change,
    Facts,
    FunctionCall,
    OptimizerFact,
    Part,
    Site,
    StepFact,
    Walk,
)
from unvanish.treatment.patch.operated import Operated, base_of, kind_of
from unvanish.treatment.patch.operations import read_change
from unvanish.treatment.patch.record import Built, Recorder, Root
from unvanish.treatment.patch.watch import Watch
from unvanish.treatment.recipe import Recipe, has_fingerprint

_BY_RATE = ("learning_rate", "clip", "reconnect", "precision")  # these change no module's code

# these go through everything inside, however deep
_FROM_OUTSIDE = ("parameters", "named_parameters", "modules", "named_modules", "apply", "load_state_dict")


def read_facts(recorder: Recorder, recipe: Recipe | Sequence[Prescription]) -> Facts:
    """All that a source patch of this recipe needs, from what the recorder saw of the script.

    The model is treated and put back, bit by bit. With a recipe, it is the module of its fingerprint; else the
    first that the script called in training.

    Raises:
        UsageError: the script called no module that an optimizer trains, or not the recipe's.
    """
    known = recipe if isinstance(recipe, Recipe) else None
    plan = recipe.prescriptions if isinstance(recipe, Recipe) else tuple(recipe)
    root = _choose(recorder, known)
    model = root.model
    paths = {id(m): p for p, m in model.named_modules()}
    functions = _functions(recorder.watch, paths)
    changes: list[Change] = []
    with _put_back(model):
        undos: list[Undo] = []
        try:
            for prescription in plan:
                operated = Operated(recorder, root, prescription, paths, functions, tuple(changes))
                changes.append(_carry_out(operated, undos))
        finally:
            for undo in reversed(undos):
                undo.undo()
    return Facts(
        root=recorder.places.root,
        model=type(model).__name__,
        parts=_parts(recorder, model),
        born=_born(recorder, paths),
        visits=tuple((paths[id(m)], site) for m, site in recorder.watch.visits if id(m) in paths),
        functions=functions,
        optimizers=tuple(_optimizer(b, model) for b in recorder.built if _holds(b, model)),
        steps=_steps(recorder, model),
        walks=_walks(recorder, model, paths),
        changes=tuple(changes),
        learning_rate=None if known is None else known.learning_rate,
        seed=None if known is None else known.seed,
        digests=dict(recorder.places.digests),
        frozen=tuple(name for name, p in model.named_parameters() if not p.requires_grad),
        began=tuple((site, _names(names, model)) for site, names in recorder.began),
        unwatched=None if recorder.watch.calls else "its forward pass was not seen",
    )


def _choose(recorder: Recorder, recipe: Recipe | None) -> Root:
    if not recorder.roots:
        raise UsageError(
            "the script called no module that an optimizer trains",
            "start a script that trains a torch.nn.Module",
        )
    if recipe is None:
        return recorder.roots[0]
    for root in recorder.roots:
        if has_fingerprint(root.model, recipe.fingerprint):
            return root
    raise UsageError(
        f"the script trains no {recipe.model_class} of the recipe's shapes",
        "make the patch from the script and options that the recipe was made for",
    )


def _carry_out(operated: Operated, undos: list[Undo]) -> Change:
    """Do it to the model, and say what is another now; `undos` gets the way back."""
    prescription = operated.prescription
    if prescription.treatment in _BY_RATE:
        return Change(prescription=prescription)
    try:
        undos.append(apply(operated.model, [prescription], batch=operated.root.batch, seed=0))
    except SurgeryError as error:
        return read_change(operated, error)
    return read_change(operated, None)


@contextlib.contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Buffers (running statistics), random state and the training mode as they were."""
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    with quiet_rng(model):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, saved in buffers:
                    buffer.copy_(saved)


def _parts(recorder: Recorder, model: nn.Module) -> dict[str, Part]:
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                holders.setdefault(id(child), []).append((parent, name))
    found = {}
    for path, module in model.named_modules():
        places = holders.get(id(module), [])
        holder, name = places[0] if places else (None, "")
        found[path] = Part(
            path=path,
            kind=kind_of(module),
            base=base_of(module),
            birth=recorder.birth_of(module),
            holder="" if holder is None else kind_of(holder),
            name=name,
            places=len(places),
        )
    return found


def _born(recorder: Recorder, paths: dict[int, str]) -> dict[Site, tuple[str | None, ...]]:
    found: dict[Site, list[str | None]] = {}
    for module, birth in recorder.alive():
        found.setdefault(birth.site, []).append(paths.get(id(module)))
    return {site: tuple(who) for site, who in found.items()}


def _functions(watch: Watch, paths: dict[int, str]) -> tuple[FunctionCall, ...]:
    """The called activations of this model, in order."""
    reach = watch.reaches()
    found = []
    for index, call in enumerate(watch.calls):
        if call.activation and call.module is None and call.owner is not None and id(call.owner) in paths:
            layer = watch.layer_before(index)
            found.append(
                FunctionCall(
                    name=call.name,
                    site=call.site,
                    owner=paths[id(call.owner)],
                    kept=watch.kept(index, reach),
                    layer=None if layer is None else paths.get(id(layer)),
                )
            )
    return tuple(found)


def _holds(built: Built, model: nn.Module) -> bool:
    own = {id(p) for p in model.parameters()}
    return any(id(p) in own for g in built.optimizer.param_groups for p in g["params"])


def _optimizer(built: Built, model: nn.Module) -> OptimizerFact:
    held = {id(p) for g in built.optimizer.param_groups for p in g["params"]}
    own = {id(p) for p in model.parameters()}
    frames = [(site, _names(names, model)) for site, names in built.frames]
    return OptimizerFact(
        site=built.site,
        kind=type(built.optimizer).__name__,
        names=frames[0][1] if frames else (),
        rates=built.rates,
        ours=tuple(any(id(p) in own for p in g["params"]) for g in built.optimizer.param_groups),
        default_rate=float(built.optimizer.defaults.get("lr", float("nan"))),
        outer=tuple(frames[1:]),
        whole=all(id(p) in held for p in model.parameters() if p.requires_grad),
    )


def _steps(recorder: Recorder, model: nn.Module) -> tuple[StepFact, ...]:
    return tuple(
        StepFact(site=s.site, names=_names(s.names, model), scaled=s.scaled, closure=s.closure)
        for s in recorder.steps
        if any(b.optimizer is s.optimizer and _holds(b, model) for b in recorder.built)
    )


def _walks(recorder: Recorder, model: nn.Module, paths: dict[int, str]) -> tuple[Walk, ...]:
    """What the script goes through before its first optimizer of this model is there."""
    first = next((i for i, b in enumerate(recorder.built) if _holds(b, model)), 0)
    found: dict[Walk, None] = {}
    for module, method, site, built in recorder.walks.found:
        path = paths.get(id(module))
        if path is None and method in _FROM_OUTSIDE and any(m is model for m in module.modules()):
            path = ""  # what holds the model goes through it as well
        if path is not None and built <= first:
            found[Walk(path=path, method=method, site=site)] = None
    return tuple(found)


def _names(names: dict[str, nn.Module], model: nn.Module) -> tuple[str, ...]:
    """Expressions for the model in a frame: its own names there, else its place in what holds it."""
    own = tuple(name for name, module in names.items() if module is model)
    if own:
        return own
    found = []
    for name, holder in names.items():
        path = next((p for p, m in holder.named_modules() if m is model), None)
        if path is not None:
            found.append(name + _access(holder, path))
    return tuple(found)


def _access(holder: nn.Module, path: str) -> str:
    """.trunk[0] for trunk.0, ["body"] in a ModuleDict."""
    text = ""
    for part in path.split("."):
        if isinstance(holder, (nn.Sequential, nn.ModuleList)):
            text += f"[{part}]"
        else:
            text += f'["{part}"]' if isinstance(holder, nn.ModuleDict) else f".{part}"
        holder = holder._modules[part] or holder
    return text
