"""Scripts whose weights no module holds: trials, and a recipe from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unvanish.launch.trial import run_trial
from unvanish.schema.treatment import Prescription
from unvanish.treatment.candidate import of
from unvanish.treatment.loose import mark_of
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

SCRIPT = """
import torch
torch.manual_seed(0)
w1, b1 = torch.randn(20, 64, requires_grad=True), torch.randn(64, requires_grad=True)
middle = [torch.randn(64, 64, requires_grad=True) for _ in range(4)]
w2 = torch.randn(64, 2, requires_grad=True)
x = torch.randn(256, 20)
y = (x[:, 0] > 0).long()
optimizer = torch.optim.SGD([w1, b1, *middle, w2], lr=0.1)
losses = []
for step in range(150):
    h = torch.relu(x @ w1 + b1)
    for w in middle:
        h = torch.relu(h @ w)
    loss = torch.nn.functional.cross_entropy(h @ w2, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
"""
SHAPES = [(20, 64), (64,), *[(64, 64)] * 4, (64, 2)]


def trial(
    folder: Path, *plan: Prescription, mark: str = mark_of(SHAPES), factor: float = 1.0
) -> TrialOutcome:
    (folder / "s.py").write_text(SCRIPT)
    spec = TrialSpec(
        candidate="x",
        prescriptions=plan,
        target=Target(program=str(folder / "s.py")),
        seed=0,
        steps=30,
        mark=mark,
        loose=True,
        learning_rate_factor=factor,
    )
    return run_trial(spec)


def test_the_weights_are_drawn_when_the_optimizer_is_built(tmp_path: Path) -> None:
    plain, drawn = trial(tmp_path), trial(tmp_path, of("init", scheme="lecun"))
    assert plain.error is None and drawn.error is None
    assert plain.losses[0] > 10.0
    assert drawn.losses[0] < 2.0
    slower = trial(tmp_path, of("init", scheme="lecun"), factor=0.1)
    assert slower.losses[0] == drawn.losses[0] and slower.losses[-1] > drawn.losses[-1]
    assert slower.learning_rate == pytest.approx(0.01)


def test_other_weights_are_not_touched_and_what_is_for_modules_is_an_error(tmp_path: Path) -> None:
    other = trial(tmp_path, of("init", scheme="lecun"), mark=mark_of(SHAPES[:2]))
    assert other.error is not None and "never built an optimizer" in other.error
    refused = trial(tmp_path, of("batchnorm"))
    assert refused.error is not None and "no module holds" in refused.error


@pytest.mark.slow
def test_treated_and_trained_by_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    call = [sys.executable, "-m", "unvanish", "treat", "--quiet", "--out", "runs", "--json", "t.json", "s.py"]
    subprocess.run(call, cwd=tmp_path, check=True, capture_output=True)
    told = json.loads((tmp_path / "t.json").read_text())
    assert told["chosen"] is not None and told["diff"] is None
    assert any("nn.Module" in note for note in told["notes"])
    call = [
        sys.executable,
        "-m",
        "unvanish",
        "run",
        "--quiet",
        "--out",
        "runs",
        "--recipe",
        told["recipe"],
        "s.py",
    ]
    done = subprocess.run(call, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert float(done.stdout.rpartition("final loss:")[2].split()[0]) < 0.3
