"""What the last layer's values go through before the model returns them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.anatomy import Anatomy
from unvanish.treatment.blocks import Joined
from unvanish.treatment.flow import Flow, Stage
from unvanish.treatment.kinds import CONVOLUTIONS, is_sequential
from unvanish.treatment.parameters import Choice, Spec
from unvanish.treatment.treatment import Operation, Treatment
from unvanish.treatment.wiring import Wiring, refuse_lost_arguments

_MADE_BY = ("activation", "softmax", "weighted")


@final
class Output(Treatment):
    """Replace the activation that makes the model's output: by none, by a sigmoid, or by a log softmax.

    Where the last layer itself makes the output, sigmoid and log_softmax are put behind it.
    Why: a loss counts on what comes in. Cross-entropy takes raw values and has its own softmax; behind a ReLU half
    of them are stuck at 0, behind another softmax they differ by 1 at most, so that the loss can't fall. NLL takes
    log-probabilities; a softmax over one unit is 1 whatever comes in, and has no gradient at all.
    When it is wrong: where the loss does want probabilities (BCELoss wants the sigmoid that BCEWithLogitsLoss
    has), and wherever other code reads the outputs as such. Which loss there is, the model can't tell.
    Source: Bridle 1990 (softmax and its loss); Goodfellow, Bengio & Courville 2016, section 6.2.2.
    """

    name: ClassVar[TreatmentName] = "output"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "kind": Choice(options=("identity", "sigmoid", "log_softmax"), required=True)
    }

    def operate(self, operation: Operation) -> None:
        """Find what makes the output, and exchange it."""
        kind = operation.settings.word("kind")
        if operation.target != "*":
            raise SurgeryError("output is about the whole model", 'leave out the target, or set it to "*"')
        anatomy = operation.anatomy()
        stage = _last(operation, anatomy)
        axis = 1 if _ends_in_convolution(anatomy) else -1
        if stage.kind == "weighted" and stage.module is not None:
            _append(operation, stage.module, kind, axis)
        elif stage.activation == kind:
            raise SurgeryError(f"the output is made by {kind} already", "look at the loss instead")
        elif stage.module is None:
            _swap_call(operation, anatomy, stage, kind)
        else:
            _swap_module(operation, anatomy, stage.module, kind, axis)


def _last(operation: Operation, anatomy: Anatomy) -> Stage:
    """The activation, softmax or layer whose values the model returns (shape changes may follow).

    Raises:
        SurgeryError: that is not known, or it is something else.
    """
    flow, mend = anatomy.flow, "change the end of forward by hand"
    if anatomy.wired:
        ends = [place for place, stage in enumerate(flow.stages) if stage.makes_output]
        if not flow.returns_one or len(ends) != 1:
            raise SurgeryError("the model returns several values, or none that a module makes", mend)
        place = ends[0]
        while flow.stages[place].kind == "transparent":
            place = _before(flow, place)
    elif anatomy.source == "containers" and is_sequential(operation.root) and flow.stages:
        place = len(flow.stages) - 1
    else:
        raise SurgeryError("what makes the output of this model is not known", mend)
    stage = flow.stages[place]
    if stage.kind not in _MADE_BY:
        made = stage.path or stage.name or stage.kind
        raise SurgeryError(f"the output is made by {made}, which is neither an activation nor a layer", mend)
    return stage


def _before(flow: Flow, place: int) -> int:
    found = [index for index, stage in enumerate(flow.stages) if place in stage.behind]
    if len(found) != 1:
        raise SurgeryError("the model returns what comes in", "change the end of forward by hand")
    return found[0]


def _ends_in_convolution(anatomy: Anatomy) -> bool:
    """Whether the outputs are [batch, classes, ...], as a convolution makes them, and not [..., classes]."""
    return bool(anatomy.layers) and isinstance(anatomy.layers[-1].module, CONVOLUTIONS)


def _build(kind: str, axis: int) -> nn.Module:
    return {"identity": nn.Identity, "sigmoid": nn.Sigmoid}.get(kind, lambda: nn.LogSoftmax(dim=axis))()


def _append(operation: Operation, layer: nn.Module, kind: str, axis: int) -> None:
    if kind == "identity":
        raise SurgeryError(
            "the last layer itself makes the output, with no activation", "look at the loss instead"
        )
    surgery, places = operation.surgery, operation.surgery.aliases(layer)
    if sum(s.module is layer for s in operation.anatomy().flow.stages) > 1:
        raise SurgeryError(
            "the last layer is called in other places as well", "change the end of forward by hand"
        )
    if len(places) == 1 and is_sequential(places[0][0]) and len(surgery.aliases(places[0][0])) <= 1:
        surgery.insert_after(places[0][0], layer, f"{places[0][1]}_{kind}", _build(kind, axis))
    else:
        added = _build(kind, axis)
        surgery.wrap(layer, Joined(layer, added), added)


def _swap_module(operation: Operation, anatomy: Anatomy, old: nn.Module, kind: str, axis: int) -> None:
    if sum(stage.module is old for stage in anatomy.flow.stages) > 1:
        raise SurgeryError(
            f"{operation.surgery.path(old)} makes the output, and is used in hidden layers as well",
            "give the output an activation module of its own",
        )
    own = getattr(old, "dim", None)  # of a softmax
    operation.surgery.replace(old, _build(kind, own if isinstance(own, int) else axis))


def _swap_call(operation: Operation, anatomy: Anatomy, stage: Stage, kind: str) -> None:
    wiring = Wiring(operation.surgery)
    call = wiring.find(stage)
    if sum(other.site == stage.site for other in anatomy.flow.stages) > 1:
        raise SurgeryError(f"{call.words}, also makes hidden values", "write the output's call apart")
    if kind == "log_softmax" and stage.kind != "softmax":
        raise SurgeryError(
            f"{call.words}, does not say over which axis a softmax would go",
            "return F.log_softmax(x, dim=...)",
        )
    refuse_lost_arguments(call, stage)
    wiring.edit(call, "callee" if kind == "log_softmax" else "swap", kind)
    wiring.carry_out()
