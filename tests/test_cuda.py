"""On a GPU: nothing of a watched step waits for the device, numbers are right, CUDA graphs can be captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish
from unvanish.schema.run import ModelRun, Run
from unvanish.session import Watch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
STEPS = 12


def _net(width: int = 64, depth: int = 4, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10)).to("cuda", dtype)


def _batch(step: int, width: int = 64, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(step)
    x, y = torch.randn(32, width, generator=drawn), torch.randint(10, (32,), generator=drawn)
    return x.to("cuda", dtype), y.to("cuda")


def _trace(run: Run) -> dict[int, list[float]]:
    """By step, the signal's norm at every operation."""
    return {t.step: [s.norm for s in t.stats] for t in run.models[0].traces}


def _gradients(model: ModelRun) -> list[list[float]]:
    width = len(model.info.parameters)
    flat = list(model.parameter_stats["gradient_rms"])
    return [flat[i : i + width] for i in range(0, len(flat), width)]


@contextmanager
def _no_waiting(watch: Watch) -> Iterator[None]:
    """Any wait for the device raises; the writer's thread, which may wait, rests meanwhile."""
    buffer = watch._session._buffer
    assert buffer is not None
    torch.cuda.synchronize()
    with buffer._lock:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("every", [1, None])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("classes", [True, False])
def test_no_watched_step_waits_for_the_device(
    every: int | None, optimizer: Callable[..., torch.optim.Optimizer], classes: bool, tmp_path: Path
) -> None:
    net = _net()
    opt = optimizer(net.parameters(), lr=0.01)
    batches = [_batch(i) for i in range(STEPS)]
    with unvanish.watch(net, opt, out=tmp_path, every=every) as w, _no_waiting(w):
        for x, y in batches:
            opt.zero_grad()
            out = net(x)
            loss = F.cross_entropy(out, y) if classes else F.mse_loss(out, x[:, :10])
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
    run = w.run()
    assert not run.incidents, run.incidents
    (model,) = run.models
    assert len(model.steps) == STEPS and len(model.traces) >= 3
    assert all(v == v for v in model.losses) and all(0 < c <= 1 for c in model.clips)
    if optimizer is torch.optim.Adam:
        assert any(v == v for v in model.parameter_stats["adam_suppression"])


def test_signals_gradients_and_losses_are_those_of_a_float64_twin(tmp_path: Path) -> None:
    net, twin = _net(), _net(dtype=torch.float64)
    opts = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (net, twin)]
    true: list[tuple[float, list[float], list[float]]] = []
    with unvanish.watch(net, opts[0], out=tmp_path, every=1) as w:
        for step in range(STEPS):
            x, y = _batch(step)
            for model, opt, wide in ((net, opts[0], False), (twin, opts[1], True)):
                opt.zero_grad()
                kept, h = [], x.double() if wide else x
                for layer in model:
                    h = layer(h)
                    if wide:
                        h.retain_grad()
                        kept.append(h)
                loss = F.cross_entropy(h, y)
                loss.backward()
                if wide:
                    norms = [float(k.grad.norm()) for k in kept if k.grad is not None]
                    sizes = [
                        float(p.grad.square().mean().sqrt()) for p in model.parameters() if p.grad is not None
                    ]
                    true.append((float(loss), norms, sizes))
                opt.step()
    run = w.run()
    assert not run.incidents
    (model,) = run.models
    for step, (loss, norms, sizes) in enumerate(true):
        assert model.losses[step] == pytest.approx(loss, rel=1e-4)
        assert _trace(run)[step][: len(norms)] == pytest.approx(norms, rel=0.1)  # large ones are sampled
        assert _gradients(model)[step] == pytest.approx(sizes, rel=0.35)  # 256 elements of each
    exact = _exactly(tmp_path / "exact")
    assert _gradients(exact.models[0])[0] == pytest.approx(true[0][2], rel=1e-3)
    assert _trace(exact)[0][: len(true[0][1])] == pytest.approx(true[0][1], rel=1e-3)


def _exactly(out: Path) -> Run:
    net = _net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    with unvanish.watch(net, opt, out=out, every=1, exact=True) as w:
        x, y = _batch(0)
        F.cross_entropy(net(x), y).backward()
        opt.step()
    return w.run()


@pytest.mark.parametrize("fused", [False, True])
def test_fp16_with_a_gradient_scaler_is_recorded_unscaled(fused: bool, tmp_path: Path) -> None:
    net = _net()
    opt = torch.optim.Adam(net.parameters(), lr=1e-4, fused=fused)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**14)
    true: list[list[float]] = []
    with unvanish.watch(net, opt, out=tmp_path, every=1, exact=True) as w:
        for step in range(6):
            x, y = _batch(step)
            if step == 3:
                x[0, 0] = float("inf")
            opt.zero_grad()
            with torch.autocast("cuda", dtype=torch.float16):
                loss = F.cross_entropy(net(x), y)
            scaler.scale(loss).backward()
            if step != 3:
                scale = scaler.get_scale()
                grads = [p.grad for p in net.parameters() if p.grad is not None]
                true.append([float(g.double().square().mean().sqrt()) / scale for g in grads])
            scaler.step(opt)
            scaler.update()
    run = w.run()
    assert not run.incidents
    (model,) = run.models
    seen = [row for row in _gradients(model) if all(v == v and v != float("inf") for v in row)]
    assert len(seen) == len(true)
    for row, expected in zip(seen, true, strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
    assert any("GradScaler" in s.why for s in run.skipped), run.skipped


def test_training_on_a_stream_of_its_own(tmp_path: Path) -> None:
    def signals(
        stream: torch.cuda.Stream | None, out: Path
    ) -> tuple[dict[int, list[float]], list[list[float]]]:
        net = _net(512, 8)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        with torch.cuda.stream(stream), unvanish.watch(net, opt, out=out, every=1) as w:
            for step in range(30):
                x, y = _batch(step, 512)
                opt.zero_grad()
                F.cross_entropy(net(x), y).backward()
                opt.step()
        return _trace(w.run()), _gradients(w.run().models[0])

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert signals(torch.cuda.Stream(), tmp_path / "a") == signals(None, tmp_path / "b")
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_cuda_graph_can_be_captured_and_replayed_while_watched(tmp_path: Path) -> None:
    def train(*, watch: bool) -> tuple[list[Tensor], Run | None]:
        net = _net()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        x, y = _batch(0)

        def step() -> None:
            opt.zero_grad(set_to_none=False)
            F.cross_entropy(net(x), y).backward()
            opt.step()

        def whole() -> None:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            for i in range(20):
                x.copy_(_batch(i)[0])
                graph.replay()
            torch.cuda.synchronize()

        if not watch:
            whole()
            return [p.detach().clone() for p in net.parameters()], None
        with unvanish.watch(net, opt, out=tmp_path, every=1) as w:
            whole()
        return [p.detach().clone() for p in net.parameters()], w.run()

    plain, _ = train(watch=False)
    watched, run = train(watch=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert run is not None and not run.incidents
    assert len(run.models[0].steps) == 3, "what is replayed is not seen, and nothing of ours is in the graph"


def test_reduce_overhead_trains_the_same(tmp_path: Path) -> None:
    def train(*, watch: bool) -> list[Tensor]:
        torch._dynamo.reset()
        net = _net()
        compiled = torch.compile(net, mode="reduce-overhead")
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        def steps() -> None:
            for step in range(10):
                x, y = _batch(step)
                opt.zero_grad()
                F.cross_entropy(compiled(x), y).backward()
                opt.step()

        if watch:
            with unvanish.watch(net, opt, out=tmp_path, every=1) as w:
                steps()
            assert not w.run().incidents, w.run().incidents
            assert len(w.run().models[0].steps) == 10
        else:
            steps()
        return [p.detach().clone() for p in net.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(watch=False), train(watch=True), strict=True))


def test_memory_on_the_device(tmp_path: Path) -> None:
    def peak(*, watch: bool) -> int:
        net = _net(1024, 8)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        torch.cuda.reset_peak_memory_stats()

        def steps() -> None:
            for step in range(STEPS):
                x, y = _batch(step, 1024)
                opt.zero_grad()
                F.cross_entropy(net(x), y).backward()
                opt.step()

        if watch:
            with unvanish.watch(net, opt, out=tmp_path):
                steps()
        else:
            steps()
        return torch.cuda.max_memory_allocated()

    alone, with_watch = peak(watch=False), peak(watch=True)
    assert with_watch - alone <= 64 * 2**20
