"""Another initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, cast, final

import torch
from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment import activations, draw
from unvanish.treatment.anatomy import Anatomy, Layer, weight_of, weighted_modules
from unvanish.treatment.lsuv import scale_to_unit_variance
from unvanish.treatment.parameters import Choice, Number, Settings, Spec
from unvanish.treatment.refuse import refuse_reparametrised
from unvanish.treatment.treatment import Operation, Treatment

Site = tuple[str, nn.Module, Layer | None]


@final
class Init(Treatment):
    """Draw the weights of every Linear and convolution anew, and set their biases.

    Schemes: he (sqrt(2 / (1 + a^2)) for rectifiers with negative slope a, output layer 1), xavier, lecun,
    orthogonal (with `gain`), lsuv (orthonormal, then every layer scaled to unit output variance on a real
    batch), and critical_centred for sigmoid: orthogonal with gain 4 and b = -W 1/2, which takes away the
    sigmoid's mean of 1/2 and puts the layer at its critical point (sigmoid's slope is 1/4).
    Why: the product over layers of fan_in Var(W) E[phi'^2] must stay near 1 for the signal to arrive.
    When it is wrong: on a trained net, which it erases; and with xavier or lsuv under sigmoid: those keep the
    forward pass alive and not the backward pass (.056 and .153 per layer; 12 layers stay stuck).
    Frozen layers keep their weights. Random draws come from own generators.
    Source: Glorot & Bengio 2010; He et al. 2015; Saxe et al. 2014; Mishkin & Matas 2016 (LSUV).
    """

    name: ClassVar[TreatmentName] = "init"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "scheme": Choice(
            options=("he", "xavier", "lecun", "orthogonal", "critical_centred", "lsuv"), required=True
        ),
        "distribution": Choice(options=("normal", "uniform"), default="normal"),
        "gain": Number(low=1e-3, high=100.0),
        "bias": Choice(options=("zero", "keep"), default="zero"),
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
        anatomy = operation.anatomy()
        sites = _sites(operation, anatomy)
        own = settings.optional("seed")
        seed = operation.seed if own is None else int(own)
        done: set[int] = set()
        for path, module, layer in sites:
            weight = cast(nn.Parameter, module.weight)
            if id(weight) in done:
                continue  # tied: drawn once
            done.add(id(weight))
            value = _weight(settings, path, module, layer, draw.generator_for(seed, path))
            bias = _bias(settings, module, layer, value)
            operation.surgery.write(weight, value)
            if bias is not None:
                operation.surgery.write(*bias)
        if scheme == "lsuv" and operation.batch is not None:
            scale_to_unit_variance(operation.root, [(p, m) for p, m, _ in sites], operation.batch)


def _sites(operation: Operation, anatomy: Anatomy) -> list[Site]:
    """The trainable layers of the target with what is known of their surroundings."""
    sites: list[Site] = []
    for path, module in weighted_modules(operation.root, operation.target):
        refuse_reparametrised(path, module)
        if weight_of(module).requires_grad:
            sites.append((path, module, anatomy.layer_of(module)))
    if not sites:
        raise SurgeryError(
            f"no Linear or convolution with trainable weights is in {operation.target!r}",
            "unfreeze the layers first, or choose another treatment",
        )
    return sites


def _weight(
    settings: Settings, path: str, module: nn.Module, layer: Layer | None, generator: torch.Generator
) -> torch.Tensor:
    scheme, distribution, asked = (
        settings.word("scheme"),
        settings.word("distribution"),
        settings.optional("gain"),
    )
    shape = weight_of(module).shape
    inward, outward = draw.fan_in(module), draw.fan_out(module)
    if scheme in ("orthogonal", "lsuv", "critical_centred"):
        gain = 1.0 if asked is None else asked
        if scheme == "critical_centred":
            gain = _centred_gain(path, layer)
        return draw.orthogonal(shape, gain, generator)
    deviation = math.sqrt(2.0 / (inward + outward)) if scheme == "xavier" else math.sqrt(1.0 / inward)
    if asked is not None:
        deviation *= asked
    elif scheme == "he":
        deviation *= _he_gain(path, layer)
    return draw.scaled(shape, deviation, distribution, generator)


def _he_gain(path: str, layer: Layer | None) -> float:
    if layer is None:
        raise SurgeryError(
            f"which activation follows {path} is not known, and He's gain depends on it",
            'give the gain in the prescription ("gain": 1.414 for ReLU)',
        )
    return activations.rectifier_gain(layer.activation_name, activations.slope_of(layer.activation))


def _centred_gain(path: str, layer: Layer | None) -> float:
    """4 behind a sigmoid; 1 for the layer that sees the data, which has no sigmoid's mean to take away."""
    if layer is not None and layer.fed_by == "sigmoid":
        return 4.0
    if (
        layer is not None
        and layer.fed_by == "identity"
        and (layer.last or layer.activation_name == "sigmoid")
    ):
        return 1.0
    raise SurgeryError(
        f"{path} is not a layer in a plain chain of sigmoids, and the centred init is made for those",
        "use another scheme",
    )


def _bias(
    settings: Settings, module: nn.Module, layer: Layer | None, value: torch.Tensor
) -> tuple[nn.Parameter, torch.Tensor] | None:
    bias = module.bias
    centred = (
        settings.word("scheme") == "critical_centred" and layer is not None and layer.fed_by == "sigmoid"
    )
    if not isinstance(bias, nn.Parameter):
        if centred:
            raise SurgeryError(
                "the centred init needs a bias in every layer", "build the layers with bias=True"
            )
        return None
    if centred and layer is not None:
        over = (
            (0, *range(2, value.dim()))
            if getattr(module, "transposed", False)
            else tuple(range(1, value.dim()))
        )
        if bias.shape[0] != value.sum(over).shape[0]:
            raise SurgeryError(
                f"the centred init does not know grouped layers ({layer.path})", "use another scheme"
            )
        return bias, -0.5 * value.sum(over)
    if settings.word("bias") == "keep" or not bias.requires_grad:
        return None
    return bias, torch.zeros(bias.shape)
