"""The source patch of a recipe, made and rehearsed in a process of its own."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from unvanish.remedy.options import Options
from unvanish.remedy.patching import patch_for
from unvanish.treatment.candidate import of
from unvanish.treatment.recipe import recipe_for, save_recipe
from unvanish.verify.trial import Target

UNSEEDED = """\
import random

import numpy as np
import torch
from torch import nn

X = torch.tensor(np.random.default_rng().normal(size=(64, 3)), dtype=torch.float32)
order = random.Random().sample(range(64), 64)
net = nn.Sequential(nn.Linear(3, 8), nn.Sigmoid(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(12):
    loss = (net(X[order[step:step + 9]]) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def test_a_script_of_unseeded_generators_is_rehearsed_on_the_same_numbers(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(UNSEEDED)
    net = nn.Sequential(nn.Linear(3, 8), nn.Sigmoid(), nn.Linear(8, 1))
    recipe = save_recipe(recipe_for(net, [of("activation", kind="relu")]), tmp_path / "recipe.json")
    target = Target(program=str(script), directory=str(tmp_path))
    patch = patch_for(target, recipe, Options(out=tmp_path))
    assert b"+net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))" in patch.diff
    assert [note for note in patch.notes if not note.startswith("the source patch is for")] == []
