"""``unvanish check`` on scripts and factories, as a stranger meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unvanish import cli

SCRIPT = """
import sys
import torch
from torch import nn
torch.manual_seed(0)
layers = [m for _ in range(12) for m in (nn.Linear(32, 32), nn.Sigmoid())]
model = nn.Sequential(*layers, nn.Linear(32, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
before = [p.clone() for p in model.parameters()]
try:
    for step in range(1000):
        x = torch.randn(16, 32)
        loss = nn.functional.cross_entropy(model(x), torch.randint(0, 4, (16,)))
        optimizer.zero_grad()
        loss.backward()
        print("before the step")
        optimizer.step()
        print("after the step")
finally:
    print("the same" if all(map(torch.equal, before, model.parameters())) else "changed")
"""
FACTORIES = """
import torch
from torch import nn
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
def convolution():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
def images():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
def tokens():
    return nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 30))
def whole():
    return model(), (torch.randn(8, 12), torch.randint(0, 3, (8,))), nn.functional.cross_entropy
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(4, 5, 6)
    def forward(self, a, b):
        return self.layer(a, b)
def broken():
    raise RuntimeError("no weights here")
def number():
    return 3
constant = 7
built = model()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "nets.py").write_text(FACTORIES)
    return tmp_path


def unvanish(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unvanish", "check", *words],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def checked(folder: Path, *words: str) -> dict[str, Any]:
    done = unvanish(folder, "--quiet", "--json", "result.json", *words)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return dict(json.loads((folder / "result.json").read_text()))


def test_a_script_is_stopped_before_its_first_step_has_an_effect(folder: Path) -> None:
    done = unvanish(folder, "train.py")
    assert done.returncode == 0
    assert done.stdout.split("\n") == ["before the step", "the same", ""]
    assert "Verdict  Sick: the gradients vanish on their way back" in done.stderr
    assert "He init" in done.stderr and "would carry this net" in done.stderr
    assert "ReLU, init unchanged" in done.stderr and "still vanishes" in done.stderr
    (kept,) = (folder / "unvanish_runs").glob("*/check.json")
    assert json.loads(kept.read_text())["check"]["model"] == "model"


def test_the_optimizer_of_a_script_counts(folder: Path) -> None:
    text = SCRIPT.replace(
        "torch.optim.SGD(model.parameters(), lr=0.1)", "torch.optim.Adam(model.parameters())"
    )
    (folder / "adam.py").write_text(text.replace("range(12)", "range(3)"))
    result = checked(folder, "adam.py")
    (finding,) = result["models"][0]["findings"]
    assert result["verdict"] == "healthy"
    assert (finding["kind"], finding["severity"]) == ("vanishing_gradients", "warning")
    assert "Adam" in finding["summary"]


def test_a_closure_is_called_once_and_its_step_is_not_made(folder: Path) -> None:
    (folder / "lbfgs.py").write_text(
        "import torch\nfrom torch import nn\n"
        "net = nn.Linear(4, 1)\nw = net.weight.clone()\n"
        "optimizer = torch.optim.LBFGS(net.parameters())\nx = torch.randn(8, 4)\n"
        "def closure():\n    optimizer.zero_grad()\n    loss = net(x).square().mean()\n    loss.backward()\n"
        "    print('called')\n    return loss\n"
        "try:\n    optimizer.step(closure)\nfinally:\n    print(torch.equal(w, net.weight))\n"
    )
    done = unvanish(folder, "lbfgs.py")
    assert done.stdout.split() == ["called", "True"], done.stderr
    assert done.returncode == 0


def test_two_models_of_one_script(folder: Path) -> None:
    (folder / "gan.py").write_text(
        "import torch\nfrom torch import nn\n"
        "maker, judge = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6)), nn.Sequential(nn.Linear(6, 1))\n"
        "a, b = (torch.optim.Adam(m.parameters()) for m in (maker, judge))\n"
        "judge(maker(torch.randn(16, 4))).mean().backward()\na.step()\nb.step()\n"
    )
    result = checked(folder, "gan.py")
    assert [m["name"] for m in result["models"]] == ["maker", "judge"]
    assert len(result["check"]["others"]) == 1


@pytest.mark.parametrize("name", ["model", "images", "tokens", "whole", "built"])
def test_factories(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(["check", "--quiet", "--json", "result.json", f"nets.py:{name}"]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["models"][0]["name"] == name
    assert len(result["check"]["layers"]) >= 1
    assert (result["models"][0]["loss"]["first"] is not None) == (name == "whole")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nets.py:modle"], "nets.py has no function 'modle'; did you mean model?"),
        (
            ["nets.py:Two"],
            "no example input could be guessed for Two; return (model, batch)",
        ),
        (["nets.py:broken"], "nets.py:broken raised RuntimeError: no weights here"),
        (
            ["nets.py:number"],
            "nets.py:number: it is of type int, not an nn.Module; return (model, batch, loss_fn)",
        ),
        (["nets.py:constant"], "constant in nets.py is of type int, not something to call"),
        (["nowhere.py:model"], "there is no file nowhere.py"),
        (["nets.py:model", "--depth", "3"], "a factory takes no arguments"),
        (["trian.py"], "did you mean train.py?"),
        (["--json", "nowhere/x.json", "train.py"], "the JSON can't be written"),
    ],
)
def test_bad_input_is_one_clear_line(
    folder: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(["check", *words]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert len(told.strip().splitlines()) == 1


def test_a_script_that_trains_nothing(folder: Path) -> None:
    done = unvanish(folder, "nets.py")
    assert done.returncode == 1
    assert "no torch optimizer stepped while nets.py ran" in done.stderr and "Traceback" not in done.stderr


def test_usage(folder: Path) -> None:
    done = unvanish(folder)
    assert done.returncode == 2 and "name what to check" in done.stderr


def test_a_script_that_crashes_before_its_first_step(folder: Path) -> None:
    (folder / "crash.py").write_text("import torch\nraise ValueError('no data')\n")
    done = unvanish(folder, "crash.py")
    assert done.returncode == 1
    assert "ValueError: no data" in done.stderr
    assert "crash.py ended before its first optimizer step" in done.stderr
