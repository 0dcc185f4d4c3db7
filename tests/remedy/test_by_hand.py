"""What is handed over of a script that updates its weights by hand; what is said where there is no module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unvanish.remedy.treating import recipe_of
from unvanish.schema.run import ModelInfo, OptimizerInfo, ParameterInfo
from unvanish.schema.treatment import LossInterval, Prescription, TreatmentResult, TrialResult
from unvanish.treatment.recipe import load_recipe, recipe_for, save_recipe

HEAD = """
import torch
from torch import nn

x = torch.randn(128, 8)
y = (x[:, 0] * x[:, 1] > 0).long()
"""
NET = """
layers = [nn.Linear(8, 16), nn.Sigmoid()]
for _ in range(5):
    layers += [nn.Linear(16, 16), nn.Sigmoid()]
net = nn.Sequential(*layers, nn.Linear(16, 2))
"""
MODULE = HEAD + NET + """
for step in range(70):
    rows = torch.randint(0, 128, (32,))
    loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
    net.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.5 * p.grad
print("final loss:", loss.item())
"""  # fmt: skip
TENSORS = HEAD + """
weights = [torch.randn(8, 8).requires_grad_() for _ in range(7)]
for step in range(70):
    h = x
    for w in weights:
        h = torch.sigmoid(h @ w)
    loss = nn.functional.cross_entropy(h, y)
    loss.backward()
    with torch.no_grad():
        for w in weights:
            w -= 0.5 * w.grad
            w.grad = None
"""  # fmt: skip


def model_info(optimizer: str, rate: float) -> ModelInfo:
    weight = ParameterInfo(
        index=0, name="weight", shape=(2, 2), dtype="float32", requires_grad=True, optimizer=0, sampled=4
    )
    stepped = OptimizerInfo(index=0, class_name=optimizer, learning_rates=(rate,), options={})
    return ModelInfo(index=0, name="net", class_name="Linear", parameters=(weight,), optimizers=(stepped,))


def result(rate: float | None, factor: float) -> TreatmentResult:
    row = TrialResult(
        name="init",
        title="init",
        prescriptions=(Prescription(treatment="init", parameters={"scheme": "xavier"}),),
        safety="safe",
        predicted_gain_per_layer=None,
        measured_gain_per_layer=None,
        loss=LossInterval(first=1.0, last=0.1, interval=(None, None)),
        seeds=5,
        steps=60,
        outcome="cured",
        why="it learns",
        learning_rate=rate,
        rate_factor=factor,
    )
    return TreatmentResult(
        baseline=row, trials=(row,), chosen="init", recipe=None, diff=None, wall_seconds=1.0
    )  # fmt: skip


def test_a_rate_that_was_chosen_is_a_factor_where_no_optimizer_has_it() -> None:
    recipe = recipe_of(result(None, 0.3), model_info("ByHand", float("nan")))
    assert recipe is not None and recipe.by_hand and recipe.learning_rate is None
    assert [p.to_dict() for p in recipe.prescriptions[1:]] == [
        {"treatment": "learning_rate", "target": "*", "parameters": {"factor": 0.3}}
    ]
    as_it_is = recipe_of(result(None, 1.0), model_info("ByHand", float("nan")))
    assert as_it_is is not None and as_it_is.by_hand and len(as_it_is.prescriptions) == 1
    usual = recipe_of(result(0.03, 0.3), model_info("SGD", 0.1))
    assert usual is not None and not usual.by_hand
    assert usual.learning_rate == 0.03 and len(usual.prescriptions) == 1


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unvanish", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def treated(folder: Path, name: str) -> dict[str, Any]:
    done = run(folder, "treat", "--seed", "1", "--json", "t.json", name)
    assert done.returncode == 0, done.stderr
    return {**json.loads((folder / "t.json").read_text()), "told": done.stderr}


def test_tensors_that_no_module_holds_are_diagnosed_and_it_is_said_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(TENSORS)
    told = treated(tmp_path, "bare.py")
    assert told["trials"] == [] and told["chosen"] is None
    assert "put the layers into an nn.Module" in told["baseline"]["why"]
    assert "put the layers into an nn.Module" in told["told"] and "Verdict" in told["told"]


def test_a_recipe_is_applied_without_an_optimizer_and_else_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(MODULE)
    (tmp_path / "other.py").write_text(MODULE.replace("(16, 2)", "(16, 3)"))
    module: dict[str, Any] = {}
    exec(HEAD + NET, module)  # noqa: S102 - the net of the scripts above
    parameters = {name: list(p.shape) for name, p in module["net"].named_parameters()}
    assert len(parameters) == 14
    plan = (
        Prescription(treatment="activation", parameters={"kind": "relu"}),
        Prescription(treatment="init", parameters={"scheme": "he"}),
        Prescription(treatment="learning_rate", parameters={"factor": 0.5}),
    )
    save_recipe(recipe_for(module["net"], plan, by_hand=True), tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json").by_hand
    done = run(tmp_path, "run", "--quiet", "--seed", "1", "--recipe", "recipe.json", "train.py")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 0.65
    lost = run(tmp_path, "run", "--quiet", "--recipe", "recipe.json", "other.py")
    assert lost.returncode == 1
    assert "the recipe was never applied: other.py never called its model as a module" in lost.stderr


@pytest.mark.slow
def test_a_cure_from_end_to_end(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(MODULE.replace("range(70)", "range(300)"))
    told = treated(tmp_path, "train.py")
    chosen = next(t for t in told["trials"] if t["name"] == told["chosen"])
    assert chosen["outcome"] == "cured" and chosen["seeds"] == 5
    assert not any("could not be screened" in note for note in told["notes"])
    finals = [
        float(run(tmp_path, "run", "--quiet", "--seed", "77", *way, "train.py").stdout.split()[-1])
        for way in ((), ("--recipe", told["recipe"]))
    ]
    assert finals[1] < 0.5 < finals[0]
