"""What one prescription did to the model, read from before and after: one reader for each treatment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from unvanish.errors import SurgeryError
from unvanish.treatment.draw import seed_mark
from unvanish.treatment.init_plan import plan_init
from unvanish.treatment.norms import FeatureBatchNorm, FeatureGroupNorm, SecondAxisBatchNorm
from unvanish.treatment.other_norms import PlainNorm
from unvanish.treatment.patch.facts import (
    Change,
    Drawn,
)
from unvanish.treatment.patch.operated import Operated, base_of
from unvanish.treatment.patch.rebuilt import read_dropped, read_entrances, read_norms, read_skips
from unvanish.treatment.patch.seen import SeenLayers
from unvanish.treatment.patch.swapped import read_seen, read_swapped


def read_change(operated: Operated, fault: SurgeryError | None) -> Change:
    """What was changed; `fault` is why surgery refused (then what is called in forward may still be changed)."""
    treatment = operated.prescription.treatment
    reader = _READERS.get(treatment)
    if fault is not None and treatment == "activation":
        return read_seen(operated, fault)
    if fault is not None and treatment == "init":
        return _seen_init(operated, fault)
    if fault is not None:
        return operated.change(refused=fault.mistake)
    return operated.change() if reader is None else reader(operated)


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


def _norms(operated: Operated) -> Change:
    """New ones between layers and activations, or others in the place of those that are there."""
    if operated.settings.word("at") == "layers":
        return read_norms(operated)
    change = read_swapped(operated)
    swaps = []
    for swap in change.swaps:
        kind = _torchs_name(operated, swap.path)
        if kind is None:
            return replace(change, refused=f"torch has no norm for what {swap.path} is called with")
        swaps.append(replace(swap, new=kind))
    return replace(change, swaps=tuple(swaps))


def _torchs_name(operated: Operated, path: str) -> str | None:
    """The class of torch's that does what the new norm does, on inputs of as many axes as were seen; None: none."""
    new, old = operated.model.get_submodule(path), operated.before[path]
    axes = {c.axes for c in operated.recorder.watch.calls if c.module is old}
    if isinstance(new, SecondAxisBatchNorm):
        kinds = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}
        return kinds.get(axes.pop()) if len(axes) == 1 else None
    if isinstance(new, FeatureBatchNorm | FeatureGroupNorm) and axes != {2}:
        return None
    return None if isinstance(new, PlainNorm) else base_of(new).rpartition(".")[2]


_READERS: dict[str, Callable[[Operated], Change]] = {
    "activation": read_swapped,
    "output": read_swapped,
    "batchnorm": _norms,
    "layernorm": _norms,
    "groupnorm": _norms,
    "residual": read_skips,
    "simplify": read_dropped,
    "inputs": read_entrances,
    "init": _init,
    "gated_rnn": read_swapped,
}
