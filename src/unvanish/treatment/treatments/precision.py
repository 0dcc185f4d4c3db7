"""Another number format, or what makes a low one bearable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, final

import torch
from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.boundary import Autocasts, Cast
from unvanish.treatment.code_names import names_in_methods
from unvanish.treatment.dressing import coats_of
from unvanish.treatment.guards import Guarded
from unvanish.treatment.loss_scale import HALVES, SLOT, LossScale, ScaledSignal
from unvanish.treatment.master_weights import MasterWeights
from unvanish.treatment.parameters import Choice, Spec
from unvanish.treatment.stepping import Nested, refuse_sparse
from unvanish.treatment.treatment import Operation, Treatment

_CASTS = {"half", "bfloat16", "float16", "autocast"}
_WIDENS = {"float", "float32", "double", "float64"}
_UNDER_AUTOCAST = (
    "where it runs under torch.autocast, use dtype=torch.bfloat16 there, a GradScaler, or mode loss_scaling"
)


@final
class Precision(Treatment):
    """Cure what a number format takes away, in one of five ways (`mode`).

    float32 and bfloat16: the weights of a half-precision model become float32 (float16 ones bfloat16); what comes in
    and goes out keeps the dtype that the script has. Where they are float32 already, a float16 autocast around the
    model's call becomes none, or one of bfloat16. loss_scaling: the gradient that enters the model at its results
    is multiplied by a scale, and each weight's gradient is divided by it as it arrives; a step that meets an
    infinite gradient is skipped and the scale halved, and it doubles after 2000 good steps, as GradScaler does it.
    master_weights: the optimizer updates float32 copies, and the model computes with their rounded values; for
    float16 the loss is scaled, too. guarded: in the model's forward, roots, logarithms and divisors are kept off zero
    (see guards.py), exp below its overflow, and a softmax over a row that is masked out whole counts it as open.
    Why: float16 ends at 6e-8, and gradients below that are zero; bfloat16 has 8 bits, and an update smaller than
    1/256 of a weight is lost. In any format 0/0 and the slope of a root at 0 are NaN, which spreads everywhere.
    When it is wrong: where memory is what counts (float32 takes twice of it). loss_scaling is wrong where a term of
    the loss does not come from the model's results (a penalty on its weights, say): that part is divided only.
    guarded is wrong where values below 1e-3 are meant as divisors, and can't reach what the loss does by itself.
    Source: Micikevicius et al. 2018; Kalamkar et al. 2019 (bfloat16).
    """

    name: ClassVar[TreatmentName] = "precision"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "mode": Choice(
            options=("float32", "bfloat16", "loss_scaling", "master_weights", "guarded"), required=True
        )
    }

    def operate(self, operation: Operation) -> None:
        """Carry out the mode."""
        mode = operation.settings.word("mode")
        if mode in ("float32", "bfloat16"):
            _convert(operation, torch.float32 if mode == "float32" else torch.bfloat16)
            return
        if mode == "guarded":
            _guard(operation)
            return
        if operation.target != "*":
            raise SurgeryError(f"{mode} is about the whole model", 'set the target to "*"')
        operation.surgery.optimizers.holding()  # refuses where there is none
        _refuse_twice(operation.root)
        if mode == "loss_scaling":
            _scale(operation)
        else:
            refuse_sparse(operation.root)
            _keep_masters(operation)


def _guard(operation: Operation) -> None:
    module = operation.module()
    if any(isinstance(coat, Guarded) for coat in coats_of(module)):
        raise SurgeryError(f"the functions of {operation.target!r} are guarded already", "prescribe it once")
    operation.surgery.dress(module, Guarded())


def _convert(operation: Operation, dtype: torch.dtype) -> None:
    module, values = operation.module(), operation.surgery.values
    sources = HALVES if dtype == torch.float32 else (torch.float16,)
    tensors = [t for t in [*module.parameters(), *module.buffers()] if t.dtype in sources]
    if not tensors:
        _recast(operation, dtype)
        return
    outside = tensors[0].dtype
    if any(t.dtype != outside for t in tensors):
        raise SurgeryError("the model mixes float16 and bfloat16", "give the target of one part")
    _refuse_shared(operation, module)
    _refuse_own_casts(module)
    for tensor in tensors:
        values.convert(tensor, dtype)
    for part in module.modules():
        for name, value in list(part.__dict__.items()):
            if isinstance(value, torch.Tensor) and value.dtype == outside:
                values.set_attribute(part, name, value.to(dtype))
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()
    back = not _WIDENS & set(names_in_methods(type(module), ("forward",)))
    operation.surgery.dress(module, Cast(outside=outside, inside=dtype, back=back))


def _recast(operation: Operation, dtype: torch.dtype) -> None:
    """Float32 weights lose precision under an autocast alone; whether one is on shows when the model is called."""
    module = operation.module()
    kinds = {p.dtype for p in module.parameters()}
    if kinds != {torch.float32}:
        names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise SurgeryError(f"the weights are {names or 'none'}, not float16", _UNDER_AUTOCAST)
    for part in module.modules():
        if not type(part).__module__.startswith("torch.") and "autocast" in names_in_methods(type(part)):
            raise SurgeryError(f"{type(part).__name__} enters torch.autocast itself", _UNDER_AUTOCAST)
    operation.surgery.dress(module, Autocasts(dtype=dtype))


def _refuse_shared(operation: Operation, module: nn.Module) -> None:
    inside = {id(m) for m in module.modules()}
    own = {id(p) for p in module.parameters()}
    for path, other in operation.root.named_modules():
        if id(other) not in inside and any(id(p) in own for p in other._parameters.values()):
            raise SurgeryError(f"{path} shares a weight with {operation.target}", 'set the target to "*"')


def _refuse_own_casts(module: nn.Module) -> None:
    """Refuse a model that casts inside of its own forward: it would meet its new weights with the old dtype."""
    if torch.get_default_dtype() in HALVES:
        raise SurgeryError(
            "new tensors are in half precision (torch.set_default_dtype)", "leave the default at float32"
        )
    for part in module.modules():
        kind = type(part)
        if kind.__module__.startswith("torch."):
            continue
        found = sorted(_CASTS & set(names_in_methods(kind)))
        held = [n for n, v in part.__dict__.items() if isinstance(v, torch.dtype) and v in HALVES]
        if found or held:
            what = f".{found[0]}" if found else f"the attribute {held[0]}"
            raise SurgeryError(
                f"{kind.__name__} casts to half precision itself ({what})",
                "take that out, or change it in the source",
            )


def _refuse_twice(root: nn.Module) -> None:
    state = root.__dict__.get(SLOT)
    if isinstance(state, LossScale) and state.active:
        raise SurgeryError("the signal of this model is scaled already", "prescribe precision once")


def _scale(operation: Operation, inside: MasterWeights | None = None) -> None:
    """Scale the signal; `inside` are masters, which get the gradients before they are rounded."""
    root, surgery = operation.root, operation.surgery
    dtypes = {p.dtype for p in root.parameters() if p.requires_grad}
    if not dtypes & {torch.float16, torch.float32}:
        raise SurgeryError(
            f"the weights are {', '.join(sorted(map(str, dtypes)))}, whose range needs no loss scaling",
            "it is for float16, or for float32 under torch.autocast",
        )
    state = LossScale(root)
    surgery.values.set_attribute(root, SLOT, state)
    surgery.values.until_undone(state.stop)
    if inside is None:
        surgery.hook_steps(state)
    else:
        state.seen = inside.arrives
        inside.listen()
        surgery.hook_steps(Nested(state, inside))
    surgery.dress(root, ScaledSignal())
    state.begin()


def _keep_masters(operation: Operation) -> None:
    root, surgery = operation.root, operation.surgery
    half = list(_trained_halves(root))
    if not half:
        raise SurgeryError("no trained weight is in half precision", _UNDER_AUTOCAST)
    masters = MasterWeights(root)
    surgery.values.until_undone(masters.stop)
    for parameter in half:
        surgery.values.forget(parameter)
    if any(p.dtype == torch.float16 for p in half):
        _scale(operation, masters)
    else:
        surgery.hook_steps(masters)


def _trained_halves(root: nn.Module) -> Iterator[nn.Parameter]:
    return (p for p in root.parameters() if p.requires_grad and p.dtype in HALVES)
