"""`unvanish explain` on a run, a script and a factory, as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from unvanish.cli import main

SCRIPT = """
import sys
import torch
from torch import nn

print("arguments:", sys.argv[1:])
torch.manual_seed(0)
layers = []
for _ in range(6):
    layers += [nn.Linear(6, 6), nn.Sigmoid()]
net = nn.Sequential(*layers, nn.Linear(6, 2))
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for step in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
    x = torch.randn(4, 6)
    loss = nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("step", step)
"""
NETS = """
import torch
from torch import nn

def build():
    print("building")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return net, (torch.randn(5, 3), torch.randint(2, (5,))), nn.CrossEntropyLoss()
"""


def explain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unvanish", "explain", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_script_is_run_for_one_step_and_leaves_nothing(folder: Path) -> None:
    done = explain(folder, "train.py", "--parameter", "0.weight", "--index", "1,2", "--json", "-", "--", "9")
    assert done.returncode == 0, done.stderr
    assert "arguments: ['9']" in done.stderr and "step 0" not in done.stderr
    data = json.loads(done.stdout)
    (chain,) = data["chains"]
    assert (data["run"], chain["parameter"], chain["cause"]) == (None, "0.weight", "saturating_activation")
    assert all(f["bound"] is not None for f in chain["factors"] if f["kind"] in ("weight", "activation"))
    scalar = data["scalar"]
    assert scalar["index"] == [1, 2] and scalar["total"] == pytest.approx(scalar["gradient"], rel=1e-3)
    assert sorted(p.name for p in folder.iterdir()) == ["nets.py", "train.py"]


def test_a_kept_run_says_the_same_as_the_script(folder: Path) -> None:
    first = explain(folder, "train.py", "--out", "runs", "--seed", "3")
    assert first.returncode == 0, first.stderr
    assert "Run kept in" in first.stdout
    (run,) = [p for p in (folder / "runs").iterdir() if p.is_dir()]
    again = explain(folder, str(run))
    assert again.returncode == 0, again.stderr
    assert first.stdout.startswith(again.stdout)
    lines = again.stdout.splitlines()
    assert lines[0].startswith("From layer 12 down to 0.weight, step 0")
    assert [line.split()[0] for line in lines if line.startswith(("Way", "Blame", "Mend"))] == [
        "Way",
        "Blame",
        "Mend",
    ]
    assert "6 Sigmoid derivatives take" in again.stdout and "batch norm" in again.stdout


def invoke(*words: str) -> Any:
    return CliRunner().invoke(_command(), ["explain", *words])


def _command() -> Any:
    from unvanish.cli import unvanish as command

    return command


def test_a_factory_is_explained_in_text_and_json(folder: Path) -> None:
    text = invoke("nets.py:build", "--parameter", "0.weight", "--index", "1,2", "--paths", "3")
    assert text.exit_code == 0, text.output
    assert "From layer 2 down to 0.weight" in text.stdout and "building" not in text.stdout
    assert "It is the sum over 2 paths" in text.stdout and "autograd's gradient, exactly" in text.stdout
    data = json.loads(invoke("nets.py:build", "--index", "0,0", "--json", "-").stdout)
    assert data["scalar"]["parameter"] == data["chains"][0]["parameter"]


WRONG = [
    (("nowhere",), "there is no run at nowhere"),
    (("train",), "train"),
    (("trian.py",), "there is no script trian.py; did you mean train.py?"),
    (("nets.py:bild",), "nets.py has no function 'bild'; did you mean build?"),
    (("none.py:build",), "there is no file none.py"),
    (
        ("nets.py:build", "--parameter", "0.wight"),
        "the model has no parameter '0.wight'; did you mean 0.weight",
    ),
    (("nets.py:build", "--index", "1"), "has the shape"),
    (("nets.py:build", "--index", "9,9"), "lies outside of"),
    (("nets.py:build", "--index", "one"), "--index one is no index; give whole numbers with commas"),
    (("nets.py:build", "--", "x"), "a factory is called without arguments"),
    (
        ("train.py", "--index", "1,2"),
        "--index needs to know of which parameter; name it with --parameter NAME",
    ),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_what_can_t_be_is_one_line(
    words: tuple[str, ...], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words]) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line != "building"]
    assert out == "" and len(lines) == 1
    assert lines[0].startswith("unvanish: ") and said in lines[0]


FAULTY = {
    "print('nothing here')": "torch was never imported while s.py ran",
    "import torch": "no torch optimizer stepped while s.py ran, so there is no gradient to explain",
    "import torch\nraise ValueError('no data')": "s.py ended before its first training step: ValueError: no data",
}


@pytest.mark.parametrize("script", FAULTY)
def test_a_script_that_never_steps_is_said(script: str, folder: Path) -> None:
    (folder / "s.py").write_text(script, encoding="utf-8")
    done = explain(folder, "s.py")
    assert done.returncode == 1 and done.stdout == ""
    assert FAULTY[script] in done.stderr.splitlines()[-1]


def test_a_script_s_unknown_parameter_and_index_are_said(folder: Path) -> None:
    done = explain(folder, "train.py", "--parameter", "0.wieght")
    assert done.returncode == 1
    assert "has a parameter '0.wieght'; did you mean 0.weight" in done.stderr.splitlines()[-1]
    done = explain(folder, "train.py", "--parameter", "0.weight", "--index", "7,7")
    assert done.returncode == 1 and "lies outside of 0.weight" in done.stderr.splitlines()[-1]
