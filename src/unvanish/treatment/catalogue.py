"""What is worth a try: the five solutions of the seed, all single changes of a net, and what mends other causes."""

from __future__ import annotations

from collections.abc import Sequence

from unvanish.schema.architecture import LayerSpec
from unvanish.treatment.candidate import Candidate, candidate, of

RECTIFIERS = frozenset(("relu", "leaky_relu", "relu6", "gelu", "silu", "prelu", "elu", "mish", "celu"))
# for these the schemes of _inits have a gain; what is built of others (sines of a frequency, say) may need any
USUAL = RECTIFIERS | {
    "identity",
    "sigmoid",
    "tanh",
    "selu",
    "softplus",
    "hardtanh",
    "hardsigmoid",
    "softsign",
}
FEW_WEIGHTS = 10**6  # each size is a draw of all weights and a pass: quick in small nets
GAINS = (0.03, 0.1, 0.3, 3.0, 10.0)
ORTHOGONAL = frozenset(("orthogonal", "lsuv", "centred"))
MOST_DRAWN = 2e10  # products that drawing orthogonal matrices takes
FEW_ROWS = 16  # of a batch: its statistics are too noisy for a batch norm
_TO_THREE = 3


def seed_candidates() -> tuple[Candidate, ...]:
    """The five solutions of the seed (ReLU and LeakyReLU with the init they need), and three half-fixes."""
    return (
        candidate("simplify", "simplify to 3 layers", of("simplify", layers=3)),
        candidate("relu_he", "ReLU with He init", of("activation", kind="relu"), of("init", scheme="he")),
        candidate(
            "leaky_relu_he",
            "LeakyReLU with He init for its slope",
            of("activation", kind="leaky_relu", slope=0.01),
            of("init", scheme="he"),
        ),
        candidate("init", "proper init: orthogonal, gain 4, centred", of("init", scheme="critical_centred")),
        candidate("batchnorm", "batch norm before each activation", of("batchnorm")),
        candidate("residual", "identity skips", of("residual")),
        candidate("relu_alone", "ReLU, init unchanged", of("activation", kind="relu"), half_fix=True),
        candidate("xavier", "Xavier init", of("init", scheme="xavier"), half_fix=True),
        candidate("lsuv", "LSUV init", of("init", scheme="lsuv"), half_fix=True),
    )


def flow_candidates(
    layers: Sequence[LayerSpec],
    greatest: int | None = None,
    *,
    recurrent: bool = False,
    hidden: frozenset[str] = frozenset(),
) -> tuple[Candidate, ...]:
    """Single changes that may bring the signal through this net: what is worth a backward pass.

    `greatest`: the depth that its recipe can carry, where known. `recurrent`: it has recurrent cells. `hidden`: the
    hidden activations, also those that stand behind no layer (behind a sum of two products of parameters, say).
    Orthogonal matrices of large layers take minutes to draw: where they would, they are left out.
    """
    drawn = sum(s.fan_in * s.fan_out * min(s.fan_in, s.fan_out) for s in layers)
    activations = ({s.activation for s in layers} | hidden) - {"identity"}
    found = [
        *_inits(layers, activations),
        *_activations(activations),
        *_norms_and_skips(layers),
        *_depths(layers, greatest),
    ]
    found += gated_cells() if recurrent else []
    return tuple(c for c in found if drawn <= MOST_DRAWN or c.name not in ORTHOGONAL)


def _inits(layers: Sequence[LayerSpec], found: set[str]) -> list[Candidate]:
    out = []
    if not found or found & RECTIFIERS:
        out.append(candidate("he", "He init", of("init", scheme="he")))
    out += [
        candidate("xavier", "Xavier init", of("init", scheme="xavier")),
        candidate("orthogonal", "orthogonal init", of("init", scheme="orthogonal")),
        candidate("lsuv", "LSUV init", of("init", scheme="lsuv")),
    ]
    if any(s.fan_in != s.fan_out for s in layers[:-1]):  # else it is Xavier's
        out.append(candidate("lecun", "LeCun init", of("init", scheme="lecun")))
    drawn = sum(s.fan_in * s.fan_out for s in layers)
    # branches beside a skip add up, however each of them is drawn
    open_ = any(s.skip != "none" or not s.predictable for s in layers) and drawn <= FEW_WEIGHTS
    if found - USUAL or open_:
        out += [sized(g) for g in GAINS]
    if "sigmoid" in found:
        title = "orthogonal init of gain 4, centred (b = -W/2)"
        out.append(candidate("centred", title, of("init", scheme="critical_centred")))
    return out


def _activations(found: set[str]) -> list[Candidate]:
    relu, leaky = of("activation", kind="relu"), of("activation", kind="leaky_relu", slope=0.01)
    he = of("init", scheme="he")
    out = []
    if found - {"relu"}:
        out.append(candidate("relu", "ReLU, init unchanged", relu))
        out.append(candidate("relu_he", "ReLU with He init", relu, he))
    if found:
        out.append(candidate("leaky_relu_he", "leaky ReLU with He init", leaky, he))
    if "sigmoid" in found:
        xavier = of("init", scheme="xavier")
        out.append(candidate("tanh_xavier", "tanh with Xavier init", of("activation", kind="tanh"), xavier))
    if found:
        selu, lecun = of("activation", kind="selu"), of("init", scheme="lecun")
        out.append(candidate("selu_lecun", "SELU with LeCun init", selu, lecun))
    return out


def _norms_and_skips(layers: Sequence[LayerSpec]) -> list[Candidate]:
    depth = len({s.name for s in layers})
    few = any(s.batch is not None and s.batch < FEW_ROWS for s in layers)
    over_rows = candidate("batchnorm", "batch norm before each activation", of("batchnorm"))
    over_groups = candidate("groupnorm", "group norm before each activation", of("groupnorm"))
    out = [
        over_groups if few else over_rows,
        candidate("layernorm", "layer norm before each activation", of("layernorm")),
        candidate("residual", "identity skips", of("residual")),
        *_other_norms(),
    ]
    if depth > 1:
        scale = round(depth**-0.5, 3)
        title = f"identity skips, branches times {scale:g} (1/sqrt of the depth)"
        out.append(candidate("residual_scaled", title, of("residual", scale=scale)))
    return out


def _other_norms() -> list[Candidate]:
    """For nets whose own norms lose the signal: over one value each, without an epsilon, over too few rows."""
    return [
        candidate("layernorm_swap", "layer norms in place of the norms", of("layernorm", at="norms")),
        candidate("batchnorm_swap", "batch norms in place of the norms", of("batchnorm", at="norms")),
    ]


def _depths(layers: Sequence[LayerSpec], greatest: int | None) -> list[Candidate]:
    depth = len({s.name for s in layers})
    keeps = sorted({k for k in (greatest, _TO_THREE) if k is not None and 2 <= k < depth})
    return [
        candidate(f"depth_{k}", f"{k} layers instead of {depth}", of("simplify", layers=k)) for k in keeps
    ]


def sized(gain: float) -> Candidate:
    """Weights of another size, whatever stands between the layers."""
    title = f"LeCun init, {gain:g} times its size"
    return candidate(f"lecun_{gain:g}", title, of("init", scheme="lecun", gain=gain))


def gated_cells() -> list[Candidate]:
    """Cells whose state is handed on by a gate, and not squashed at every time step."""
    return [
        candidate("gru", "GRU cells in place of plain ones", of("gated_rnn", cell="gru")),
        candidate("lstm", "LSTM cells in place of plain ones", of("gated_rnn", cell="lstm")),
        open_gates(),
    ]


def open_gates() -> Candidate:
    """Gates that hand on nearly all of the state for some fifty steps, those of cells that are there too."""
    return candidate("open_gates", "gates that begin open (a bias of 4)", of("gated_rnn", forget_bias=4.0))


# --- what mends other causes than a lost signal at the start -------------------------------------------------


def cut(most: float) -> Candidate:
    """For a rate that is raised for a while: as it is before or behind that."""
    title = f"learning rates above {most:g} cut to it"
    return candidate("learning_rate_cut", title, of("learning_rate", most=most))


def guarded() -> Candidate:
    """What mends NaN that an operation of the forward makes."""
    title = "roots, logarithms and divisors kept off zero, no softmax masked whole"
    return candidate("guarded", title, of("precision", mode="guarded"))


def rate(factor: float) -> Candidate:
    """Another learning rate."""
    word = f"{factor:g} times" if factor > 1 else f"{1 / factor:g} times smaller"
    title = f"{word} the learning rate" if factor > 1 else f"a {word} learning rate"
    return candidate(f"learning_rate_{factor:g}", title, of("learning_rate", factor=factor))
