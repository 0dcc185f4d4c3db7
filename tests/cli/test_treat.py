"""`unvanish treat` as a user calls it: what is refused at once, what is left alone, and one cure from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unvanish import cli, launch
from unvanish.cli.watch import _called, _shown

DATA = """
import sys
import torch
from torch import nn

x = torch.randn(256, 8)
y = (x[:, 0] * x[:, 1] > 0).long()
"""
SICK = (
    DATA
    + """
layers = [nn.Linear(8, 32), nn.Sigmoid()]
for _ in range(9):
    layers += [nn.Linear(32, 32), nn.Sigmoid()]
model = nn.Sequential(*layers, nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(30):
    for rows in torch.randperm(256).split(32):
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), "best.pt")
    model.load_state_dict(torch.load("best.pt"))
    with open("log.csv", "a") as log:
        log.write("a line\\n")
print("final loss:", loss.item())
"""
)
WELL = SICK.replace("range(9)", "range(1)").replace("Sigmoid", "ReLU")
FACTORY = (
    DATA
    + """
def build():
    return nn.Sequential(nn.Linear(8, 8)), (x, y)
"""
)

CLINIC = Path(__file__).parents[2] / "benchmarks" / "clinic" / "flow"
USERS = ("best.pt", "log.csv")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in (("sick.py", SICK), ("well.py", WELL), ("nets.py", FACTORY)):
        (tmp_path / name).write_text(source, encoding="utf-8")
    for name in USERS:
        (tmp_path / name).write_text("the user's\n")
    (tmp_path / "idle.py").write_text("print('nothing')\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no data')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sikc.py"], "did you mean sick.py?"),
        (["nowhere.py:build"], "there is no file nowhere.py"),
        (["nets.py:build", "x"], "a factory takes no arguments"),
        (["--json", "nowhere/x.json", "sick.py"], "can't be written"),
        (["--recipe", "nowhere/r.json", "sick.py"], "can't be written"),
        (["idle.py"], "torch was never imported while idle.py ran"),
        (["broken.py"], "broken.py ended before its first training step"),
    ],
)
def test_what_can_not_be_treated_is_one_clear_line(
    folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["treat", *words]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in told and told.startswith("unvanish: ")


def test_the_run_of_a_factory_is_called_by_its_file_and_function() -> None:
    factory = launch.Target(
        name="unvanish.launch.practice", arguments=("a/nets.py:Nets.deep",), is_module=True
    )
    assert (_called(factory), _shown(factory)) == ("nets_Nets_deep", "a/nets.py:Nets.deep")
    module = launch.Target(name="package.train", arguments=("x",), is_module=True)
    assert (_called(module), _shown(module)) == ("package.train", "package.train")


@pytest.mark.parametrize(
    "words", [["--seeds", "1", "x.py"], ["--engine", "cloud", "x.py"], ["--allow", "all", "x.py"], []]
)
def test_wrong_usage(words: list[str], folder: Path) -> None:
    assert cli.main(["treat", *words]) == 2


def treated(folder: Path, *words: str) -> dict[str, Any]:
    """The result of a treatment, which leaves the user's files as they are."""
    before = {name: ((folder / name).read_text(), (folder / name).stat().st_mtime_ns) for name in USERS}
    done = subprocess.run(
        [sys.executable, "-m", "unvanish", "treat", "--seed", "1", "--json", "t.json", *words],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = {name: ((folder / name).read_text(), (folder / name).stat().st_mtime_ns) for name in USERS}
    assert before == after
    assert {p.name for p in folder.iterdir() if p.suffix in (".pt", ".csv")} == set(USERS)
    return {**json.loads((folder / "t.json").read_text()), "told": done.stderr}


def test_what_is_well_is_left_alone(folder: Path) -> None:
    result = treated(folder, "well.py")
    assert result["chosen"] is None and result["trials"] == [] and result["recipe"] is None
    assert result["baseline"]["why"].startswith("nothing to treat")
    assert "nothing to treat" in result["told"].lower()


@pytest.mark.slow
def test_a_cure_from_end_to_end(folder: Path) -> None:
    result = treated(folder, "sick.py")
    chosen = next(t for t in result["trials"] if t["name"] == result["chosen"])
    assert chosen["outcome"] == "cured" and chosen["seeds"] == 5 and chosen["safety"] == "safe"
    assert result["baseline"]["stuck_seeds"] == 5
    assert any("one backward pass" in u["why"] for u in result["untried"])
    finals = {}
    for way in ("", f"--recipe={result['recipe']}"):
        done = subprocess.run(
            [sys.executable, "-m", "unvanish", "run", "--quiet", "--seed", "77", *filter(None, [way]), "sick.py"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        finals[way] = float(done.stdout.split()[-1])
    untreated, cured = finals.values()
    assert cured < 0.5 and untreated > 0.6
    subprocess.run(["git", "apply", result["diff"]], cwd=folder, check=True)
    patched = subprocess.run(
        [sys.executable, "-m", "unvanish", "run", "--quiet", "--seed", "77", "sick.py"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(patched.stdout.split()[-1]) == pytest.approx(cured, rel=1e-4)


@pytest.mark.slow
def test_only_what_is_asked_for_is_tried(folder: Path) -> None:
    result = treated(folder, "--only", "residual,xavier", "sick.py")
    assert {t["name"] for t in result["trials"]} <= {"residual", "residual_scaled", "xavier"}


@pytest.mark.slow
def test_gains_of_norms_that_are_far_too_small_are_cured(folder: Path) -> None:
    source = CLINIC / "wine_layernorm.py"
    (folder / source.name).write_text(source.read_text())
    result = treated(folder, source.name)
    chosen = next(t for t in result["trials"] if t["name"] == result["chosen"])
    assert chosen["outcome"] == "cured" and chosen["seeds"] == 5
    done = subprocess.run(
        [sys.executable, "-m", "unvanish", "run", "--quiet", "--seed", "101", "--recipe", result["recipe"], source.name],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout.split()[-1]) < 0.4  # the clinic's own bar
