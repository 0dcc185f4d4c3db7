"""What an init draws in a model: every parameter with its rule, in the order of drawing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from torch import nn

from unvanish.errors import SurgeryError
from unvanish.treatment import activations
from unvanish.treatment.anatomy import TRANSPOSED, WEIGHTED, Layer, within
from unvanish.treatment.draw import Draw, fan_in, fan_out, groups_of, orthogonal_gain
from unvanish.treatment.matrices import Matrix, bare_parameters, read_matrices
from unvanish.treatment.parameters import Settings
from unvanish.treatment.refuse import refuse_reparametrised
from unvanish.treatment.scheme import Scheme

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (
    nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else ()),
)  # fmt: skip
_SANE_GAIN = (0.1, 10.0)  # root mean square of a norm's gains, which torch starts at 1
_SANE_EMBEDDING = (1e-4, 10.0)  # root mean square; torch draws at 1, GPT-2 at .02, word2vec at about .001


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One parameter and how it is drawn. `gain` is sqrt(fan_in) times the deviation (0 for biases)."""

    path: str  # of the module that holds it
    module: nn.Module
    name: str
    parameter: nn.Parameter
    draw: Draw
    inward: int = 0
    outward: int = 0
    gain: float = 0.0


class KnowsLayers(Protocol):
    """What an init asks about a layer's surroundings; an Anatomy, say."""

    def layer_of(self, module: nn.Module) -> Layer | None:
        """The layer that this weighted module is, None where it is not known."""
        ...


def plan_init(root: nn.Module, target: str, anatomy: KnowsLayers, settings: Settings) -> list[Planned]:
    """Everything that is drawn, in order: `root.named_modules()`, and in each module weights before biases.

    Frozen parameters are left out, tied ones are drawn once.

    Raises:
        SurgeryError: a weight that is computed by a parametrization, or an activation that the scheme can't serve.
    """
    scheme = Scheme(settings)
    modules = [(path, m) for path, m in root.named_modules() if within(path, target)]
    traced = read_matrices(root) if any(bare_parameters(m) for _, m in modules) else None
    plan: list[Planned] = []
    for path, module in modules:
        plan += _plan_module(scheme, root, path, module, anatomy, traced)
    done: set[int] = set()
    unique = []
    for planned in plan:
        if id(planned.parameter) not in done and planned.parameter.requires_grad:
            done.add(id(planned.parameter))
            unique.append(planned)
    return unique


def _plan_module(
    scheme: Scheme,
    root: nn.Module,
    path: str,
    module: nn.Module,
    anatomy: KnowsLayers,
    traced: dict[str, Matrix] | None,
) -> Iterator[Planned]:
    if isinstance(module, _NORMS):
        yield from _norm(path, module)
        return
    known = (*WEIGHTED, *_RECURRENT, *_EMBEDDINGS, nn.MultiheadAttention)
    if not isinstance(module, known):
        for name, parameter in bare_parameters(module):
            yield from _bare(scheme, path, module, name, parameter, traced)
        return
    if isinstance(module, WEIGHTED):
        refuse_reparametrised(path, module)
        yield from _layer(scheme, root, path, module, anatomy.layer_of(module))
        return
    if hasattr(module, "parametrizations"):
        raise SurgeryError(
            f"a weight of {path} is computed by a parametrization (weight_norm, spectral_norm, pruning)",
            "take the parametrization off, treat, and put it on again",
        )
    if isinstance(module, _EMBEDDINGS):
        yield from _embedding(path, module)
    elif scheme.name == "critical_centred":
        raise _not_a_chain(path)
    elif isinstance(module, nn.MultiheadAttention):
        yield from _attention(scheme, path, module)
    else:
        yield from _recurrent(scheme, path, module)


# --- Linear and convolutions ------------------------------------------------------------------------------------


def _layer(
    scheme: Scheme, root: nn.Module, path: str, module: nn.Module, layer: Layer | None
) -> Iterator[Planned]:
    weight, bias = cast(nn.Parameter, module.weight), module.bias
    if not weight.requires_grad:
        return
    inward, outward, centred = fan_in(module), fan_out(module), False
    if scheme.name == "critical_centred":
        gain, centred = _centred(scheme, path, layer)
        if centred and isinstance(module, TRANSPOSED):
            raise SurgeryError(
                f"the centred init does not know transposed convolutions ({path})", "use another scheme"
            )
    elif layer is not None:
        follower = (
            "identity" if layer.last else layer.activation_name
        )  # the loss decides on what makes the output
        gain = scheme.gain(path, follower, activations.slope_of(layer.activation))
    else:
        gain = scheme.gain(path, _activation_inside(root, path))
    draw, gain = scheme.weight(weight.shape, inward, outward, gain, groups_of(module))
    if draw.kind != "orthogonal":
        draw = Draw(kind=draw.kind, size=draw.size)  # groups matter to what is orthogonal to what alone
    yield Planned(path=path, module=module, name="weight", parameter=weight, draw=draw,
                  inward=inward, outward=outward, gain=gain)  # fmt: skip
    if centred and not isinstance(bias, nn.Parameter):
        raise SurgeryError("the centred init needs a bias in every layer", "build the layers with bias=True")
    drawn = Draw(kind="centred", size=_offset(scheme)) if centred else scheme.bias()
    if isinstance(bias, nn.Parameter) and drawn is not None:
        yield Planned(path=path, module=module, name="bias", parameter=bias, draw=drawn)


def _activation_inside(root: nn.Module, path: str) -> str | None:
    """What follows a layer inside of torch's own attention and transformer blocks, which no trace looks into."""
    outer, _, name = path.rpartition(".")
    parent = root.get_submodule(outer)
    if isinstance(parent, nn.MultiheadAttention):
        return "identity"
    if isinstance(parent, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        called = parent.activation
        return "identity" if name == "linear2" else getattr(called, "__name__", type(called).__name__.lower())
    return None


def _centred(scheme: Scheme, path: str, layer: Layer | None) -> tuple[float, bool]:
    """4 behind a sigmoid; 1 for the layer that sees the data, which has no activation's mean to take away."""
    if layer is None:
        raise _not_a_chain(path)
    if layer.fed_by not in ("identity", "mixed"):
        if scheme.offset is not None and scheme.asked is not None:
            return scheme.asked, True
        if layer.fed_by == "sigmoid":
            return 4.0, True
    sees_data = layer.fed_by == "identity"
    if sees_data and (layer.last or layer.activation_name == "sigmoid" or scheme.offset is not None):
        return 1.0, False
    raise _not_a_chain(path)


def _not_a_chain(path: str) -> SurgeryError:
    return SurgeryError(
        f"{path} is not a layer in a plain chain of sigmoids, and the centred init is made for those",
        "use another scheme",
    )


def _offset(scheme: Scheme) -> float:
    return 0.5 if scheme.offset is None else scheme.offset


# --- what is no plain layer -------------------------------------------------------------------------------------


def _recurrent(scheme: Scheme, path: str, module: nn.Module) -> Iterator[Planned]:
    """Recurrent matrices orthogonal per gate (Saxe et al. 2014; Arjovsky et al. 2016), input ones by the scheme.

    An LSTM's forget biases are left as they are: they set how long it remembers.
    """
    is_lstm = isinstance(module, (nn.LSTM, nn.LSTMCell))
    gates = 4 if is_lstm else 3 if isinstance(module, (nn.GRU, nn.GRUCell)) else 1
    rectified = getattr(module, "nonlinearity", "tanh") == "relu"
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("bias"):
            bias = scheme.bias(forget=is_lstm)
            if bias is not None:
                yield Planned(path=path, module=module, name=name, parameter=parameter, draw=bias)
            continue
        pieces = 1 if name.startswith("weight_hr") else gates
        inward, outward = parameter.shape[1], parameter.shape[0] // pieces
        if name.startswith("weight_hh"):
            size = orthogonal_gain(tuple(parameter.shape), inward, 1.0, pieces)
            draw, gain = Draw(kind="orthogonal", size=size, pieces=pieces), 1.0
        else:
            gain = scheme.asked or (2.0**0.5 if rectified and scheme.name == "he" else 1.0)
            draw, gain = scheme.weight(parameter.shape, inward, outward, gain, pieces)
        yield Planned(path=path, module=module, name=name, parameter=parameter, draw=draw,
                      inward=inward, outward=outward, gain=gain)  # fmt: skip


def _attention(scheme: Scheme, path: str, module: nn.MultiheadAttention) -> Iterator[Planned]:
    """Queries, keys and values each as a map of their own: drawn as one, xavier takes them for a layer 3 n wide."""
    for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
        parameter = getattr(module, name, None)
        if isinstance(parameter, nn.Parameter):
            pieces = 3 if name == "in_proj_weight" else 1
            inward, outward = parameter.shape[1], parameter.shape[0] // pieces
            draw, gain = scheme.weight(
                parameter.shape, inward, outward, scheme.gain(path, "identity"), pieces
            )
            yield Planned(path=path, module=module, name=name, parameter=parameter, draw=draw,
                          inward=inward, outward=outward, gain=gain)  # fmt: skip
    bias, drawn = getattr(module, "in_proj_bias", None), scheme.bias()
    if isinstance(bias, nn.Parameter) and drawn is not None:
        yield Planned(path=path, module=module, name="in_proj_bias", parameter=bias, draw=drawn)


def _norm(path: str, module: nn.Module) -> Iterator[Planned]:
    """Left alone unless its gains are far from 1: each layer's signal is multiplied by them, on its way back too.

    Zeros are meant: a branch that is to begin as nothing (Goyal et al. 2017).
    """
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, nn.Parameter):
        return
    size = float(weight.detach().float().pow(2).mean().sqrt())
    low, high = _SANE_GAIN
    if size and not low <= size <= high:  # not a number, too
        yield Planned(path=path, module=module, name="weight", parameter=weight,
                      draw=Draw(kind="constant", size=1.0))  # fmt: skip
        if isinstance(bias, nn.Parameter):
            yield Planned(path=path, module=module, name="bias", parameter=bias,
                          draw=Draw(kind="constant", size=0.0))  # fmt: skip


def _embedding(path: str, module: nn.Embedding | nn.EmbeddingBag) -> Iterator[Planned]:
    """Left alone unless its size is absurd; then vectors of length 1. Zeros are meant: a table of biases, say."""
    weight = cast(nn.Parameter, module.weight)
    size = float(weight.detach().float().pow(2).mean().sqrt())
    low, high = _SANE_EMBEDDING
    if size and not low <= size <= high:  # not a number, too
        draw = Draw(kind="normal", size=module.embedding_dim**-0.5, blank=module.padding_idx)
        yield Planned(path=path, module=module, name="weight", parameter=weight, draw=draw)


def _bare(
    scheme: Scheme,
    path: str,
    module: nn.Module,
    name: str,
    parameter: nn.Parameter,
    traced: dict[str, Matrix] | None,
) -> Iterator[Planned]:
    """A matrix of a custom module. What a trace shows not to be multiplied with (positions, tokens) is left."""
    full = f"{path}.{name}" if path else name
    if traced is None:  # which side is the input is not known: the mean of both serves either
        middle = max(1, sum(parameter.shape[-2:]) // 2)
        matrix = Matrix(inward=middle, outward=middle, activation=None)
    elif full in traced:
        matrix = traced[full]
    else:
        return
    inward, outward, activation = matrix.inward, matrix.outward, matrix.activation
    if scheme.name == "critical_centred":
        raise _not_a_chain(full)
    if scheme.name == "he" and scheme.asked is None and activation is None:
        return  # He's gain is not known here; the other layers are not to wait for it
    shape = parameter.shape if matrix.kernel else parameter.shape[-2:]
    pieces = 1 if matrix.kernel else math.prod(parameter.shape[:-2])
    draw, gain = scheme.weight(shape, inward, outward, scheme.gain(full, activation))
    if draw.kind == "orthogonal" and pieces > 1:
        raise SurgeryError(
            f"{full} is a stack of {pieces} matrices, and an orthogonal init of those is not known here",
            "use he, xavier or lecun",
        )
    yield Planned(path=path, module=module, name=name, parameter=parameter, draw=draw,
                  inward=inward, outward=outward, gain=gain)  # fmt: skip
