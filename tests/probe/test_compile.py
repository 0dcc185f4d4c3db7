"""torch.compile: the same traces as in eager mode, and a compiled training that knows nothing of being watched."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from watching import Seen, grad, random_states, seed, watched, weights_at

from unvanish.probe import second_pass
from unvanish.schema.run import ModelRun

INDUCTOR = pytest.param(
    "inductor", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
)
needs_cpp = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
EXACT = 0.0
ROUNDING = 2e-4  # float32, through a few layers and steps


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    seed(0)
    yield
    torch._dynamo.reset()


# --- nets ---------------------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


class Conv(nn.Module):
    """Convolution, batch norm, a skip, dropout that can be set."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 16, 3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.stem(x.view(-1, 1, 4, 4))))
        h = self.dropout(h + F.relu(self.conv(h)))
        return self.head(h.flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)).mean(1))


class Dict(nn.Module):
    """A dictionary, one entry of which the loss does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right, self.unused = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        h = torch.tanh(self.body(x))
        return {"left": self.left(h) * scale, "more": (self.right(h), self.unused(h)), "hidden": h, "n": 3}


@dataclasses.dataclass
class Output:
    logits: Tensor
    extra: Tensor | None = None


class Dataclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, given: Output) -> Output:
        return Output(logits=self.net(given.logits))


class WithLoss(nn.Module):
    """Returns the loss itself, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.net(x), y)


class Twice(nn.Module):
    """One layer called twice, and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.first = nn.Linear(6, 6), nn.Linear(6, 6)
        self.first.weight = self.layer.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.layer(torch.sigmoid(self.layer(torch.sigmoid(self.first(x)))))))


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.block, x, use_reentrant=False))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[:, None].expand(-1, 4, -1))[0][:, -1])


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))
        self.b = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def batch(name: str) -> tuple[Tensor, Tensor]:
    y = torch.randint(3, (9,))
    if name == "conv":
        return torch.randn(9, 16), y
    if name == "attention":
        return torch.randint(7, (9, 5)), y
    return torch.randn(9, 6), y


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "conv": Conv,
    "attention": Attention,
    "dict": Dict,
    "dataclass": Dataclass,
    "loss inside": WithLoss,
    "called twice": Twice,
    "checkpoint": Recomputed,
    "lstm": Recurrent,
    "normed weights": Normed,
    "in-place input": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)),
    "pre-activation": lambda: nn.Sequential(nn.ReLU(), nn.Linear(6, 3)),
}


def loss_of(model: Any, name: str, x: Tensor, y: Tensor) -> Tensor:
    if name == "dict":
        out = model(x, scale=0.5)
        return F.cross_entropy(out["left"][:, :3], y) + out["more"][0].square().mean() + out["hidden"].sum() * 0.1
    if name == "dataclass":
        return F.cross_entropy(model(Output(logits=x)).logits, y)
    if name == "loss inside":
        return model(x, y)
    if name == "in-place input":
        return F.cross_entropy(model(x.clone()), y)
    return F.cross_entropy(model(x), y)


# --- what is compared ---------------------------------------------------------------------------------------


def run(
    net: nn.Module, name: str, compiling: Callable[[nn.Module], Any], *, steps: int = 4, watch: bool = True
) -> tuple[Seen | None, list[bytes], Any]:
    """Train; gives (what was seen, the weights and buffers as bytes, the random states)."""
    net = copy.deepcopy(net)
    seed(1)

    def train() -> None:
        model = compiling(net)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(steps):
            x, y = batch(name)
            optimizer.zero_grad()
            loss_of(model, name, x, y).backward()
            optimizer.step()

    seen = watched(train) if watch else train()
    state = [t.detach().numpy().tobytes() for t in net.state_dict().values()]
    return seen, state, random_states()


def compile_with(backend: str, **options: Any) -> Callable[[nn.Module], Any]:
    return lambda net: torch.compile(net, backend=backend, **options)


def in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="aot_eager")
    return net


def graphs() -> tuple[int, int, int]:
    """(graphs compiled, graph breaks, recompilations) since the last look."""
    found = (
        counters["stats"]["unique_graphs"],
        sum(counters["graph_break"].values()),
        sum(counters["recompiles"].values()),
    )
    counters.clear()
    return found


def same_traces(one: ModelRun, other: ModelRun, *, within: float) -> None:
    """Every number of every trace is the same, up to `within` of the largest of its kind."""
    assert one.traces and [t.step for t in one.traces] == [t.step for t in other.traces]
    for a, b in zip(one.traces, other.traces, strict=True):
        assert a.graph == b.graph
        assert a.output == b.output
        assert b.loss == pytest.approx(a.loss, rel=max(within, 1e-12))
        assert b.chance == (None if a.chance is None else pytest.approx(a.chance, rel=1e-6))
        for s, t in zip(a.stats, b.stats, strict=True):
            for field in dataclasses.fields(s):
                u, v = getattr(s, field.name), getattr(t, field.name)
                scale = max(s.norm, s.absmax) if field.name in ("norm", "absmax", "edge_norms") else 0.0
                close(u, v, within, scale)


def close(u: Any, v: Any, within: float, scale: float) -> None:
    if isinstance(u, tuple):
        for a, b in zip(u, v, strict=True):
            close(a, b, within, scale)
    elif u is None or isinstance(u, int) or within == 0:
        assert u == v
    else:
        assert v == pytest.approx(u, rel=within, abs=within * scale)


def checked(seen: Seen | None) -> ModelRun:
    assert seen is not None
    assert not seen.incidents, seen.incidents
    assert not seen.skipped, seen.skipped
    return seen.model


# --- the same traces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_traces_are_those_of_eager_mode(name: str) -> None:
    net = NETS[name]()
    eager = checked(run(net, name, lambda m: m)[0])
    compiled = checked(run(net, name, compile_with("aot_eager"))[0])
    same_traces(eager, compiled, within=ROUNDING)


def test_traces_without_any_compiler_in_between_are_exactly_those_of_eager_mode() -> None:
    net = Conv(dropout=0.5)  # this backend draws the very same masks
    eager = checked(run(net, "conv", lambda m: m)[0])
    compiled = checked(run(net, "conv", compile_with("eager", fullgraph=True))[0])
    same_traces(eager, compiled, within=EXACT)
