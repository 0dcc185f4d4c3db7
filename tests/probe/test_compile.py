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
        return (
            F.cross_entropy(out["left"][:, :3], y)
            + out["more"][0].square().mean()
            + out["hidden"].sum() * 0.1
        )
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
                if field.name == "exponents" and within:
                    continue  # where rounding differs, an element may fall into the next bin
                kinds = ("norm", "absmax", "edge_norms", "total")
                scale = max(s.norm, s.absmax) if field.name in kinds else s.output_rms or 0.0
                close(u, v, within, scale)


def close(u: Any, v: Any, within: float, scale: float) -> None:
    if isinstance(u, tuple):
        for a, b in zip(u, v, strict=True):
            close(a, b, within, scale)
    elif u is None or isinstance(u, int | str) or within == 0:
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


class Nested(nn.Module):
    """An eager model with two compiled parts, one right behind the other, and gates behind and before them."""

    def __init__(self, compiling: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.one = compiling(nn.Sequential(nn.ReLU(), nn.Linear(8, 8), nn.Tanh()))
        self.two = compiling(nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for _ in range(2):
            h = h + self.two(self.one(h))
        return self.head(h)


@pytest.mark.parametrize(
    "compiling", [compile_with("aot_eager"), in_place], ids=["torch.compile", "module.compile"]
)
def test_compiled_parts_of_an_eager_model(compiling: Callable[[nn.Module], Any]) -> None:
    def train(compiling: Callable[[nn.Module], Any]) -> ModelRun:
        seed(2)
        model = Nested(compiling)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def steps() -> None:
            for _ in range(3):
                x, y = batch("mlp")
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()

        return checked(watched(steps))

    eager, compiled = train(lambda m: m), train(compiling)
    plain = [
        tuple((o.name, o.kind, o.parents, o.call) for o in eager.graphs[t.graph].operations)
        for t in eager.traces
    ]
    assert plain == [
        tuple((o.name, o.kind, o.parents, o.call) for o in compiled.graphs[t.graph].operations)
        for t in compiled.traces
    ]
    modules = {
        (o.module or "").replace("._orig_mod", "") for o in next(iter(compiled.graphs.values())).operations
    }
    assert modules == {o.module or "" for o in next(iter(eager.graphs.values())).operations}
    for a, b in zip(eager.traces, compiled.traces, strict=True):
        for s, t in zip(a.stats, b.stats, strict=True):
            close(dataclasses.astuple(s), dataclasses.astuple(t), ROUNDING, max(s.norm, s.absmax))


def test_in_place_compilation_and_a_model_compiled_inside_of_another() -> None:
    def twice(net: nn.Module) -> nn.Module:
        net[2] = torch.compile(net[2], backend="aot_eager")  # type: ignore[index, operator]
        return torch.compile(net, backend="aot_eager")  # type: ignore[return-value]

    net = Twice()
    eager = checked(run(net, "mlp", lambda m: m)[0])
    same_traces(eager, checked(run(net, "mlp", in_place)[0]), within=ROUNDING)
    net = mlp()
    eager = checked(run(net, "mlp", lambda m: m)[0])
    run_of_two = checked(run(net, "mlp", twice)[0])
    assert [t.step for t in run_of_two.traces] == [t.step for t in eager.traces]
    assert "2._orig_mod" in {o.module for g in run_of_two.graphs.values() for o in g.operations}


def test_the_order_of_compiling_and_watching_does_not_matter() -> None:
    before = mlp()
    model = torch.compile(before, backend="aot_eager")
    optimizer = torch.optim.Adam(before.parameters(), 0.01)

    def train() -> None:
        seed(1)
        for _ in range(4):
            x, y = batch("mlp")
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    state = copy.deepcopy(before.state_dict())
    train()  # compiled, and trained, before anyone looks
    before.load_state_dict(state)
    optimizer = torch.optim.Adam(before.parameters(), 0.01)
    late = checked(watched(train, only=(model, [optimizer])))
    before.load_state_dict(state)
    same_traces(checked(run(before, "mlp", lambda m: m)[0]), late, within=ROUNDING)


def test_two_compiled_models_against_each_other() -> None:
    def train(compiling: Callable[[nn.Module], Any]) -> Seen:
        seed(3)
        g_net, d_net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6)), mlp()
        g, d = compiling(g_net), compiling(d_net)
        g_opt, d_opt = (torch.optim.Adam(n.parameters(), 0.01) for n in (g_net, d_net))
        ones, zeros = torch.ones(8, dtype=torch.long), torch.zeros(8, dtype=torch.long)

        def steps() -> None:
            for _ in range(3):
                fake = g(torch.randn(8, 4))
                d_opt.zero_grad()
                (
                    F.cross_entropy(d(torch.randn(8, 6)), ones) + F.cross_entropy(d(fake.detach()), zeros)
                ).backward()
                d_opt.step()
                g_opt.zero_grad()
                F.cross_entropy(d(fake), ones).backward()
                g_opt.step()

        return watched(steps)

    eager, compiled = train(lambda m: m), train(compile_with("aot_eager"))
    assert not compiled.incidents and not compiled.skipped
    for name in ("g_net", "d_net"):
        same_traces(eager.named(name), compiled.named(name), within=ROUNDING)


def test_retained_graphs_and_accumulation() -> None:
    def train(compiling: Callable[[nn.Module], Any]) -> ModelRun:
        seed(4)
        net = Dict()
        model, optimizer = compiling(net), torch.optim.SGD(net.parameters(), 0.1)

        def steps() -> None:
            for _ in range(2):
                optimizer.zero_grad()
                for _ in range(2):
                    out = model(torch.randn(5, 6))
                    out["left"].square().mean().backward(retain_graph=True)
                    (out["more"][0].square().mean() / 4).backward()
                optimizer.step()

        return checked(watched(steps))

    with torch._functorch.config.patch(donated_buffer=False):  # else torch itself refuses retain_graph here
        eager, compiled = train(lambda m: m), train(compile_with("aot_eager"))
    assert len(compiled.traces) == 8
    same_traces(eager, compiled, within=ROUNDING)


def test_autocast_and_scaled_gradients() -> None:
    def train(compiling: Callable[[nn.Module], Any]) -> ModelRun:
        seed(5)
        net = mlp()
        model, optimizer = compiling(net), torch.optim.SGD(net.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

        def steps() -> None:
            for _ in range(3):
                x, y = batch("mlp")
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = F.cross_entropy(model(x), y)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()

        return checked(watched(steps))

    same_traces(train(lambda m: m), train(compile_with("aot_eager")), within=0.05)


@needs_cpp
def test_numbers_under_inductor_against_a_float64_twin() -> None:
    net = mlp()
    x, y = batch("mlp")
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    model = torch.compile(net, fullgraph=True)

    def train() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    seen = checked(watched(train))
    twin = copy.deepcopy(net).double()
    twin.zero_grad()
    kept = [x.double()]
    for layer in twin:  # type: ignore[attr-defined]
        kept.append(layer(kept[-1]))
        kept[-1].retain_grad()
    loss = F.cross_entropy(kept[-1], y)
    loss.backward()
    by_module = {
        o.module: s
        for o, s in zip(next(iter(seen.graphs.values())).operations, seen.traces[0].stats, strict=True)
    }
    for i, layer_output in enumerate(kept[1:]):
        assert by_module[str(i)].norm == pytest.approx(grad(layer_output), rel=1e-5)
    for parameter in ("0.weight", "2.weight", "4.weight", "0.bias"):
        (_, _, value) = weights_at(seen, parameter)[0]
        assert value == pytest.approx(grad(twin.get_parameter(parameter)), rel=1e-5)
    assert seen.traces[0].loss == pytest.approx(float(loss.detach()), rel=1e-6)


# --- nothing of the training changes ------------------------------------------------------------------------

WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "aot_eager": compile_with("aot_eager"),
    "aot_eager, fullgraph": compile_with("aot_eager", fullgraph=True),
    "eager": compile_with("eager", fullgraph=True),
    "in place": in_place,
}


def unchanged(net: nn.Module, name: str, way: Callable[[nn.Module], Any], steps: int = 50) -> Seen:
    """Train unwatched and watched: the same weights, buffers, random states and compiled graphs."""
    torch._dynamo.reset()
    graphs()
    _, weights, states = run(net, name, way, steps=steps, watch=False)
    compiled = graphs()
    torch._dynamo.reset()
    seen, watched_weights, watched_states = run(net, name, way, steps=steps)
    assert seen is not None
    assert watched_weights == weights
    assert watched_states == states
    assert graphs() == compiled
    assert compiled[0] >= 1
    assert len(seen.model.traces) >= 8
    return seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["called twice", "conv", "attention", "dict"])
def test_compiled_training_is_bit_identical(name: str, way: str) -> None:
    net = Conv(dropout=0.3) if name == "conv" else NETS[name]()
    seen = unchanged(net, name, WAYS[way])
    assert not seen.incidents and not seen.skipped


@needs_cpp
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "conv", "attention", "dict"])
@pytest.mark.parametrize(
    "options", [{}, {"fullgraph": True}, {"mode": "reduce-overhead"}, {"dynamic": True}], ids=str
)
def test_training_under_inductor_is_bit_identical(name: str, options: dict[str, Any]) -> None:
    net = Conv(dropout=0.3) if name == "conv" else NETS[name]()
    seen = unchanged(net, name, lambda m: torch.compile(m, **options))
    assert not seen.incidents
    said = [(e.what, e.why) for e in seen.skipped]
    assert len(said) == (1 if name == "conv" else 0), said
    assert all("dropout" in what and "anew" in why for what, why in said)


def test_hooks_gradients_and_random_numbers_of_the_script_are_not_touched() -> None:
    fired: list[str] = []

    def compiling(net: nn.Module) -> Any:
        net[0].weight.register_hook(lambda g: fired.append("tensor"))  # type: ignore[index, union-attr]
        net[0].weight.register_post_accumulate_grad_hook(lambda p: fired.append("after"))  # type: ignore[index, union-attr]
        return torch.compile(net, backend="aot_eager")

    seen, _, _ = run(mlp(), "mlp", compiling, steps=3)
    assert len(checked(seen).traces) == 3
    assert fired == ["tensor", "after"] * 3


class Stateful(nn.Module):
    """Keeps what it must not keep twice."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen, self.calls = mlp(), [], 0
        self.register_buffer("total", torch.zeros(()))

    @torch.compiler.disable
    def remember(self, x: Tensor) -> None:
        self.seen.append(x.shape)
        self.calls += 1
        self.fresh = self.calls

    def forward(self, x: Tensor) -> Tensor:
        self.remember(x)
        self.total.add_(1)
        return self.net(x) * self.total


def test_attributes_lists_and_buffers_are_put_back() -> None:
    kept: list[Any] = []

    def compiling(net: nn.Module) -> Any:
        kept.append(net)
        return torch.compile(net, backend="eager")

    net = Stateful()
    eager = checked(run(net, "mlp", lambda m: m)[0])
    compiled = checked(run(net, "mlp", compiling, steps=4)[0])
    assert (len(kept[0].seen), kept[0].calls, kept[0].fresh, float(kept[0].total)) == (4, 4, 4, 4.0)
    same_traces(eager, compiled, within=EXACT)  # with the buffer as it was at the call


# --- what can't be traced is said ---------------------------------------------------------------------------


def only_the_first_tier(seen: Seen | None, steps: int = 4) -> list[str]:
    """No traces, but everything else; gives what was said."""
    assert seen is not None
    assert not seen.model.traces
    assert list(seen.model.steps) == list(range(steps))
    assert len(seen.model.parameter_steps) == steps
    return [e.why for e in seen.skipped]


def test_a_second_pass_that_fails_is_dropped_and_not_tried_again_without_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[int] = []

    def no_memory(*args: Any) -> Any:
        tries.append(1)
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(second_pass, "_backward", no_memory)
    net = Conv(0.5)
    seen, weights, states = run(net, "conv", compile_with("aot_eager"))
    (said,) = only_the_first_tier(seen)
    assert seen is not None and len(seen.incidents) == 1 and "tried to allocate" in seen.incidents[0].what
    assert "not enough memory" in said and len(tries) == 1
    monkeypatch.undo()
    assert run(net, "conv", compile_with("aot_eager"), watch=False)[1:] == (weights, states)


def test_a_model_with_hooks_of_the_script_is_not_run_twice() -> None:
    calls: list[int] = []

    def compiling(net: nn.Module) -> Any:
        net[1].register_forward_hook(torch.compiler.disable(lambda *_: calls.append(1)))  # type: ignore[index, union-attr]
        return torch.compile(net, backend="aot_eager")

    (said,) = only_the_first_tier(run(mlp(), "mlp", compiling)[0])
    assert "hook on ReLU" in said
    assert len(calls) == 4


def test_a_large_input_that_is_written_into_is_copied_from_the_second_time_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unvanish.probe.noted.SMALL", 0)
    seen, _, _ = run(NETS["in-place input"](), "in-place input", compile_with("aot_eager"))
    assert seen is not None and [t.step for t in seen.model.traces] == [1, 2, 3]
    assert "writes into the model's inputs" in seen.skipped[0].why


def test_tensors_that_leave_by_another_way() -> None:
    class Leaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()
            self.aux: Any = None

        def forward(self, x: Tensor) -> Tensor:
            out = self.net(x)
            self.aux = out.square().mean()
            return out

    class Whole(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.inner.aux

    (said,) = only_the_first_tier(
        run(Leaking(), "mlp", lambda m: Whole(torch.compile(m, backend="aot_eager")))[0]
    )
    assert "other ways than its return value" in said


@pytest.mark.parametrize("what", ["loss", "step"])
def test_compiled_functions_are_said_with_the_mend(what: str) -> None:
    def train(*, watch: bool) -> tuple[Seen | None, list[bytes], tuple[int, int, int]]:
        torch._dynamo.reset()
        graphs()
        seed(6)
        net = mlp()
        optimizer = torch.optim.SGD(net.parameters(), 0.1)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(net(x), y)

        def step(x: Tensor, y: Tensor) -> None:
            F.cross_entropy(net(x), y).backward()

        call = torch.compile(loss if what == "loss" else step, backend="aot_eager", fullgraph=what == "loss")

        def steps() -> None:
            for _ in range(4):
                x, y = batch("mlp")
                optimizer.zero_grad()
                out = call(x, y)
                if out is not None:
                    out.backward()
                optimizer.step()

        seen = watched(steps) if watch else steps()
        return seen, [p.detach().numpy().tobytes() for p in net.parameters()], graphs()

    _, weights, plain = train(watch=False)
    seen, watched_weights, compiled = train(watch=True)
    assert watched_weights == weights
    assert compiled[0] == plain[0] and compiled[2] == plain[2]
    (said,) = only_the_first_tier(seen)
    assert "compile the model instead" in said
    assert seen is not None and not seen.incidents


def test_a_compiled_optimizer_step_is_seen_as_any_other() -> None:
    def train(*, compiled: bool, watch: bool = True) -> tuple[Seen | None, list[bytes], int]:
        torch._dynamo.reset()
        graphs()
        seed(7)
        net = mlp()
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        step = torch.compile(optimizer.step, backend="aot_eager") if compiled else optimizer.step

        def steps() -> None:
            for _ in range(4):
                x, y = batch("mlp")
                optimizer.zero_grad()
                F.cross_entropy(net(x), y).backward()
                step()

        seen = watched(steps) if watch else steps()
        return seen, [p.detach().numpy().tobytes() for p in net.parameters()], graphs()[0]

    eager, compiled = train(compiled=False)[0], train(compiled=True)
    assert train(compiled=True, watch=False)[1:] == compiled[1:]
    same_traces(checked(eager), checked(compiled[0]), within=ROUNDING)
    assert eager is not None and compiled[0] is not None
    for name, values in eager.model.parameter_stats.items():
        assert list(compiled[0].model.parameter_stats[name]) == pytest.approx(
            list(values), rel=1e-3, nan_ok=True
        ), name
