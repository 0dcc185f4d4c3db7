"""Whatever goes wrong around the watching, training is the same bit by bit, and the user is told once."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad
from torch.optim import optimizer as optim_module

import unvanish
from unvanish import session
from unvanish.errors import CaptureError, UnvanishWarning
from unvanish.present.text import diagnosis_to_text
from unvanish.present.view import build_view
from unvanish.probe import engine, parameters, seams, steps
from unvanish.probe.standin import LAYERS
from unvanish.schema.run import Event
from unvanish.store.write import RunWriter


def net(width: int = 16) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(inplace=True), nn.Dropout(0.1), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3)
    )  # fmt: skip


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, count: int, *, poison: float | None = None
) -> None:
    torch.manual_seed(2)
    for _ in range(count):
        x, y = torch.randn(12, 8), torch.randint(3, (12,))
        if poison is not None:
            x[0, 0] = poison
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def pair(width: int = 16) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = net(width)
    return model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)


def state(model: nn.Module) -> tuple[bytes, bytes]:
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    return hashlib.sha256(weights).digest(), torch.get_rng_state().numpy().tobytes()


def unwatched(count: int, **options: Any) -> tuple[bytes, bytes]:
    model, optimizer = pair()
    train(model, optimizer, count, **options)
    return state(model)


def everything_of_torch() -> dict[str, Any]:
    """All that a watch stands in for or hangs a hook on."""
    dynamo = sys.modules.get("torch._dynamo")
    handler = dynamo.callback.callback_handler if dynamo is not None else None  # type: ignore[attr-defined]
    return {
        "call": nn.Module.__call__,
        "backward": torch.autograd.backward,
        "compile": torch.compile,
        "scale": torch.amp.GradScaler.scale,
        "scaler's step": torch.amp.GradScaler._maybe_opt_step,
        "clip": clip_grad._clip_grads_with_norm_,
        "clip_grad_norm_": nn.utils.clip_grad_norm_,
        "capture": (torch.cuda.CUDAGraph.capture_begin, torch.cuda.CUDAGraph.capture_end),
        "before steps": list(optim_module._global_optimizer_pre_hooks.values()),
        "after steps": list(optim_module._global_optimizer_post_hooks.values()),
        "modules": [len(getattr(nn.modules.module, f"_global_{kind}_hooks")) for kind in ("forward", "backward", "forward_pre")],
        "dynamo": (0, 0) if handler is None else (len(handler.start_callbacks), len(handler.end_callbacks)),
        "threads": [t for t in threading.enumerate() if t.name.startswith("unvanish")],
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _off_means_off() -> Iterator[None]:
    """After every test here, torch is its own again."""
    before = everything_of_torch()
    yield
    assert everything_of_torch() == before
    assert not LAYERS._layers


# --- what is told ------------------------------------------------------------------------------------------


def told(w: unvanish.session.Watch, fault: str) -> None:  # type: ignore[name-defined]
    """The text, the JSON and the page all say it."""
    diagnosis = w.diagnose()
    notes = [s for m in diagnosis.to_dict()["models"] for s in m["skipped"]]
    assert any(fault in s["why"] for s in notes), notes
    assert fault in diagnosis_to_text(diagnosis)
    assert fault in str(diagnosis)


def on_the_page(w: unvanish.session.Watch, fault: str) -> None:  # type: ignore[name-defined]
    run = w.run()
    view = build_view(run, session.diagnose(run), ())
    assert any(fault in i["what"] for i in view["incidents"])
    assert fault in w.report().read_text(encoding="utf-8")


def broken(*args: Any, **kwargs: Any) -> Any:
    raise ZeroDivisionError("a fault of ours")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (engine.Probe, "_trace"),  # at traced steps
        (parameters.ParameterRing, "look_gradients"),  # at every step
        (parameters.ParameterRing, "reduce"),  # in the writer's thread
        (parameters, "quantiles"),
    ],
)
def test_a_fault_is_warned_about_once_and_shown(
    owner: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = unwatched(120)
    monkeypatch.setattr(owner, name, broken)
    model, optimizer = pair()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with unvanish.watch(model, optimizer, out=tmp_path, every=5) as w:
            train(model, optimizer, 120)
    assert state(model) == plain
    ours = [c for c in caught if issubclass(c.category, UnvanishWarning)]
    assert len(ours) == 1 and "a fault of ours" in str(ours[0].message), [str(c.message) for c in caught]
    assert len(w.run().incidents) <= 2, "kept once, and counted"
    assert len(w.run().models[0].steps) == 120, "the losses are known all the same"
    told(w, "a fault of ours")
    on_the_page(w, "a fault of ours")


def test_a_warning_that_is_an_error_does_not_reach_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters.ParameterRing, "look_gradients", broken)
    plain = unwatched(20)
    model, optimizer = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with unvanish.watch(model, optimizer, out=tmp_path):
            train(model, optimizer, 20)
    assert state(model) == plain


def test_a_fault_before_any_model_is_known_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unvanish.probe.models.Models.of", broken)
    plain = unwatched(10)
    model, optimizer = pair()
    with pytest.warns(UnvanishWarning), unvanish.watch(model, optimizer, out=tmp_path) as w:
        train(model, optimizer, 10)
    assert state(model) == plain
    diagnosis = w.diagnose()
    assert diagnosis.verdict == "inconclusive" and not diagnosis.models
    for shown in (str(diagnosis), diagnosis_to_text(diagnosis), json.dumps(diagnosis.to_dict())):
        assert "a fault of ours" in shown
    on_the_page(w, "a fault of ours")


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    script = """
import torch
from unvanish.probe.parameters import ParameterRing
def broken(*args, **kwargs): raise ZeroDivisionError("a fault of ours")
ParameterRing.look_gradients = broken
net = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(60):
    optimizer.zero_grad(); net(torch.randn(8, 4)).square().mean().backward(); optimizer.step()
print("done")
"""
    (tmp_path / "s.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-m", "unvanish", "run", "--json", "d.json", "s.py"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "done\n"
    lines = done.stderr.splitlines()
    assert len([x for x in lines if x.startswith("unvanish: ") and "a fault of ours" in x]) == 1
    assert any(x.startswith("Note") and "a fault of ours" in x for x in lines)
    notes = json.loads((tmp_path / "d.json").read_text())["models"][0]["skipped"]
    assert any("a fault of ours" in s["why"] for s in notes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e38])
def test_nan_everywhere_is_a_number_to_us(value: float, tmp_path: Path) -> None:
    plain = unwatched(60, poison=value)
    model, optimizer = pair()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
            train(model, optimizer, 60, poison=value)
    assert state(model) == plain
    assert not [str(c.message) for c in caught if "unvanish" in (c.filename or "")]
    run = w.run()
    assert not run.incidents and len(run.models[0].steps) == 60
    assert len(run.models[0].traces) == 60
    w.report()


# --- disks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "room", [2**23, 100], ids=["what was measured meanwhile fits into memory", "it does not"]
)
def test_a_disk_that_is_full_for_a_while(tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself says so here. What there is no room for is lost, and counted; then the record goes on."""
    monkeypatch.setattr("unvanish.probe.buffer.RETRY_BYTES", room)
    plain = unwatched(600)
    model, optimizer = pair()
    with pytest.warns(UnvanishWarning, match="the disk is full") as caught:  # noqa: PT031 - its writer may warn anywhere here
        w = unvanish.watch(model, optimizer, out=tmp_path)
        connection = w._session._writer._connection
        buffer = w._session._buffer
        assert buffer is not None

        def limit(pages: int) -> None:
            w._session.flush()
            connection.execute(f"PRAGMA max_page_count = {pages}")

        torch.manual_seed(2)
        for number in range(600):
            if number == 200:
                limit(1)  # = what is used
            if number == 400:
                limit(2**30)
                buffer._again_at = 0.0
            if number % 50 == 0:
                w._session.flush()
            x, y = torch.randn(12, 8), torch.randint(3, (12,))
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        w.close()
    assert state(model) == plain
    assert len(caught) == 1
    kept = list(w.run().models[0].steps)
    assert set(range(200)) <= set(kept) and set(range(450, 600)) <= set(kept)
    assert kept == sorted(set(kept))
    missing = 600 - len(kept)
    told(w, "the disk is full")
    if room > 100:
        assert not missing
    else:
        assert missing > 50
        told(w, f"{missing} steps")
    on_the_page(w, "the disk is full")


LIMITED = """
import hashlib, resource, signal, sys, warnings
import torch
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(*[m for _ in range(8) for m in (nn.Linear(32, 32), nn.Tanh())])
optimizer = torch.optim.SGD(net.parameters(), 0.1)
def train(steps=400):
    for i in range(steps):
        optimizer.zero_grad(); net(torch.randn(4, 32)).square().mean().backward(); optimizer.step()
if "watch" in sys.argv:
    import unvanish
    w = unvanish.watch(net, optimizer, out="runs", every=1)
    train(5)
    assert len(w.run().models[0].steps) == 5
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    train()
    w.close()
    print(w.diagnose(), file=sys.stderr)
else:
    train(5)
    train()
print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_files_that_may_not_grow_any_more(tmp_path: Path) -> None:
    """The kernel refuses the writes, of the database, its log and the JSON alike."""
    (tmp_path / "s.py").write_text(LIMITED)
    plain, watched = (
        subprocess.run(
            [sys.executable, "s.py", *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        for words in ([], ["watch"])
    )
    assert watched.stdout == plain.stdout and plain.stdout
    assert watched.stderr.count("UnvanishWarning") == 1
    assert "Note     fault in record" in watched.stderr and "steps" in watched.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert session.load(folder).models[0].steps[:5].tolist() == [0, 1, 2, 3, 4], (
        "what was written before is readable"
    )


def test_a_record_that_is_deleted_under_our_feet(tmp_path: Path) -> None:
    model, optimizer = pair()
    with unvanish.watch(model, optimizer, out=tmp_path / "runs") as w:
        train(model, optimizer, 10)
        w._session.flush()
        for file in (tmp_path / "runs").rglob("*.*"):
            if file.is_file():
                file.unlink()
        train(model, optimizer, 10)
    assert w.diagnose().verdict == "inconclusive"
    assert "the record of this run" in str(w.diagnose())


class SlowDisk:
    """Each write takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.kept = seconds, list[Event]()
        self.original = RunWriter.write

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        disk = self

        def write(writer: RunWriter, events: list[Event], *, dropped: int = 0) -> None:
            time.sleep(disk.seconds)
            disk.original(writer, events, dropped=dropped)

        monkeypatch.setattr(RunWriter, "write", write)


def test_a_slow_disk_is_not_waited_for_and_loses_traced_detail_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unvanish.probe.buffer.DETAIL_BYTES", 200_000)
    plain = unwatched(1500)
    model, optimizer = pair()
    disk = SlowDisk(2.0)
    disk.install(monkeypatch)
    w = unvanish.watch(model, optimizer, out=tmp_path, every=2)
    began = time.perf_counter()
    longest = last = 0.0

    def clock(*_: Any) -> None:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - (last or now)), now

    handle = optimizer.register_step_post_hook(clock)
    train(model, optimizer, 1500)
    handle.remove()
    seconds = time.perf_counter() - began
    disk.seconds = 0.0
    buffer = w._session._buffer
    assert buffer is not None
    assert buffer._came - buffer._went <= 200_000, "what waits is bounded"
    w.close()
    assert state(model) == plain
    assert longest < 1.0, f"a step of {longest:.1f} s in {seconds:.1f} s: it waited for the disk"
    run = w.run()
    assert len(run.models[0].steps) == 1500, "steps are the last to be given up"
    assert len(run.models[0].traces) < 600
    told(w, "traced passes")
    assert "traced passes" in json.dumps(build_view(run, session.diagnose(run), ()))


def test_the_steps_that_wait_for_a_slow_disk_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "MOST_WAITING", 300)
    model, optimizer = pair()
    disk = SlowDisk(3.0)
    disk.install(monkeypatch)
    w = unvanish.watch(model, optimizer, out=tmp_path)
    time.sleep(0.4)
    train(model, optimizer, 1200)
    disk.seconds = 0.0
    w.close()
    kept = len(w.run().models[0].steps)
    assert kept < 1200
    told(w, f"{1200 - kept:,} steps")


# --- off means off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, engine.StopTraining])
def test_a_loop_that_ends_badly_leaves_no_hook(tmp_path: Path, error: type[BaseException]) -> None:
    before = everything_of_torch()
    model, optimizer = pair()
    with pytest.raises(error), unvanish.watch(model, optimizer, out=tmp_path, every=1):  # noqa: PT012
        train(model, optimizer, 3)
        model(torch.randn(2, 8)).sum().backward()
        raise error
    assert everything_of_torch() == before
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())


def _parts() -> list[tuple[Any, str]]:
    return [
        (optim_module, "register_optimizer_step_pre_hook"),
        (optim_module, "register_optimizer_step_post_hook"),
        (engine, "see_clipping"),
        (engine.LossScale, "place"),
        (seams.Captures, "place"),
        (engine.Seams, "place"),
        (engine.ForwardWatch, "arm"),
    ]


@pytest.mark.parametrize("owner, name", _parts())  # noqa: PT006 - as the rest reads
@pytest.mark.parametrize("error", [ZeroDivisionError("no room"), KeyboardInterrupt()])
def test_watching_that_can_not_begin_takes_all_back_and_says_the_mend(
    owner: Any, name: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_of_torch()

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(owner, name, fails)
    model, optimizer = pair()
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            unvanish.watch(model, optimizer, out=tmp_path)
    else:
        with pytest.raises(CaptureError, match=r"could not begin .*no room.*; .*taken back"):
            unvanish.watch(model, optimizer, out=tmp_path)
    assert everything_of_torch() == before
    monkeypatch.undo()
    plain = unwatched(5)
    with unvanish.watch(model, optimizer, out=tmp_path) as w:
        train(model, optimizer, 5)
    assert state(model) == plain and len(w.run().models[0].steps) == 5


@pytest.mark.parametrize("first_out", [True, False])
@pytest.mark.parametrize("others", [False, True], ids=["alone", "with somebody else's patches between"])
def test_watches_end_in_any_order(tmp_path: Path, first_out: bool, others: bool) -> None:
    call, backward = nn.Module.__call__, torch.autograd.backward
    one, two = pair(), pair(24)
    w = unvanish.watch(*one, out=tmp_path, every=1)
    if others:  # as a library might, over ours
        below_call, below_backward = nn.Module.__call__, torch.autograd.backward
        seen: list[int] = []

        def theirs(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            seen.append(1)
            return below_call(module, *args, **kwargs)

        nn.Module.__call__ = theirs  # type: ignore[method-assign]
        torch.autograd.backward = partial(below_backward)  # type: ignore[assignment]
    v = unvanish.watch(*two, out=tmp_path, every=1)
    try:
        for _ in range(2):
            train(*one, 3)
            train(*two, 3)
        (w if first_out else v).close()
        train(*one, 3)
        train(*two, 3)
        (v if first_out else w).close()
        if others:
            assert nn.Module.__call__ is theirs and seen
            before = len(seen)
            train(*one, 1)
            assert len(seen) == before + 7, "theirs is called, once for each module"
        else:
            assert nn.Module.__call__ is call and torch.autograd.backward is backward
    finally:
        nn.Module.__call__ = call  # type: ignore[method-assign]
        torch.autograd.backward = backward
    first, second = w.run().models[0], v.run().models[0]
    assert len(first.steps) == (6 if first_out else 9) and len(second.steps) == (9 if first_out else 6)
    for model in (first, second):
        assert len(model.traces) == len(model.steps)
        assert {o.module for g in model.graphs.values() for o in g.operations} >= {"0", "3", "5"}
        assert len(model.graphs) == 1


# --- the model can be saved at any time --------------------------------------------------------------------


class Saves(nn.Module):
    """Saves itself in the middle of its forward pass."""

    def __init__(self, save: Callable[[nn.Module], None]) -> None:
        super().__init__()
        self.body = net()
        self.__dict__["save"] = save

    def forward(self, x: Tensor) -> Tensor:
        h = self.body[0](x)
        self.__dict__["save"](self.body)
        return self.body[1:](h)


def save_every_way(model: nn.Module) -> list[str]:
    stream = io.BytesIO()
    torch.save(model, stream)
    torch.save(model.state_dict(), io.BytesIO())
    stream.seek(0)
    twins = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own
        torch.load(stream, weights_only=False),
    ]
    for twin in twins:
        for (name, a), (other, b) in zip(twin.state_dict().items(), model.state_dict().items(), strict=True):
            assert name == other and torch.equal(a, b)
        assert twin(torch.zeros(1, 8)).shape == (1, 3)
    return list(model.state_dict())


def test_a_model_can_be_saved_inside_a_traced_forward_pass_and_from_another_thread(tmp_path: Path) -> None:
    saved: list[list[str]] = []

    def save(model: nn.Module) -> None:
        with torch.no_grad(), torch.random.fork_rng():
            saved.append(save_every_way(model))

    def run(*, watch: bool) -> tuple[bytes, bytes]:
        torch.manual_seed(3)
        model = Saves(save)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        w = unvanish.watch(model, optimizer, out=tmp_path, every=1) if watch else None
        stop = threading.Event()
        errors: list[BaseException] = []

        def elsewhere() -> None:
            while not stop.is_set():
                try:
                    torch.save(model.body, io.BytesIO())
                    pickle.dumps(optimizer.state_dict())
                    copy.deepcopy(model.body.state_dict())
                except RuntimeError as error:  # a dict that changes size while a step adds to it
                    if "changed size" not in str(error):
                        errors.append(error)

        other = threading.Thread(target=elsewhere)
        other.start()
        train(model, optimizer, 6)
        stop.set()
        other.join()
        assert not errors
        trained = state(model)
        if w is not None:
            save_every_way(model.body)
            pickle.dumps(optimizer)
            copy.deepcopy(optimizer)
            pickle.dumps(torch.amp.GradScaler("cpu"))
            w.close()
            assert not w.run().incidents and len(w.run().models[0].traces) == 6
        return trained

    assert run(watch=True) == run(watch=False)
    assert len({tuple(names) for names in saved}) == 1 and len(saved) >= 12


def test_training_in_another_thread_than_the_one_that_watches(tmp_path: Path) -> None:
    model, optimizer = pair()
    with unvanish.watch(model, optimizer, out=tmp_path, every=1) as w:
        thread = threading.Thread(target=train, args=(model, optimizer, 8))
        thread.start()
        thread.join()
    traces = w.run().models[0].traces
    graphs = w.run().models[0].graphs
    assert len(traces) == 8
    assert {o.module for o in graphs[traces[-1].graph].operations} >= {"0", "3", "5"}


def test_a_full_database_is_what_sqlite_says(tmp_path: Path) -> None:
    """The message that the tests above count on."""
    connection = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
