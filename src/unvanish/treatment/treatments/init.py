"""Another initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment.anatomy import WEIGHTED
from unvanish.treatment.draw import init_generator
from unvanish.treatment.init_plan import Planned, plan_init
from unvanish.treatment.lsuv import scale_to_unit_variance
from unvanish.treatment.parameters import Choice, Number, Settings, Spec
from unvanish.treatment.treatment import Operation, Treatment


@final
class Init(Treatment):
    """Draw the weights of every layer anew, and set their biases.

    Schemes: he (sqrt(2 / (1 + a^2)) for rectifiers with negative slope a, output layer 1), xavier, lecun,
    orthogonal (with `gain`), critical (with the `gain` and `bias_std` that mean field gives for the activation),
    lsuv (orthonormal, then every layer scaled to unit output variance on a real batch), and critical_centred
    for sigmoid: orthogonal with gain 4 and b = -W 1/2, which takes away the sigmoid's mean of 1/2 and puts the
    layer at its critical point (sigmoid's slope is 1/4); with `gain` and `offset` for any other activation.
    Beside Linear and convolutions: recurrent layers (recurrent matrices orthogonal per gate, an LSTM's forget bias
    kept), attention (q, k and v apart), matrices of custom modules; embeddings only where their size is absurd, norms
    (to gain 1, bias 0) only where their gains are far from 1 and not zero.
    Why: the product over layers of fan_in Var(W) E[phi'^2] must stay near 1 for the signal to arrive.
    When it is wrong: on a trained net, which it erases; and with xavier or lsuv under sigmoid: those keep the
    forward pass alive and not the backward pass (.056 and .153 per layer; 12 layers stay stuck).
    Frozen layers keep their weights. All draws come, in the order of named_modules(), from one generator of its
    own, so that a few lines of torch in the user's script draw the same.
    Source: Glorot & Bengio 2010; He et al. 2015; Saxe et al. 2014; Schoenholz et al. 2017 (critical);
    Mishkin & Matas 2016 (LSUV).
    """

    name: ClassVar[TreatmentName] = "init"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "scheme": Choice(
            options=("he", "xavier", "lecun", "orthogonal", "critical", "critical_centred", "lsuv"),
            required=True,
        ),
        "distribution": Choice(options=("normal", "uniform", "orthogonal"), default="normal"),
        "gain": Number(low=1e-3, high=100.0),
        "bias": Choice(options=("zero", "keep"), default="zero"),
        "bias_std": Number(low=0.0, high=100.0, default=0.0),
        "offset": Number(low=-10.0, high=10.0),
        "seed": Number(low=0, high=2**63 - 1, whole=True),
    }

    def wants_batch(self, settings: Settings) -> bool:
        """LSUV measures the layers' outputs."""
        return settings.word("scheme") == "lsuv"

    def operate(self, operation: Operation) -> None:
        """Draw all layers of the target."""
        settings, scheme = operation.settings, operation.settings.word("scheme")
        if scheme == "lsuv" and operation.batch is None:
            raise SurgeryError("LSUV needs a real batch to measure", "hand in batch=")
        plan = init_plan(operation)
        own = settings.optional("seed")
        generator = init_generator(operation.seed if own is None else int(own), operation.target)
        drawn: dict[str, torch.Tensor] = {}
        for one in plan:
            fresh = one.draw.values(one.parameter, generator, drawn.get(one.path))
            if one.name == "weight":
                drawn[one.path] = fresh
            operation.surgery.write(one.parameter, fresh)
        if scheme == "lsuv" and operation.batch is not None:
            layers = [
                (p.path, p.module) for p in plan if isinstance(p.module, WEIGHTED) and p.name == "weight"
            ]
            scale_to_unit_variance(operation.root, layers, operation.batch)


def init_plan(operation: Operation) -> list[Planned]:
    """What an init prescription draws in this model.

    Raises:
        SurgeryError: nothing trainable is there, or the scheme does not hold for this model.
    """
    plan = plan_init(operation.root, operation.target, operation.anatomy(), operation.settings)
    if not any(one.draw.kind != "constant" for one in plan):
        raise SurgeryError(
            f"no layer with trainable weights is in {operation.target!r}",
            "unfreeze the layers first, or choose another treatment",
        )
    return plan
