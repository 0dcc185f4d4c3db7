"""`unvanish.watch`, and what becomes of a run that ends badly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unvanish
from unvanish import session
from unvanish.errors import CaptureError, RecordError, UsageError
from unvanish.store import read_run
from unvanish.store.write import RunWriter


def _pair() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    return net, torch.optim.SGD(net.parameters(), 0.2)


def _train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 60) -> None:
    for _ in range(steps):
        x = torch.randn(32, 4)
        optimizer.zero_grad()
        F.cross_entropy(net(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()


def test_watch_around_the_loop(tmp_path: Path) -> None:
    net, optimizer = _pair()
    with unvanish.watch(net, optimizer, out=tmp_path) as w:
        _train(net, optimizer, 30)
        assert w.diagnose().models[0].steps == 30  # in the middle of it
        _train(net, optimizer, 30)
    diagnosis = w.diagnose()
    assert diagnosis.verdict == "healthy"
    assert json.loads((Path(w.path) / "diagnosis.json").read_text())["verdict"] == "healthy"
    run = w.run()
    assert run.status == "finished" and len(run.models[0].steps) == 60
    assert run.models[0].info.optimizers[0].class_name == "SGD"
    assert w.report(tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_other_models_are_not_watched(tmp_path: Path) -> None:
    net, optimizer = _pair()
    other, other_optimizer = _pair()
    with unvanish.watch(net, optimizer, out=tmp_path) as w:
        _train(other, other_optimizer, 5)
        _train(net, optimizer, 5)
    (model,) = w.run().models
    assert len(model.steps) == 5


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "crashed"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_exception_passes_through_and_the_run_is_kept(
    tmp_path: Path, error: BaseException, status: str
) -> None:
    net, optimizer = _pair()
    with pytest.raises(type(error)), unvanish.watch(net, optimizer, out=tmp_path) as w:  # noqa: PT012
        _train(net, optimizer, 12)
        raise error
    assert w.run().status == status
    assert w.diagnose().models[0].steps == 12


def test_a_model_that_was_compiled_before_is_traced_by_its_own_layers(tmp_path: Path) -> None:
    net, optimizer = _pair()
    compiled = torch.compile(net, backend="eager")
    with unvanish.watch(compiled, optimizer, out=tmp_path) as w:
        _train(compiled, optimizer)
    (model,) = w.run().models
    assert model.info.parameters[0].name == "0.weight"
    assert {"0", "2"} <= {o.module for o in model.graphs[model.traces[0].graph].operations}
    assert w.diagnose().verdict == "healthy"


def test_the_losses_of_another_model_that_is_trained_beside_are_not_ours(tmp_path: Path) -> None:
    (net, optimizer), (other, beside) = _pair(), _pair()
    ours: list[float] = []
    with unvanish.watch(net, optimizer, out=tmp_path, every=1) as w:
        for _ in range(6):
            for model, opt, keep in ((net, optimizer, True), (other, beside, False)):
                x = torch.randn(16, 4) * (1.0 if keep else 100.0)
                opt.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                opt.step()
                ours += [loss.item()] if keep else []
    (model,) = w.run().models
    assert list(model.losses) == ours
    assert [t.loss for t in model.traces] == ours


def test_misuse_is_told_at_once_with_the_mend(tmp_path: Path) -> None:
    net, optimizer = _pair()
    with pytest.raises(UsageError, match=r"received the class Linear, not a model; instantiate it first"):
        unvanish.watch(nn.Linear, optimizer, out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"not an nn\.Module; pass the model"):
        unvanish.watch(lambda x: x, optimizer, out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"as the optimizer; pass a torch\.optim\.Optimizer"):
        unvanish.watch(net, "sgd", out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match="the model has no parameters; "):
        unvanish.watch(nn.ReLU(), optimizer, out=tmp_path)
    with pytest.raises(
        CaptureError, match=r"none of the model's parameters; build it from model\.parameters"
    ):
        unvanish.watch(_pair()[0], optimizer, out=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RecordError):
        unvanish.watch(net, optimizer, out=tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]  # nothing was left behind


def test_unknown_names_are_answered_with_those_there_are(tmp_path: Path) -> None:
    net, optimizer = _pair()
    with unvanish.watch(net, optimizer, out=tmp_path) as w:
        _train(net, optimizer, 5)
    run = w.run()
    with pytest.raises(UsageError, match=r"no parameter|has a parameter 'nope'; there are: 0\.weight"):
        session.chains(run, parameter="nope")
    with pytest.raises(UsageError, match="its models are: "):
        session.chains(run, model="nope")
    assert session.chains(run, parameter="0.bias")[0].parameter == "0.bias"


def test_a_disk_that_fills_up_leaves_the_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, optimizer = _pair()

    def full(self: RunWriter, events: object, *, dropped: int = 0) -> None:
        raise RecordError("the disk is full", "free some space")

    with unvanish.watch(net, optimizer, out=tmp_path) as w:
        _train(net, optimizer, 5)
        w._session.flush()
        monkeypatch.setattr(RunWriter, "write", full)
        _train(net, optimizer, 30)
    said = [s for m in w.diagnose().models for s in m.skipped]
    assert any("the disk is full" in s.why for s in said)
    assert len(w.run().models[0].steps) == 5


KILLED = """
import time, torch
from torch import nn
net = nn.Linear(4, 1)
optimizer = torch.optim.SGD(net.parameters(), 0.01)
for i in range(100_000):
    optimizer.zero_grad(); net(torch.randn(8, 4)).pow(2).mean().backward(); optimizer.step()
    print(i, time.time(), flush=True)
    time.sleep(0.004)
"""


def test_kill_9_loses_at_most_the_last_second(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(KILLED)
    child = subprocess.Popen(
        [sys.executable, "-m", "unvanish", "run", "--out", "runs", "s.py"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    made: list[float] = []
    until = time.monotonic() + 60
    while len(made) < 400 and time.monotonic() < until:
        made.append(float(child.stdout.readline().split()[1]))
    os.kill(child.pid, signal.SIGKILL)
    killed = time.time()
    made += [float(line.split()[1]) for line in child.stdout.read().splitlines() if len(line.split()) == 2]
    child.wait()
    (folder,) = (tmp_path / "runs").iterdir()
    run = read_run(folder)
    assert run.status == "cut_off"
    kept = len(run.models[0].steps)
    assert killed - made[kept - 1] < 1.0, "what is lost is younger than a second"
    done = subprocess.run(
        [sys.executable, "-m", "unvanish", "report", str(folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cut off" in Path(tmp_path / done.stdout.strip()).read_text(encoding="utf-8")


def test_a_loss_that_is_no_number_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        "import torch\nnet = torch.nn.Linear(4, 2)\no = torch.optim.SGD(net.parameters(), 0.1)\n"
        "net(torch.randn(3, 4)).backward()\no.step()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "unvanish", "run", "s.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("unvanish: ") and "not a single number; reduce it first" in last


def test_the_page_lets_one_choose_among_chains_and_a_deep_net_has_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*[m for _ in range(14) for m in (nn.Linear(4, 4), nn.Tanh())], nn.Linear(4, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with unvanish.watch(net, optimizer, out=tmp_path) as w:
        _train(net, optimizer, 4)
    run = w.run()
    found = session.page_chains(run)
    assert found[0] == session.chains(run)[0], "the most starved weight comes first"
    names = [c.parameter for c in found]
    assert len(set(names)) == len(names) == session.PAGE_CHAINS
    assert {"0.weight", "28.weight"} <= set(names), "over the whole depth"
    monkeypatch.setattr(session, "CHAIN_LOOKS", 90)
    assert 1 <= len(session.page_chains(run)) <= 3
    assert [c["parameter"] for c in session.page_view(run)["models"][0]["chains"]]
