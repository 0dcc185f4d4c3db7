"""What users of today's tools complain of: one test a complaint, each against a float64 twin and the naive value.

The complaints about several processes (the rank-local gradient under DDP, "shard-local norms under FSDP", "nothing logged
under FSDP") need processes: their tests are those of the distributed modes, in tests/modes/test_ranks.py.
"""

from __future__ import annotations

import copy
import gc
import io
import json
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.optim import optimizer as optim_module
from torch.utils.checkpoint import checkpoint

import unvanish
from unvanish import session
from unvanish.present.view import build_view
from unvanish.schema.run import ModelRun

EXACT = 2e-5  # float32 against float64, one step
STEPS = 4
Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 3))


def batches(count: int, size: int = 8) -> list[Batch]:
    return [(torch.randn(size, 6), torch.randint(3, (size,))) for _ in range(count)]


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def rms(tensor: Tensor | None) -> float:
    assert tensor is not None
    return float(tensor.detach().double().square().mean().sqrt())


def twin_gradients(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, float]:
    """The rms of each parameter's gradient, by plain autograd in float64. No backward() that a watch would see."""
    twin = copy.deepcopy(model).double()
    named = [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(twin), [p for _, p in named])
    return {name: rms(gradient) for (name, _), gradient in zip(named, gradients, strict=True)}


def wide(batch: Batch) -> Batch:
    return batch[0].double(), batch[1]


def recorded(run: ModelRun, statistic: str = "gradient_rms", step: int = -1) -> dict[str, float]:
    """A statistic of every parameter at one step (by position among those that were looked at)."""
    width = len(run.info.parameters)
    values = run.parameter_stats[statistic]
    at = step % len(run.parameter_steps)
    return {p.name: values[at * width + p.index] for p in run.info.parameters}


def same(found: dict[str, float], true: dict[str, float], rel: float = EXACT) -> None:
    assert found.keys() >= true.keys()
    for name, value in true.items():
        assert found[name] == pytest.approx(value, rel=rel), name


def far(found: dict[str, float], naive: dict[str, float], by: float = 1.5) -> None:
    """The naive value is a wrong one, so that the test could see it."""
    for name, value in naive.items():
        ratio = found[name] / value
        assert ratio > by or ratio < 1 / by, name


# --- where the gradient is read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fused", [False, True], ids=["scaled gradients logged under AMP", "fused optimizers still scaled"]
)
def test_scaled_gradients_logged_under_amp_and_fused_optimizers_still_scaled(
    tmp_path: Path, fused: bool
) -> None:
    """In a fused optimizer's hook 4096 was seen where 4 was true."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for batch in batches(STEPS):
            true = twin_gradients(model, lambda m, b=batch: loss_of(m, wide(b)))  # type: ignore[misc]
            optimizer.zero_grad()
            scaler.scale(loss_of(model, batch)).backward()
            naive = {name: rms(p.grad) for name, p in model.named_parameters()}
            loss = float(loss_of(model, batch).detach())
            scaler.step(optimizer)
            scaler.update()
    run = w.run().models[0]
    same(recorded(run), true)
    far(recorded(run), naive, by=1000)
    assert run.losses[-1] == pytest.approx(loss, rel=1e-5), "the loss is not scaled either"
    operations = run.graphs[run.traces[-1].graph].operations
    (at_loss,) = [s for o, s in zip(operations, run.traces[-1].stats, strict=True) if o.name == "NllLoss"]
    assert at_loss.norm == pytest.approx(1.0), "nor the signal: dL/dL is 1"


def test_gradients_counted_per_micro_batch_under_accumulation(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for _ in range(STEPS):
            parts = batches(4)
            true = twin_gradients(model, lambda m, p=parts: sum(loss_of(m, wide(b)) for b in p) / 4)  # type: ignore[misc,return-value,arg-type]
            optimizer.zero_grad()
            for part in parts:
                (loss_of(model, part) / 4).backward()
            naive = twin_gradients(model, lambda m, p=parts: loss_of(m, wide(p[-1])) / 4)  # type: ignore[misc]
            optimizer.step()
    run = w.run().models[0]
    assert len(run.steps) == len(run.parameter_steps) == STEPS, (
        "an optimizer step is a step, a micro-batch is none"
    )
    same(recorded(run), true)
    far(recorded(run), {name: naive[name] for name in ("0.weight", "2.weight", "4.weight")}, by=1.3)
    assert [t.backward for t in run.traces if t.step == 0] == [0, 1, 2, 3]


def test_nan_and_inf_silently_dropped_or_histograms_crashing_on_them(tmp_path: Path) -> None:
    model = mlp()
    whole = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for bad in (None, math.nan, math.inf):
            x, y = batches(1)[0]
            optimizer.zero_grad()
            loss_of(model, (x, y)).backward()
            if bad is not None:
                model[2].weight.grad[0, :7] = bad
            optimizer.step()
            model.load_state_dict(whole)
    run = w.run().models[0]
    assert not w.run().incidents
    share = [recorded(run, "gradient_nonfinite", step)["2.weight"] for step in range(3)]
    assert share == pytest.approx([0.0, 0.07, 0.07])
    assert [recorded(run, step=s)["2.weight"] for s in (1, 2)] == pytest.approx(
        [math.nan, math.inf], nan_ok=True
    )
    assert math.isfinite(recorded(run, step=1)["0.weight"]), "the others are not drawn in"
    w.report()


def test_one_inf_becomes_all_nan(tmp_path: Path) -> None:
    """By clip_grad_norm_(max_norm=inf), which some call to measure. Ours leaves the gradients as they are."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, out=tmp_path, every=1):
        for batch in batches(3):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            model[0].weight.grad[0, 0] = math.inf
            before = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            handle = optimizer.register_step_post_hook(lambda *_: None)
            optimizer.step()
            handle.remove()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None and torch.equal(parameter.grad, before[name])
            with torch.no_grad():
                model[0].weight[0, 0] = 0.1


def test_clipped_gradients_hide_their_true_size(tmp_path: Path) -> None:
    """The profile survives a norm clip; the scale is recovered, and how often it engaged is known."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    naive: dict[str, float] = {}
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for number, batch in enumerate(batches(STEPS)):
            true = twin_gradients(model, lambda m, b=batch: loss_of(m, wide(b)))  # type: ignore[misc]
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            if number:
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            naive = {name: rms(p.grad) for name, p in model.named_parameters()}
            optimizer.step()
    run = w.run().models[0]
    assert math.isnan(run.clips[0]) and all(0 < c < 0.5 for c in run.clips[1:])
    same({name: value / run.clips[-1] for name, value in recorded(run).items()}, true, rel=1e-3)
    far(true, naive, by=5)


def test_steps_that_the_scaler_skips_are_seen_by_no_hook(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for number, (x, y) in enumerate(batches(6)):
            if number in (2, 4):
                x[0, 0] = math.inf
            optimizer.zero_grad()
            scaler.scale(loss_of(model, (x, y))).backward()
            scaler.step(optimizer)
            scaler.update()
    run = w.run()
    assert len(run.models[0].steps) == 4
    assert any("2 optimizer steps" in s.why for s in run.skipped)


# --- hooks --------------------------------------------------------------------------------------------------


class _Mark(torch.autograd.Function):
    """Leaves a weak reference to the activations and to the graph behind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: list[Any]) -> Tensor:
        y = x.clone()
        seen.append(weakref.ref(y))
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None


def test_hooks_that_leak_memory(tmp_path: Path) -> None:
    class Marked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 10), nn.Linear(10, 3)
            self.__dict__["seen"] = []

        def forward(self, x: Tensor) -> Tensor:
            return self.b(_Mark.apply(torch.tanh(self.a(x)), self.__dict__["seen"]))  # type: ignore[no-untyped-call]

    model = Marked()
    seen: list[Any] = model.__dict__["seen"]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    w = unvanish.watch(model, optimizer, out=tmp_path, every=1)
    sizes = []
    for number, batch in enumerate(batches(120)):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        if number % 20 == 19:
            w._session.flush()
            gc.collect()
            sizes.append(len(gc.get_objects()))
            assert sum(ref() is not None for ref in seen) == 0, "activations live no longer than their graph"
    assert sizes[-1] - sizes[1] < 400, f"objects pile up: {sizes}"
    w.close()
    gone = weakref.ref(model)
    del model, optimizer, w
    for _ in range(2):  # python's part of a graph goes first, then what it held
        gc.collect()
    assert gone() is None, "a closed watch holds no model"


def test_hooks_that_make_torch_save_fail(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    with unvanish.watch(model, optimizer, out=tmp_path, every=1):
        for batch in batches(2):
            stream = io.BytesIO()
            out = model(batch[0])
            torch.save(model, stream)  # in the middle of a traced step
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, io.BytesIO())
            F.cross_entropy(out, batch[1]).backward()
            optimizer.step()
            stream.seek(0)
            twin = torch.load(stream, weights_only=False)
            assert type(twin) is nn.Sequential and twin.state_dict().keys() == model.state_dict().keys()


def test_watching_twice(tmp_path: Path) -> None:
    """Two at once on one model both see everything; so does one after the other."""
    model, data = mlp(), batches(STEPS)
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def train() -> dict[str, float]:
        for batch in data:
            true = twin_gradients(model, lambda m, b=batch: loss_of(m, wide(b)))  # type: ignore[misc]
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
        return true

    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as one:
        with unvanish.watch(model, optimizer, out=tmp_path, every=1) as two:
            true = train()
        assert nn.Module.__call__ is not unwatched_call and not two.run().incidents
        later = train()
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as three:
        last = train()
    runs = [w.run() for w in (one, two, three)]
    assert [len(r.models[0].steps) for r in runs] == [2 * STEPS, STEPS, STEPS]
    same(recorded(runs[0].models[0], step=STEPS - 1), true)
    same(recorded(runs[0].models[0]), later)
    same(recorded(runs[1].models[0]), true)
    same(recorded(runs[2].models[0]), last)
    for run in runs:
        assert not run.incidents and len(run.models[0].traces) == len(run.models[0].steps)
        first = run.models[0].traces[0]
        modules = [o.module for o in run.models[0].graphs[first.graph].operations]
        assert modules.count("0") == 1 and modules.count("2") == 1, "no call is counted twice"
    plain = torch.optim.SGD(twin.parameters(), 0.1)
    for batch in data * 3:
        plain.zero_grad()
        loss_of(twin, batch).backward()
        plain.step()
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True))


unwatched_call = nn.Module.__call__


def test_two_models_with_the_same_layer_names(tmp_path: Path) -> None:
    one, two = mlp(), mlp()
    with torch.no_grad():
        for p in two.parameters():
            p.mul_(3)
    pairs = [(one, torch.optim.SGD(one.parameters(), 0.1)), (two, torch.optim.SGD(two.parameters(), 0.1))]
    s = session.Session(out=tmp_path, command=("test",), every=1)
    s.start()
    for batch in batches(STEPS):
        true = [twin_gradients(m, lambda t, b=batch: loss_of(t, wide(b))) for m, _ in pairs]  # type: ignore[misc]
        for model, optimizer in pairs:
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    s.finish("finished")
    models = session.load(s.path).models
    assert len({m.info.name for m in models}) == len(models) == 2
    for model, expected, other in zip(models, true, true[::-1], strict=True):
        same(recorded(model), expected)
        far(recorded(model), {"0.weight": other["0.weight"]}, by=1.2)


def test_parameters_unfrozen_later_never_logged(tmp_path: Path) -> None:
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for number, batch in enumerate(batches(8)):
            if number == 4:
                model[0].requires_grad_(True)
                optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.01})
            true = twin_gradients(model, lambda m, b=batch: loss_of(m, wide(b)))  # type: ignore[misc]
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    run = w.run().models[0]
    assert [math.isnan(recorded(run, step=s)["0.weight"]) for s in range(8)] == [True] * 4 + [False] * 4
    same(recorded(run), true)
    assert recorded(run, "update_rms")["0.weight"] == pytest.approx(0.01 * true["0.weight"], rel=1e-3)


class Outputs(nn.Module):
    """Gives a dict with a tuple in it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = torch.tanh(self.body(x))
        return {"left": self.left(h), "more": (self.right(h), {"n": 3})}


def _both(model: nn.Module, batch: Batch) -> Tensor:
    out = model(batch[0])
    return F.cross_entropy(out["left"], batch[1]) + 5 * out["more"][0].square().mean()


def module_signals(run: ModelRun, trace: int = -1) -> dict[str, float]:
    """Norm of dL/d(output) by module, of the operations that apply a weight."""
    one = run.traces[trace]
    return {
        str(o.module): s.norm
        for o, s in zip(run.graphs[one.graph].operations, one.stats, strict=True)
        if o.kind == "weight"
    }


def twin_signals(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, float]:
    """The same in float64."""
    twin, kept = copy.deepcopy(model).double(), dict[str, Tensor]()

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            kept[name] = output

        return hook

    for name, module in twin.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(keep(name))
    gradients = torch.autograd.grad(loss(twin), list(kept.values()))
    return {name: float(gradient.norm()) for name, gradient in zip(kept, gradients, strict=True)}


def _train_and_compare(
    model: nn.Module,
    loss: Callable[[nn.Module, Batch], Tensor],
    tmp_path: Path,
    *,
    data: Sequence[Batch] | None = None,
) -> ModelRun:
    """Watch a few steps; the last one's gradients and signals are those of the twin."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for batch in data or batches(STEPS):
            true = twin_gradients(model, lambda m, b=batch: loss(m, wide(b)))  # type: ignore[misc]
            signals = twin_signals(model, lambda m, b=batch: loss(m, wide(b)))  # type: ignore[misc]
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    run = w.run()
    assert not run.incidents
    same(recorded(run.models[0]), true)
    assert signals
    same(module_signals(run.models[0]), signals)
    return run.models[0]


def test_tuple_and_dict_outputs(tmp_path: Path) -> None:
    run = _train_and_compare(Outputs(), _both, tmp_path)
    signals = module_signals(run)
    assert signals["right"] / signals["left"] not in (0.0, 1.0)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def test_tied_weights(tmp_path: Path) -> None:
    """The sum of both uses is the gradient; each use has its own share, and their squares do not add up to it."""
    model = Tied()
    run = _train_and_compare(model, loss_of, tmp_path)
    assert [p.name for p in run.info.parameters].count("first.weight") == 1
    trace = run.traces[-1]
    shares = [
        norm
        for o, s in zip(run.graphs[trace.graph].operations, trace.stats, strict=True)
        for name, norm in zip(o.parameters, s.parameter_norms, strict=True)
        if name == "first.weight"
    ]
    total = recorded(run)["first.weight"] * 6
    assert len(shares) == 2 and all(s is not None and not 0.99 < s / total < 1.01 for s in shares)


def test_parameterless_layers(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Flatten(),
        nn.Identity(),
        nn.Linear(6, 8),
        nn.Sigmoid(),
        nn.Dropout(0.0),
        nn.Linear(8, 3),
        nn.Identity(),
    )
    run = _train_and_compare(model, loss_of, tmp_path)
    trace = run.traces[-1]
    operations = run.graphs[trace.graph].operations
    sigmoid = next(s for o, s in zip(operations, trace.stats, strict=True) if o.module == "3")
    assert sigmoid.norm > 0 and module_signals(run)["2"] < 0.5 * sigmoid.norm, "its derivative is 1/4 at most"


def test_in_place_relu_crashing(tmp_path: Path) -> None:
    """Module backward hooks make autograd refuse it: the naive way fails, ours measures."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    naive = copy.deepcopy(model)
    for module in naive.modules():
        module.register_full_backward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="modified inplace"):
        loss_of(naive, batches(1)[0]).backward()

    def plain(
        m: nn.Module, batch: Batch
    ) -> Tensor:  # retain_grad on what is overwritten would see the wrong tensor
        m[1].inplace = m[0].weight.dtype is torch.float32  # type: ignore[index]
        return loss_of(m, batch)

    _train_and_compare(model, plain, tmp_path)


def test_recomputation_under_checkpointing_counted_twice(tmp_path: Path) -> None:
    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = (
                nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)),
                nn.Linear(6, 3),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.block, x, use_reentrant=False))

    model, calls = Recomputed(), list[int]()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.block[0].register_forward_hook(lambda *_: calls.append(1))
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for batch in batches(STEPS):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    assert len(calls) == 2 * STEPS, "a naive forward hook counts the recomputation"
    run = w.run().models[0]
    for trace in run.traces:
        modules = [o.module for o in run.graphs[trace.graph].operations if o.kind == "weight"]
        assert sorted(map(str, modules)) == ["block.0", "block.2", "head"]


# --- torch.compile ------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def _compiled_training(
    tmp_path: Path | None, *, before: bool, every: int | None
) -> tuple[int, int, int, Any]:
    """(graphs, breaks, recompilations, the run). `before`: the model is compiled before watching begins."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = mlp()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager") if before else None
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    w = None if tmp_path is None else unvanish.watch(compiled or model, optimizer, out=tmp_path, every=every)
    compiled = compiled or torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch in batches(12):
        optimizer.zero_grad()
        loss_of(compiled, batch).backward()
        optimizer.step()
    if w is not None:
        w.close()
    found = (
        counters["stats"]["unique_graphs"],
        sum(counters["graph_break"].values()),
        sum(counters["recompiles"].values()),
    )
    weights = [p.detach().clone() for p in model.parameters()]
    return (*found, (weights, None if w is None else w.run()))


@pytest.mark.parametrize("before", [False, True], ids=["watched, then compiled", "compiled, then watched"])
@pytest.mark.parametrize("every", [1, 3, None])
def test_fullgraph_compile_failing(
    tmp_path: Path, before: bool, every: int | None, fresh_dynamo: None
) -> None:
    """0 graph breaks, at most one more graph, no recompilation; and the numbers are there, not silently missing."""
    graphs, breaks, recompiles, (plain, _) = _compiled_training(None, before=before, every=None)
    assert (graphs, breaks, recompiles) == (1, 0, 0)
    graphs, breaks, recompiles, (weights, run) = _compiled_training(tmp_path, before=before, every=every)
    assert breaks == 0 and recompiles == 0 and graphs <= 2
    assert all(torch.equal(a, b) for a, b in zip(plain, weights, strict=True))
    (model,) = run.models
    assert not run.incidents and len(model.steps) == 12 and model.traces
    assert set(module_signals(model)) == {"0", "2", "4"}, "or a hook was placed that never fires"
    torch.manual_seed(0)
    eager = mlp()
    optimizer = torch.optim.SGD(eager.parameters(), 0.1)
    data = batches(12)
    last = model.traces[-1].step
    for number, batch in enumerate(data):
        true = twin_signals(eager, lambda m, b=batch: loss_of(m, wide(b)))  # type: ignore[misc]
        if number == last:
            same(module_signals(model), true, rel=1e-4)
        optimizer.zero_grad()
        loss_of(eager, batch).backward()
        optimizer.step()


# --- what is shown ------------------------------------------------------------------------------------------


def test_hundreds_of_plots_one_per_tensor(tmp_path: Path) -> None:
    """The page has one map of all layers, whatever their number, and three weights to begin with."""
    model = nn.Sequential(*[m for _ in range(60) for m in (nn.Linear(6, 6), nn.Tanh())], nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, out=tmp_path) as w:
        for batch in batches(20):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    run = w.run()
    (view,) = build_view(run, session.diagnose(run), session.chains(run))["models"]
    assert len(view["signal"]["rows"]) == 61 and len(view["signal"]["cells"]) == 61, "all layers in one map"
    assert len(view["weights"]["parameters"]) == 122 and len(view["weights"]["default"]) <= 3
    assert len(json.dumps(view)) < 1_000_000


def test_an_early_spike_flattening_the_y_range(tmp_path: Path) -> None:
    """A loss of 1e8 and a hidden signal 1e8 times too large at first: what comes later can still be told apart."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    boosts = [1e4] * 3 + [0.0] * 57
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        for boost, batch in zip(boosts, batches(60), strict=True):
            optimizer.zero_grad()
            hidden = model[:2](batch[0])
            loss = F.cross_entropy(model[2:](hidden), batch[1]) + boost**2 * hidden.square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    run = w.run()
    (view,) = build_view(run, session.diagnose(run), ())["models"]
    loss_view, signal = view["loss"], view["signal"]
    assert loss_view["max"] > 1e6 and loss_view["min"] < 3 and loss_view["log"], "decades, not a flat line"
    first = signal["cells"][signal["rows"].index("0")]
    assert min(first[:3]) > max(first[3:]) + 4, "the spike is there"
    assert signal["high"] - signal["low"] < 3.5, "and the colour scale is that of the rest"
    assert signal["clipped"] >= 3, "and that it is beyond it is said"


# --- cost ---------------------------------------------------------------------------------------------------


def test_two_to_five_times_slower_steps(tmp_path: Path) -> None:
    """At a step that is not traced there is nothing of ours in the way but the optimizer's hooks, and no host sync."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    own_call = nn.Module.__call__
    read: list[str] = []

    class Reads(torch.overrides.TorchFunctionMode):
        """Notes what would wait for a device."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(func, "__name__", "")
            if name in ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "nonzero"):
                read.append(name)
            return func(*args, **(kwargs or {}))

    traced: list[int] = []
    with unvanish.watch(model, optimizer, out=tmp_path) as w:
        for number, batch in enumerate(batches(40)):
            optimizer.zero_grad()
            if nn.Module.__call__ is not own_call:
                traced.append(number)
                loss_of(model, batch).backward()
                optimizer.step()
                continue
            loss = loss_of(model, batch)
            hooks = _hooks_of_the_graph(loss)
            loss.backward()
            assert hooks == 0
            if number < 32:
                optimizer.step()
            else:
                read.clear()
                with Reads():
                    optimizer.step()
                assert [r for r in read if r != "tolist"] == [], (
                    "a step reads no number (norms, on the CPU alone, apart)"
                )
    assert len(traced) < 16, traced
    assert sorted({t.step for t in w.run().models[0].traces}) == traced
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())
    assert not optim_module._global_optimizer_pre_hooks and not optim_module._global_optimizer_post_hooks


def _hooks_of_the_graph(loss: Tensor) -> int:
    """Hooks on the nodes behind a loss, counted by what the C++ side would call."""
    found, todo, seen = 0, [loss.grad_fn], set()
    while todo:
        node: Any = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found += bool(getattr(node, "metadata", None)) + len(getattr(node, "_raw_saved_hooks", ()))
        todo += [above for above, _ in node.next_functions]
    return found
