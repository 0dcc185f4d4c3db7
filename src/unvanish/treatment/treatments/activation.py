"""Another activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment import activations
from unvanish.treatment.anatomy import Anatomy, within
from unvanish.treatment.flow import Stage
from unvanish.treatment.parameters import Choice, Number, Spec
from unvanish.treatment.roles import HIDDEN
from unvanish.treatment.treatment import Operation, Treatment
from unvanish.treatment.wiring import Wiring, refuse_lost_arguments


@final
class Activation(Treatment):
    """Replace the hidden activations by another kind, modules at every place where they are registered.

    Functions that are called in forward (torch.sigmoid(x), F.relu(x), x.tanh()) are replaced in the running
    forward: this one call goes elsewhere, all else runs as it is written. SELU turns the dropout behind it into
    alpha dropout, which keeps the mean and variance that SELU relies on.
    Why: a sigmoid's derivative is at most 1/4, so that every layer takes at least 0.6 decades of the
    signal (and 2 log10(1/4) of its square); a rectifier's is 1 for the half that is on.
    When it is wrong: alone, where the weights are too small as well. torch's default init loses a factor
    of 6 per layer (squared) under ReLU, so the init has to change with it; SELU wants LeCun's. ReLU units can
    die: LeakyReLU can't. Output activations and gates are left as they are, since the loss or the mechanism
    counts on their range.
    Source: Glorot, Bordes & Bengio 2011; Maas et al. 2013 (leaky); Klambauer et al. 2017 (SELU, alpha dropout).
    """

    name: ClassVar[TreatmentName] = "activation"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "kind": Choice(options=activations.BUILDABLE, required=True),
        "slope": Number(low=0.0, high=1.0, default=activations.LEAKY_SLOPE),
    }

    def operate(self, operation: Operation) -> None:
        """Swap every hidden activation in the target that is of another kind."""
        kind, slope = operation.settings.word("kind"), operation.settings.number("slope")
        anatomy = operation.anatomy()
        modules = _modules(operation, anatomy, activations.build(kind, slope))
        calls = _calls(operation, anatomy, kind)
        if not modules and not calls:
            held = "; ".join(f"{path or 'the root'} stays: {why}" for path, why in anatomy.kept[:3])
            raise SurgeryError(
                f"there is no hidden activation to replace by {kind}" + (f" ({held})" if held else ""),
                "choose another treatment",
            )
        wiring = Wiring(operation.surgery)
        for stage in calls:
            _edit(wiring, anatomy, stage, kind, slope)
        dropouts = _dropouts(anatomy, modules, calls) if kind == "selu" else []
        for stage in dropouts:
            if stage.module is None:
                wiring.edit(wiring.find(stage), "callee", "alpha_dropout")
        wiring.carry_out()
        for old in modules:
            fresh = activations.build(kind, slope)
            operation.surgery.replace(old, fresh, anchor=_layer_before(anatomy, old))
        for dropout in {id(s.module): s.module for s in dropouts if s.module is not None}.values():
            operation.surgery.replace(dropout, nn.AlphaDropout(float(dropout.p)))  # type: ignore[arg-type]


def _modules(operation: Operation, anatomy: Anatomy, fresh: nn.Module) -> list[nn.Module]:
    paths = {id(m): p for p, m in operation.root.named_modules()}
    return [
        old for old in anatomy.hidden if within(paths[id(old)], operation.target) and repr(old) != repr(fresh)
    ]


def _calls(operation: Operation, anatomy: Anatomy, kind: str) -> list[Stage]:
    """The hidden activations that are called as functions, by a module of the target."""
    return [
        stage
        for stage, role in zip(anatomy.flow.stages, anatomy.roles, strict=True)
        if role == HIDDEN
        and stage.module is None
        and (stage.activation != kind or kind == "leaky_relu")
        and within("" if stage.site is None else stage.site.owner, operation.target)
    ]


def _edit(wiring: Wiring, anatomy: Anatomy, stage: Stage, kind: str, slope: float) -> None:
    """Note the swap of one call.

    Raises:
        SurgeryError: the same expression also makes something else, or it can't be swapped safely.
    """
    try:
        call = wiring.find(stage)
        for other, role in zip(anatomy.flow.stages, anatomy.roles, strict=True):
            same = other.site == stage.site and other.name != "add_back"
            if same and (role != HIDDEN or other.module is not None):
                why = role if role not in ("", HIDDEN) else "it calls other things, too"
                raise SurgeryError(
                    f"{call.words}, is one call for several purposes ({why})", "write them apart"
                )
        refuse_lost_arguments(call, stage)
        activations.function(kind, slope)
    except SurgeryError as error:
        raise SurgeryError(
            f"forward calls {stage.activation} as a function, which can't be swapped here: {error.mistake}",
            f"make it a module (self.act = nn.{activations.class_name(stage.activation)}()) and call that",
        ) from error
    wiring.edit(call, "swap", kind, slope)


def _dropouts(anatomy: Anatomy, modules: list[nn.Module], calls: list[Stage]) -> list[Stage]:
    """The plain dropouts straight behind the activations that are swapped."""
    found: list[Stage] = []
    for stage in anatomy.flow.stages:
        if stage in calls or any(stage.module is m for m in modules):
            behind = [anatomy.flow.stages[b] for b in stage.behind]
            found += [
                s
                for s in behind
                if type(s.module) is nn.Dropout or (s.module is None and s.name == "dropout")
            ]
    return found


def _layer_before(anatomy: Anatomy, activation: nn.Module) -> nn.Module | None:
    """The layer that feeds an activation: a new weight (PReLU's) trains as it does."""
    return next((layer.module for layer in anatomy.layers if layer.activation is activation), None)
